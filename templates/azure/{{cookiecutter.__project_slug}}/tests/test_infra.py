"""What `azd up` would deploy keeps the rules of azure_checks."""

from __future__ import annotations

import offline
from infra import azure_checks

FOLDER = offline.ROOT / "functions" / "azure"
SETTINGS = (FOLDER / "infra" / "app.bicep").read_text("utf-8")
ABOUT_THE_QUEUE = {
    *("queue_has_dead_letters", "queue_outlasts_function", "triggers_fit_queue"),
    *("dead_letters_are_told", "waiting_is_told"),
}
ABOUT_THE_TABLE = {"state_is_shared", "roles_are_narrow"}


def test_what_is_deployed(monkeypatch):
    """Every rule holds: two regions, streams, dead letters, alerts, least privilege, retention, secrets."""
    left_out = set()
    if "FIRSTTOKEN_QUEUE__KIND" not in SETTINGS:
        left_out |= ABOUT_THE_QUEUE
    if "FIRSTTOKEN_STORE__KIND" not in SETTINGS:
        left_out |= ABOUT_THE_TABLE
    rules = tuple(rule for rule in azure_checks.RULES if rule.__name__ not in left_out)
    monkeypatch.setattr(azure_checks, "RULES", rules)
    assert azure_checks.findings(FOLDER) == {}
