"""``firsttoken load`` from its arguments to its exit status, with real processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from firsttoken.bench.child import Server, Simulator
from firsttoken.cli import main

SCENARIO = """
description = "Two tenants, one of them asks more."
duration = 1.5
[arrivals]
process = "constant"
rate = 20
[mix]
repeated = 0.5
pool = 2
[mix.tenants.large]
share = 3
key_env = "LOAD_KEY_LARGE"
[mix.tenants.small]
key_env = "LOAD_KEY_SMALL"
[slo]
ttft_ms = 10000
[expect]
availability = {availability}
[targets.near]
profile = "ttft_ms=5,itl_ms=0,tokens=8"
{fault}
"""
FAULT = '[[fault]]\ntarget = "near"\nprofile = "fault=status,status=400"\nat = 0.5\nuntil = 1\n'
CONFIG = """
[auth]
mode = "off"
[providers.near]
kind = "openai"
base_url = "{url}/v1"
[models.chat]
target = "near/m"
"""


def written(path: Path, **values: object) -> str:
    path.write_text(SCENARIO.format(**{"availability": 1, "fault": "", **values}), "utf-8")
    return str(path)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway of the run's own knows the tenants' keys; JSON, CSV and page are written."""
    names = [tmp_path / name for name in ("r.json", "r.csv", "r.html")]
    to = [
        word
        for option, path in zip(("--json", "--csv", "--html"), names, strict=True)
        for word in (option, str(path))
    ]
    assert main(["load", written(tmp_path / "mine.toml"), "--seed", "3", *to]) == 0
    shown = capsys.readouterr()
    assert "mine (simulated upstream)" in shown.out
    assert "PASS  availability (expected 1): 1" in shown.out
    assert "sent, 29 ended, 0 failed" in shown.err
    found = json.loads(names[0].read_text("utf-8"))
    assert (found["requests"], found["answered"], found["seed"], found["passed"]) == (29, 29, 3, True)
    assert found["simulated"]
    assert found["date"].startswith("20")
    assert found["machine"]
    assert found["command"].startswith("firsttoken load ")
    assert found["command"].endswith("mine.toml --seed 3")
    assert {"tenant large", "tenant small", "repeated prompt", "new prompt"} <= found["parts"].keys()
    assert found["tokens"] == 29 * 8
    with names[1].open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 29
    assert names[2].read_text("utf-8").startswith("<!doctype html>")


def test_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows in the errors, and a missed bar is exit status 1, so that a pipeline stops."""
    out = tmp_path / "r.json"
    path = written(tmp_path / "mine.toml", fault=FAULT)
    assert main(["load", path, "--json", str(out), "--rate", "40"]) == 1
    assert "FAIL  availability" in capsys.readouterr().out
    found = json.loads(out.read_text("utf-8"))
    assert 0 < found["answered"] < found["requests"] == 59
    assert found["disturbed"] == [0.5, 1]


def test_a_url(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that runs already gets the load: of the default scenario, of a trace, or of a file."""
    simulator, config = Simulator("near", "ttft_ms=5,itl_ms=0,tokens=8"), tmp_path / "firsttoken.toml"
    trace = tmp_path / "trace.csv"
    trace.write_text("at,prompt_tokens,answer_tokens\n0,10,3\n4,20,8\n8,30,2\n", "utf-8")
    gateway = Server(config)
    monkeypatch.setenv("LOAD_KEY_LARGE", "any")
    monkeypatch.setenv("LOAD_KEY_SMALL", "any")
    try:
        simulator.start()
        config.write_text(CONFIG.format(url=simulator.url), "utf-8")
        gateway.start()
        at = f"{gateway.url}/v1"
        assert main(["load", at, "--duration", "1", "--streamed", "1", "--key-env", "LOAD_KEY_LARGE"]) == 0
        assert f"steady ({gateway.url})" in capsys.readouterr().out
        assert main(["load", at, "--trace", str(trace), "--speed", "8"]) == 0
        assert "requests  3 in" in capsys.readouterr().out
        assert main(["load", written(tmp_path / "mine.toml", fault=FAULT), "--url", at]) == 0
        assert "faults were left out" in capsys.readouterr().out
    finally:
        gateway.stop()
        simulator.stop()


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Each scenario of the package is listed with what it does."""
    assert main(["load", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *("burst", "recovery", "soak", "steady")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "WHAT: expected one URL"),
        (["nowhere"], "nowhere: there is no such scenario"),
        (["http://127.0.0.1:1", "--url", "http://127.0.0.1:2"], "WHAT"),
        (["steady", "--url", "127.0.0.1:1"], "expected a URL such as"),
        (["http://127.0.0.1:1", "--key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["soak", "--url", "http://127.0.0.1:1"], "FIRSTTOKEN_LOAD_KEY_LARGE"),
        (["steady", "--html", "nowhere/r.html"], "there is no such folder"),
        (["http://127.0.0.1:1", "--trace", "nowhere.csv"], "nowhere.csv: not readable"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument exits with 2 and one line, before a request is sent."""
    assert main(["load", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--rate", "0"), ("--streamed", "1.5"), ("--process", "even")])
def test_values_are_checked(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The argument that is wrong is named."""
    with pytest.raises(SystemExit):
        main(["load", "steady", option, value])
    assert option in capsys.readouterr().err
