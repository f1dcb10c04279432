"""``firsttoken new``: a project of a template, or the reason why there is none."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from firsttoken.cli import main
from firsttoken.commands import new

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "cookiecutter.yaml"
    config.write_text(f"replay_dir: {tmp_path}/replay\n")
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(config))


def test_it_makes_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command makes a project that loads, and says what comes next."""
    out = tmp_path / "made"
    code = main(["new", "aws", "--defaults", "--set", "project_name=Help desk", "--out", str(out)])
    assert code == 0
    assert (out / "help-desk" / "shared" / "firsttoken" / "cli.py").is_file()
    assert capsys.readouterr().out.endswith(f"cd {out}/help-desk\n  make serve\n")


WRONG = {
    "no pair": (["aws", "--set", "colour"], "--set colour: expected NAME=ANSWER"),
    "no question": (
        ["aws", "--set", "colour=red"],
        "--set colour: nobody asks for it; expected one of project_name",
    ),
    "no choice": (["aws", "--set", "shape=rag"], "rag provided for choice variable shape"),
    "refused": (["gcp", "--set", "failover_region=us-east1"], "nothing was made, for the reasons above"),
    "no cloud": ([], "--defaults: expected a cloud before it"),
    "no source": (["aws", "--source", "/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_wrong_answers(
    arguments: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said in one line after the program's name, and nothing is made."""
    assert main(["new", *arguments, "--defaults", "--out", str(tmp_path / "made")]) == 2
    error = capfd.readouterr().err
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
    assert list((tmp_path / "made").glob("*/README.md")) == []


def test_it_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is there already stays as it is."""
    (tmp_path / "my-llm-endpoint").mkdir()
    assert main(["new", "azure", "--defaults", "--out", str(tmp_path)]) == 2
    assert "already exists; expected a new folder" in capsys.readouterr().err


def test_it_asks_for_the_cloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the cloud is asked for until there is an answer: a number, a name or the first one."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for typed, cloud in (("9\n2\n", "gcp"), ("azure\n", "azure"), ("\n", "aws")):
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        assert new._asked() == cloud
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["new"]) == 2
    assert "expected a cloud: one of aws, gcp, azure" in capsys.readouterr().err


def test_cookiecutter_is_optional(tmp_path: Path) -> None:
    """Without cookiecutter the command says how to get it."""
    code = "import sys; sys.modules['cookiecutter'] = None; from firsttoken.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "new", "aws", "--defaults"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "cookiecutter is missing; expected `pip install 'firsttoken[new]'`" in done.stderr
