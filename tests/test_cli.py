"""The command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from firsttoken.auth import digest
from firsttoken.cli import main

ROOT = Path(__file__).resolve().parents[1]


def test_a_key_and_its_digest(capsys: pytest.CaptureFixture[str]) -> None:
    """The key is shown once, its digest goes into the configuration, and both belong together."""
    assert main(["key", "acme"]) == 0
    shown, configured = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
    assert configured == f"FIRSTTOKEN_KEYS=acme:{digest(shown)}"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["serve", "--port", "0"], {"FIRSTTOKEN_SERVER__NOPE": "1"}, "server.nope"),
        (["serve", "--host", "0.0.0.0", "--port", "0"], {}, "auth.keys"),  # noqa: S104 - refused
        (["sim", "--profile", "fault=none"], {}, "--profile"),
        (["sim", "--region", "eu=color=red"], {}, "--region"),
        (["invoke", "aws", "/absent.json"], {}, "/absent.json"),
    ],
)
def test_mistakes_exit_with_2_and_name_what_was_wrong(
    arguments: list[str],
    env: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong configuration or argument is one line on stderr, without a traceback."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("cloud", [[], ["--cloud", "aws"], ["--cloud", "gcp"], ["--cloud", "azure"]])
def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str], cloud: list[str]) -> None:
    """The address that is taken and what to do are said; nobody else's answers are taken for ours."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, *cloud]) == 2
    assert port in capsys.readouterr().err


def test_serve_answers_as_soon_as_it_says_so_and_stops_cleanly() -> None:
    """The first line names the address, which takes calls at once; SIGINT ends it without noise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "shared")}
    command = [sys.executable, "-m", "firsttoken.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        with urllib.request.urlopen(f"{url}/models", timeout=10) as answer:  # noqa: S310 - our own server
            assert b"simulated" in answer.read()
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=10)
    assert server.returncode == 0
    assert "Traceback" not in errors
