"""``firsttoken cache label``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support import Answer, ask

from firsttoken import config
from firsttoken.app import App
from firsttoken.auth import digest
from firsttoken.cli import main
from firsttoken.gateway import Gateway

FIRST = "How do I reset my password?"
ALIKE = "Please tell me how I reset my password."
CONFIGURATION = """
[cache]
mode = "on"
[semantic]
mode = "{mode}"
{judge}
[store]
timeout = 20
kind = "{kind}"
{path}
[auth]
mode = "on"
[auth.keys]
acme = ["{acme}"]
other = ["{other}"]
[providers.simulated]
kind = "simulated"
ttft_ms = 0
itl_ms = 0
[models.m]
target = "simulated/m"
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a configuration and name it in the environment."""

    def write(mode: str = "on", kind: str = "sqlite", judge: str = "") -> None:
        file = tmp_path / "firsttoken.toml"
        path = f'path = "{tmp_path}/store.sqlite"' if kind == "sqlite" else ""
        keys = {name: digest(name) for name in ("acme", "other")}
        text = CONFIGURATION.format(mode=mode, kind=kind, path=path, judge=judge, **keys)
        file.write_text(text, "utf-8")
        monkeypatch.setenv("FIRSTTOKEN_CONFIG", str(file))

    return write


def asked(*questions: str, key: str = "acme") -> list[Answer]:
    """Ask a new instance one question after the other, and let it tell the store of each."""

    async def work() -> list[Answer]:
        app = App(Gateway(config.load()), deployed=True, log=lambda _: None)
        try:
            return [await ask(app, _body(text), headers={"x-api-key": key}) for text in questions]
        finally:
            await app.gateway.aclose()

    return asyncio.run(work())


def _body(text: str) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}]}


def kept(answers: list[Answer]) -> list[str | None]:
    return [answer.headers.get("x-firsttoken-cache") for answer in answers]


def test_a_bad_answer_is_given_to_its_own_question_only(configured: Any, capsys: Any) -> None:
    """Every instance that shares the store keeps to it."""
    configured()
    answers = asked(FIRST, ALIKE)
    assert kept(answers) == ["miss", "similar"]
    call_id = answers[1].headers["x-request-id"]
    assert main(["cache", "label", call_id, "--bad", "--tenant", "acme"]) == 0
    assert capsys.readouterr().out == f"{call_id}: labelled bad\n"
    assert kept(asked(FIRST, ALIKE)) == ["hit", "miss"]


def test_a_label_is_of_its_own_tenant_only(configured: Any, capsys: Any) -> None:
    """Whoever names another tenant, or an answer of another kind, is told that there is none."""
    configured()
    first, similar = asked(FIRST, ALIKE)
    ids = [answer.headers["x-request-id"] for answer in (first, similar)]
    assert main(["cache", "label", ids[1], "--bad", "--tenant", "other"]) == 1
    assert f"{ids[1]}: no answer of the semantic cache to tenant other" in capsys.readouterr().err
    assert main(["cache", "label", ids[0], "--bad", "--tenant", "acme"]) == 1
    assert kept(asked(ALIKE)) == ["similar"]


def test_a_good_label_counts_where_there_is_a_judge(configured: Any) -> None:
    """It is one of the judgements that a kind of question needs before it is served: here one is enough."""
    configured()
    call_id = asked(FIRST, ALIKE)[1].headers["x-request-id"]
    configured(judge='judge = "m"\nprecision = 0.2\nsample = 0')
    assert kept(asked(f"{ALIKE}!", f"{ALIKE}!!")) == ["miss", "miss"]
    assert main(["cache", "label", call_id, "--good", "--tenant", "acme"]) == 0
    # The first call of a process only has the counts read.
    assert kept(asked(f"{ALIKE}!!!", f"{ALIKE}!!!!")) == ["miss", "similar"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"mode": "off"}, "semantic.mode: "), ({"kind": "memory"}, "store.kind: ")],
)
def test_what_cannot_be_labelled_is_said(settings: Any, said: str, configured: Any, capsys: Any) -> None:
    """No semantic cache, or one that only its own process can reach: what was expected."""
    configured(**settings)
    assert main(["cache", "label", "req_1", "--bad"]) == 2
    assert said in capsys.readouterr().err
