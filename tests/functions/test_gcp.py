"""The Google Cloud functions in their real runtime, with the embedded model; every event file is run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsttoken.emulators.gcp import GcpEmulator

PROJECT = Path(__file__).parents[2]
EVENTS = sorted((PROJECT / "events" / "gcp").glob("*.json"))
ENVIRONMENT = {"FIRSTTOKEN_AUTH": "off", "FIRSTTOKEN_QUEUE__KIND": "memory"}
LIMIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def emulators() -> Iterator[dict[str, GcpEmulator]]:
    """Each target in a process of its own, started when it is first wanted."""
    running: dict[str, GcpEmulator] = {}

    class Started(dict[str, GcpEmulator]):
        def __missing__(self, target: str) -> GcpEmulator:
            emulator = GcpEmulator(root=PROJECT / "functions" / "gcp", target=target, env=ENVIRONMENT)
            emulator.start()
            running[target] = self[target] = emulator
            return emulator

    yield Started()
    for emulator in running.values():
        emulator.stop()


async def invoke(emulator: GcpEmulator, event: dict[str, Any]) -> tuple[int, str, str]:
    """Return status, content type and body."""
    async with asyncio.timeout(LIMIT_SECONDS), emulator.invoke(event) as answer:
        return answer.status, answer.headers["content-type"], (await answer.read(1 << 20)).decode()


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_every_event_file_is_answered(emulators: dict[str, GcpEmulator], path: Path) -> None:
    """Each file under events/gcp is a request that its function answers."""
    event = json.loads(path.read_text())
    status, kind, body = asyncio.run(invoke(emulators[event["target"]], event))
    assert status == 200, body
    if path.stem == "chat.stream":
        assert kind.startswith("text/event-stream")
        assert body.endswith("data: [DONE]\n\n")
    elif path.stem == "chat.nonstream":
        assert json.loads(body)["choices"][0]["message"]["content"]
    elif path.stem == "models":
        assert "simulated" in [model["id"] for model in json.loads(body)["data"]]
    elif event["target"] == "recover":
        # One job in five envelopes: whoever comes later finds it answered.
        row = json.loads(body)
        assert (row["id"], row["tenant"], row["state"]) == ("job_01JD3Q8Z5T7W", "acme", "done"), body
        assert row["delivered"] == (2 if path.stem == "recover.push-wrapped" else 1)
    else:
        assert json.loads(body)["healthy"] is True


def test_a_bad_envelope_is_refused(emulators: dict[str, GcpEmulator]) -> None:
    """What is no Pub/Sub message gets a 400 that lists the forms, not a crash."""
    event = {"target": "recover", "method": "POST", "path": "/", "headers": {}, "body": {"hello": "world"}}
    status, _, body = asyncio.run(invoke(emulators["recover"], event))
    assert status == 400
    assert "x-goog-pubsub-message-id" in body


def test_the_entrypoint_holds_no_logic() -> None:
    """An entrypoint stays within 40 lines."""
    assert len((PROJECT / "functions" / "gcp" / "main.py").read_text().splitlines()) <= 40
