"""The Azure functions in Microsoft's real runtime, with the embedded model; every event file is run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsttoken.emulators.azure import AzureEmulator

PROJECT = Path(__file__).parents[2]
ROOT = PROJECT / "functions" / "azure"
EVENTS = sorted((PROJECT / "events" / "azure").glob("*.json"))
ENVIRONMENT = {"FIRSTTOKEN_AUTH": "off", "FIRSTTOKEN_QUEUE__KIND": "memory"}
LIMIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def emulator() -> Iterator[AzureEmulator]:
    with AzureEmulator(root=ROOT, env=ENVIRONMENT) as running:
        yield running


async def invoke(emulator: AzureEmulator, event: dict[str, Any]) -> tuple[int, str, str]:
    """Return status, content type and body."""
    async with asyncio.timeout(LIMIT_SECONDS), emulator.invoke(event) as answer:
        return answer.status, answer.headers["content-type"], (await answer.read(1 << 20)).decode()


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_every_event_file_is_answered(emulator: AzureEmulator, path: Path) -> None:
    """Each file under events/azure is a trigger that its function handles."""
    event = json.loads(path.read_text())
    status, kind, body = asyncio.run(invoke(emulator, event))
    assert status == 200, body
    if path.stem == "chat.stream":
        assert kind.startswith("text/event-stream")
        assert body.endswith("data: [DONE]\n\n")
    elif path.stem == "chat.nonstream":
        assert json.loads(body)["choices"][0]["message"]["content"]
    elif path.stem == "models":
        assert "simulated" in [model["id"] for model in json.loads(body)["data"]]
    else:
        assert json.loads(body)["status"] == "Success"


def test_every_trigger_has_its_function(emulator: AzureEmulator) -> None:
    """The runtime finds the four functions, under the same names as on the other clouds."""
    event = {"trigger": "http", "method": "GET", "url": "/admin/host/status"}
    body = asyncio.run(invoke(emulator, event))[2]
    assert json.loads(body)["functions"] == ["chat", "recover", "recover_bus", "scheduled"]


def test_host_settings_match_the_functions() -> None:
    """Paths are the same on every cloud; queue messages are base64, and are not tried for ever."""
    extensions = json.loads((ROOT / "host.json").read_text())["extensions"]
    assert extensions["http"]["routePrefix"] == ""
    assert extensions["queues"]["messageEncoding"] == "base64"
    assert extensions["queues"]["maxDequeueCount"] > 1


def test_the_entrypoint_holds_no_logic() -> None:
    """An entrypoint stays within 40 lines."""
    assert len((ROOT / "function_app.py").read_text().splitlines()) <= 40
