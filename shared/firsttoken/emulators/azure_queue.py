"""Poll Storage queues for queue-triggered functions: an emulation of the .NET listener.

A message is hidden while it is worked on; success deletes it, failure shows it again after
``visibilityTimeout``, and one that failed ``maxDequeueCount`` times, or whose encoding is wrong, moves to
``<queue>-poison``. The queue service is a real one, and its client is Azure's own. Unlike the host, this one
hides a message for 10 minutes once, and does not renew that for a function that takes longer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage

from firsttoken.emulators.azure_host import QueueSettings
from firsttoken.emulators.azure_worker import Function, Outcome
from firsttoken.runtimes.azure import seconds

T = TypeVar("T")
Run = Callable[[Function, str | bytes, dict[str, Any]], Awaitable[Outcome]]

log = logging.getLogger("azure.host.queues")

_HIDDEN_SECONDS = 600
_FIRST_POLL_SECONDS = 0.1


def connection_string(setting: str) -> str | None:
    """Return the connection string of a binding's ``connection``, looked up as the host does, or None."""
    value = os.environ.get(f"AzureWebJobs{setting}") or os.environ.get(setting)
    if value and value.strip().lower().startswith("usedevelopmentstorage=true"):
        return _DEVELOPMENT
    return value


# The account and key that every copy of the storage emulator has; public by design.
_DEVELOPMENT = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
)


def queue_name(function: Function) -> str:
    """Return the queue of a function, with ``%SETTING%`` replaced by that app setting."""
    name: str = function.trigger["queueName"]
    return re.sub(r"%([^%]+)%", lambda match: os.environ.get(match[1], match[0]), name)


class QueuePump:
    """Feeds one function from one queue: up to ``newBatchThreshold`` messages and a batch at a time."""

    def __init__(self, function: Function, connection: str, settings: QueueSettings, run: Run) -> None:
        name = queue_name(function)
        self._function = function
        self._settings = settings
        self._run = run
        self._queue = QueueClient.from_connection_string(connection, name)
        self._poison = QueueClient.from_connection_string(connection, f"{name}-poison")
        threshold = settings.new_batch_threshold
        self._threshold = settings.batch_size // 2 if threshold is None else threshold
        self._longest = seconds(settings.max_polling_interval, "host.json: maxPollingInterval")
        self._again = int(seconds(settings.visibility_timeout, "host.json: visibilityTimeout"))

    async def pump(self) -> None:
        """Poll until cancelled; an empty or missing queue is asked ever more rarely."""
        pause, running = _FIRST_POLL_SECONDS, set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as group:
            while True:
                messages = await self._reported(asyncio.to_thread(self._receive)) or []
                running |= {group.create_task(self._reported(self._handle(item))) for item in messages}
                while len(running) > self._threshold:
                    _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                pause = _FIRST_POLL_SECONDS if messages else min(pause * 2, self._longest)
                if not messages:
                    await asyncio.sleep(pause)

    async def _reported(self, work: Awaitable[T]) -> T | None:
        """Await ``work``; a queue that cannot be had is logged, and asked again later."""
        try:
            return await work
        except AzureError as error:
            log.warning("queue %s: %s", self._queue.queue_name, str(error).partition("\n")[0])
            return None

    def _receive(self) -> list[QueueMessage]:
        size = self._settings.batch_size
        try:
            pages = self._queue.receive_messages(
                messages_per_page=size, max_messages=size, visibility_timeout=_HIDDEN_SECONDS
            )
            return list(pages)
        except ResourceNotFoundError:
            return []

    async def _handle(self, message: QueueMessage) -> None:
        try:
            data = _decode(message.content, self._settings.message_encoding)
        except (binascii.Error, ValueError):
            log.exception("message %s is not base64; messageEncoding says it should be", message.id)
            await asyncio.to_thread(self._bury, message)
            return
        outcome = await self._run(self._function, data, _metadata(message, data))
        if not outcome.error:
            await asyncio.to_thread(self._queue.delete_message, message)
        elif (message.dequeue_count or 0) >= self._settings.max_dequeue_count:
            log.error(
                "message %s failed %s times: moved to the poison queue", message.id, message.dequeue_count
            )
            await asyncio.to_thread(self._bury, message)
        else:
            await asyncio.to_thread(self._queue.update_message, message, visibility_timeout=self._again)

    def _bury(self, message: QueueMessage) -> None:
        with suppress(ResourceExistsError):
            self._poison.create_queue()
        self._poison.send_message(message.content)
        self._queue.delete_message(message)


def _decode(content: str, encoding: str) -> str | bytes:
    if encoding != "base64":
        return content
    data = base64.b64decode(content, validate=True)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _metadata(message: QueueMessage, data: str | bytes) -> dict[str, Any]:
    times = {
        "InsertionTime": message.inserted_on,
        "ExpirationTime": message.expires_on,
        "NextVisibleTime": message.next_visible_on,
    }
    return {
        "Id": message.id,
        "PopReceipt": message.pop_receipt,
        "DequeueCount": message.dequeue_count,
        "QueueTrigger": data if isinstance(data, str) else "",
        **{name: _text(moment) for name, moment in times.items() if moment is not None},
    }


def _text(moment: datetime | str) -> str:
    return moment if isinstance(moment, str) else moment.isoformat()
