"""``firsttoken chaos`` from its arguments to its exit status, with real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsttoken.bench.child import Server, Simulator
from firsttoken.cli import main

SCENARIO = """
description = "A target fails for a while."
duration = 1.5
rate = 20
settle = 0

[targets.near]
profile = "ttft_ms=5,itl_ms=0,tokens=8"
{control}

[[fault]]
target = "near"
profile = "fault=status,status=400"
at = 0.5
until = 1

[expect]
availability = {availability}
wrong = 0
"""
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
    path.write_text(SCENARIO.format(**{"control": "", "availability": 0.2, **values}), "utf-8")
    return str(path)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fault shows in the figures, and the whole report is written as JSON."""
    out = tmp_path / "report.json"
    assert main(["chaos", written(tmp_path / "mine.toml"), "--json", str(out), "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "mine (simulated upstream)" in shown
    assert "PASS  availability" in shown
    found = json.loads(out.read_text("utf-8"))
    assert found["seed"] == 3
    assert 0 < found["answered"] < found["requests"]
    assert found["phases"]["during"]["answered"] < found["phases"]["during"]["requests"]
    assert found["phases"]["before"]["answered"] == found["phases"]["before"]["requests"]
    assert found["targets"]["near"]["requests"] >= found["answered"]


def test_an_expectation_that_is_not_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1, so that a pipeline stops."""
    path = written(tmp_path / "mine.toml", availability=1)
    assert main(["chaos", path, "--duration", "1", "--rate", "30"]) == 1
    assert "FAIL  availability (expected 1)" in capsys.readouterr().out


def test_a_gateway_that_runs_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets the load, and the simulators that the file names are the ones that are broken."""
    simulator, config = Simulator("near", "ttft_ms=5,itl_ms=0,tokens=8"), tmp_path / "firsttoken.toml"
    gateway = Server(config)
    try:
        simulator.start()
        config.write_text(CONFIG.format(url=simulator.url), "utf-8")
        gateway.start()
        path = written(tmp_path / "mine.toml", control=f'control = "{simulator.url}"')
        assert main(["chaos", path, "--url", gateway.url]) == 0
    finally:
        gateway.stop()
        simulator.stop()
    assert "PASS  availability" in capsys.readouterr().out


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Each scenario of the package is listed with what it does."""
    assert main(["chaos", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("region-hang ") and line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "SCENARIO"), (["nowhere"], "nowhere"), (["region-503", "--url", "http://127.0.0.1:1"], "control")],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument exits with 2 and one line."""
    assert main(["chaos", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "inf", "fast"])
def test_a_rate_is_above_zero(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The argument that is wrong is named."""
    with pytest.raises(SystemExit):
        main(["chaos", "region-503", "--rate", value])
    assert "--rate" in capsys.readouterr().err
