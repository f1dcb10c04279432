"""The emulated queue listener: how many messages it has under way, and what it does with failures."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from azure.storage.queue import QueueClient

from firsttoken.emulators.azure_host import QueueSettings
from firsttoken.emulators.azure_queue import QueuePump, connection_string, queue_name
from firsttoken.emulators.azure_worker import Function, Outcome
from tests.stores.cloud import tables_connection

LIMIT_SECONDS = 30.0
FAST = {"visibility_timeout": "00:00:00", "max_polling_interval": "00:00:00.1"}
Run = Callable[[Function, str | bytes, dict[str, Any]], Awaitable[Outcome]]


class Listening:
    """A pump on a fresh queue with so many messages in it."""

    def __init__(self, run: Run, count: int, **settings: Any) -> None:
        name = f"test-{uuid.uuid4().hex}"
        connection = tables_connection()
        function = Function("recover", "1", {"type": "queueTrigger", "queueName": name})
        self.queue, self.poison = (
            QueueClient.from_connection_string(connection, name + suffix) for suffix in ("", "-poison")
        )
        self.queue.create_queue()
        for number in range(count):
            self.queue.send_message(base64.b64encode(b"%d" % number).decode())
        self.pump = QueuePump(function, connection, QueueSettings(**{**FAST, **settings}), run)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Pump until something is so."""
        pumping = asyncio.create_task(self.pump.pump())
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while not await asyncio.to_thread(reached):
                    assert not pumping.done(), pumping.exception()
                    await asyncio.sleep(0.02)
        finally:
            pumping.cancel()
            await asyncio.wait({pumping})

    def left(self) -> int:
        """How many messages there are, hidden ones too."""
        return int(self.queue.get_queue_properties().approximate_message_count or 0)


@pytest.mark.parametrize(("threshold", "most"), [(0, 2), (2, 4), (None, 3)])
def test_the_next_batch_is_asked_for_at_the_threshold(threshold: int | None, most: int) -> None:
    """Never more than a batch and the threshold are under way, and no fewer while there is work."""
    running, peak, seen = 0, 0, set()

    async def run(_function: Function, data: str | bytes, _metadata: dict[str, Any]) -> Outcome:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        seen.add(data)
        await asyncio.sleep(0.15)
        running -= 1
        return Outcome()

    listening = Listening(run, 8, batch_size=2, new_batch_threshold=threshold)
    asyncio.run(listening.until(lambda: listening.left() == 0))
    assert (len(seen), peak <= most, peak >= 2) == (8, True, True)


def test_one_slow_message_does_not_hold_up_the_others() -> None:
    """The next batch comes while a message of the one before is still worked on."""
    seen: list[str | bytes] = []

    async def run(_function: Function, data: str | bytes, _metadata: dict[str, Any]) -> Outcome:
        seen.append(data)
        if data == "0":
            await asyncio.Event().wait()
        return Outcome()

    listening = Listening(run, 6, batch_size=2)
    asyncio.run(listening.until(lambda: len(seen) == 6))
    assert listening.left() >= 1


def test_a_failing_message_is_tried_as_often_as_host_json_says() -> None:
    """It goes to the poison queue as it was, and the attempts are counted for the function."""
    attempts: list[int] = []

    async def run(_function: Function, _data: str | bytes, metadata: dict[str, Any]) -> Outcome:
        attempts.append(metadata["DequeueCount"])
        return Outcome(error="RuntimeError: no store")

    listening = Listening(run, 1, max_dequeue_count=3)
    asyncio.run(listening.until(lambda: listening.left() == 0))
    assert attempts == [1, 2, 3]
    (message,) = listening.poison.peek_messages()
    assert base64.b64decode(message.content) == b"0"


def test_a_queue_that_cannot_be_had_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """The listener logs it and goes on polling."""
    key = "a2V5"
    away = f"AccountName=x;AccountKey={key};QueueEndpoint=http://127.0.0.1:9/x;DefaultEndpointsProtocol=http"
    function = Function("recover", "1", {"type": "queueTrigger", "queueName": "jobs"})

    async def run(*_given: Any) -> Outcome:
        raise AssertionError("nothing to run")

    pump = QueuePump(function, away, QueueSettings(**FAST), run)
    pump._queue = QueueClient.from_connection_string(away, "jobs", retry_total=0)

    async def main() -> None:
        pumping = asyncio.create_task(pump.pump())
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(caplog.records) < 2:
                assert not pumping.done(), pumping.exception()
                await asyncio.sleep(0.02)
        pumping.cancel()
        await asyncio.wait({pumping})

    asyncio.run(main())
    assert "queue jobs" in caplog.text


def test_settings_are_looked_up_as_the_host_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection with or without AzureWebJobs before its name; a queue name with %SETTING% in it."""
    monkeypatch.setenv("AzureWebJobsOrders", "one")
    monkeypatch.setenv("Other", "two")
    monkeypatch.setenv("QUEUE", "jobs")
    assert (connection_string("Orders"), connection_string("Other")) == ("one", "two")
    assert connection_string("Nothing") is None
    assert queue_name(Function("f", "1", {"queueName": "%QUEUE%-eu"})) == "jobs-eu"
