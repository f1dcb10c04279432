"""The real functions-framework, started through its command line, with the probe app behind it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from firsttoken.emulators.child import EmulatorError
from firsttoken.emulators.gcp import GcpEmulator
from firsttoken.errors import ConfigError, UpstreamClosedError

APPS = Path(__file__).parent / "apps"
LIMIT_SECONDS = 20.0


def probe_environment(**settings: str) -> dict[str, str]:
    """Return app settings with the probe app on the path."""
    return {"PYTHONPATH": os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")]), **settings}


@pytest.fixture(scope="module")
def emulator() -> Iterator[GcpEmulator]:
    """One target, for all tests of this module."""
    with GcpEmulator(root=APPS / "gcp", env=probe_environment(CLOUD_RUN_TIMEOUT_SECONDS="300")) as running:
        yield running


async def get(emulator: GcpEmulator, path: str, **request: Any) -> tuple[int, bytes]:
    async with (
        asyncio.timeout(LIMIT_SECONDS),
        emulator.request(request.pop("method", "GET"), path, **request) as answer,
    ):
        return answer.status, await answer.read(1 << 20)


def test_request_reaches_the_app_unchanged(emulator: GcpEmulator) -> None:
    """Method, path, query, headers and body reach the app as they were sent, with the platform's deadline."""
    status, body = asyncio.run(
        get(emulator, "/v1/a%20b?x=1&y=%2F", method="PUT", headers={"X-Mine": "kept"}, body={"text": "héllo"})
    )
    seen = json.loads(body)
    assert (status, seen["method"], seen["path"], seen["query"]) == (200, "PUT", "/v1/a b", "x=1&y=%2F")
    assert (seen["headers"]["x-mine"], json.loads(seen["body"])) == ("kept", {"text": "héllo"})
    assert seen["extensions"]["firsttoken"]["deadline"] > 0


def test_chunks_arrive_while_the_answer_is_written(emulator: GcpEmulator) -> None:
    """The first chunk is there before the app may write the second one."""

    async def run() -> list[bytes]:
        async with asyncio.timeout(LIMIT_SECONDS), emulator.request("GET", "/gated") as answer:
            chunks = answer.chunks()
            seen = [await anext(chunks)]
            await get(emulator, "/open")
            return [*seen, *[chunk async for chunk in chunks]]

    assert asyncio.run(run()) == [b"one", b"two"]


def test_disconnect_reaches_the_app(emulator: GcpEmulator) -> None:
    """A client that hangs up in mid-stream is seen by the app at once."""

    async def run() -> bytes:
        limit = asyncio.timeout(LIMIT_SECONDS)
        async with limit, emulator.request("GET", "/hang") as answer, aclosing(answer.chunks()) as chunks:
            assert await anext(chunks) == b"one"
        return (await get(emulator, "/gone"))[1]

    assert asyncio.run(run()) == b"gone"


def test_error_before_the_first_byte_is_a_500(emulator: GcpEmulator) -> None:
    """What the app does not catch becomes the framework's 500."""
    assert asyncio.run(get(emulator, "/fail"))[0] == 500


def test_error_after_the_first_byte_cuts_the_answer(emulator: GcpEmulator) -> None:
    """An answer that breaks in the middle ends as an incomplete one, never as a short complete one."""
    with pytest.raises(UpstreamClosedError):
        asyncio.run(get(emulator, "/cut"))


def test_stopping_ends_every_process() -> None:
    """Nothing of the framework, its workers included, is left after the block."""
    with GcpEmulator(root=APPS / "gcp", env=probe_environment()) as running:
        group = running.pid
        os.killpg(group, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_function_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    """The error carries what the framework wrote, so the cause can be read."""
    (tmp_path / "main.py").write_text("raise ValueError('the cause')\n")
    with pytest.raises(EmulatorError, match="the cause"), GcpEmulator(root=tmp_path):
        pass


def test_an_event_without_a_field_is_refused(emulator: GcpEmulator) -> None:
    """A bad event file is refused by naming the missing field."""
    with pytest.raises(ConfigError, match="'path'"):
        emulator.invoke({"target": "chat", "method": "GET"})
