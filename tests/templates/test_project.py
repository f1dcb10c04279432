"""A project of each cloud on its own: its tests, and a streamed answer from its real runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from templates.baking import CLOUDS, environ, run

BODY = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Name three planets."}]}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_its_own_tests_pass(cloud: str, projects: dict[str, Path]) -> None:
    """Every event runs through the cloud's runtime with the project's own core and settings."""
    done = run(projects[cloud], "pytest", "-q", "-p", "no:cacheprovider", "--ignore=tests/test_infra.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("cloud", CLOUDS)
def test_it_serves_streams(cloud: str, projects: dict[str, Path], tmp_path: Path) -> None:
    """`make serve RUNTIME=...` answers token by token."""
    import asyncio

    project = projects[cloud]
    command = [sys.executable, "-m", "firsttoken.cli", "serve", "--port", "0", "--cloud", cloud]
    with subprocess.Popen(
        command,
        cwd=project,
        env={**environ(project), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            said = next((line for line in server.stdout if "firsttoken serves" in line), "it ended")
            url = re.search(r"http://\S+/v1", said)[0]
            pieces = asyncio.run(_stream(f"{url}/chat/completions"))
        finally:
            server.terminate()
            server.stdout.close()
    assert len(pieces) > 3
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


async def _stream(url: str) -> list[bytes]:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.post(url, json=BODY) as answer:
        assert answer.status == 200
        return [piece async for piece in answer.content.iter_any()]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_makefile_names_its_tasks(cloud: str, projects: dict[str, Path]) -> None:
    """`make help` lists what the README and the deployment use."""
    done = subprocess.run(["make", "help"], cwd=projects[cloud], capture_output=True, text=True, check=True)
    tasks = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"serve", "test", "check", "key", "stage", "deploy", "clean"} <= tasks


@pytest.mark.parametrize("cloud", CLOUDS)
def test_readme_has_two_commands(cloud: str, projects: dict[str, Path]) -> None:
    """The README says how to start, how to test, and asks for the model that the settings offer."""
    text = (projects[cloud] / "README.md").read_text()
    assert re.search(r"^make serve\b", text, re.MULTILINE)
    assert re.search(r"^make test$", text, re.MULTILINE)
    assert '"model": "chat"' in text


@pytest.mark.parametrize("cloud", CLOUDS)
def test_events_ask_for_the_offered_model(cloud: str, projects: dict[str, Path]) -> None:
    """The events are the cloud's own, and name the model that this project offers."""
    events = sorted((projects[cloud] / "events" / cloud).glob("*.json"))
    assert {"chat.stream", "chat.nonstream", "models"} <= {event.stem for event in events}
    assert all(isinstance(json.loads(event.read_text()), dict) for event in events)
    assert not [event for event in events if "simulated" in event.read_text()]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_documents_lead_somewhere(cloud: str, projects: dict[str, Path]) -> None:
    """Every page that the README or a comment names is in the project."""
    project = projects[cloud]
    named = set()
    for path in project.rglob("*"):
        vendored = {"shared", "docs", "tests", "requirements"} & set(path.relative_to(project).parts)
        if path.is_file() and not vendored:
            named |= set(re.findall(r"docs/[\w-]+\.md", path.read_text("utf-8")))
    assert not [name for name in sorted(named) if not (project / name).is_file()]
