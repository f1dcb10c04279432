"""Every event under events/ is run through the cloud's own runtime, on this machine."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module

import offline
import pytest

EVENTS = sorted((offline.ROOT / "events" / offline.CLOUD).glob("*.json"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    for name, value in offline.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where local stores and queues are


def run(event):
    """Return the pieces of the answer to an event, as they come."""
    emulator = import_module(f"firsttoken.emulators.{offline.CLOUD}")

    async def pieces():
        async with asyncio.timeout(60):
            return [piece async for piece in emulator.invoke(event)]

    return asyncio.run(pieces())


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.stem)
def test_event(file, monkeypatch):
    """The function that the event is for answers it."""
    if file.stem.startswith("recover"):
        monkeypatch.setenv("FIRSTTOKEN_QUEUE__KIND", "memory")
    body = b"".join(run(json.loads(file.read_bytes()))).decode()
    if file.stem == "chat.stream":
        assert body.endswith("data: [DONE]\n\n")
    elif file.stem == "chat.nonstream":
        assert json.loads(body)["choices"][0]["message"]["content"]
    elif file.stem == "models":
        assert "chat" in [model["id"] for model in json.loads(body)["data"]]
    else:
        assert body


def test_the_answer_streams():
    """A streamed answer arrives in pieces, not at its end."""
    file = next(file for file in EVENTS if file.stem == "chat.stream")
    assert len(run(json.loads(file.read_bytes()))) > 3
