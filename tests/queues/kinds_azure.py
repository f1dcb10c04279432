"""Queues in Azure: Storage queues on Azurite, Service Bus on `FakeServiceBus`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from firsttoken.providers.http import HttpClient
from firsttoken.queues import Delivery
from firsttoken.queues.service_bus import ServiceBusQueue
from firsttoken.queues.storage_queue import StorageQueue
from firsttoken.settings import ServiceBusQueue as BusSettings
from firsttoken.settings import StorageQueue as StorageSettings
from tests.queues.fake_service_bus import FakeServiceBus, running
from tests.queues.kinds import Kind, Opened
from tests.stores.cloud import tables_connection

AWAY = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a2V5;"
    "QueueEndpoint=http://127.0.0.1:9/devstoreaccount1;"
)


def storage_settings() -> StorageSettings:
    """Return the settings of a queue that no other test uses, and that is not there yet."""
    return StorageSettings(name=f"test-{uuid.uuid4().hex}", connection=tables_connection())


@asynccontextmanager
async def storage_queue(_directory: Path) -> AsyncIterator[Opened]:
    queue = StorageQueue(storage_settings())
    try:
        yield Opened(queue, exact_depth=False)
    finally:
        await queue.aclose()


LOCK_SECONDS = 60.0
"""LockDuration of the queue: Service Bus knows no other time of hiding."""


class Living(ServiceBusQueue):
    """Repeats signs of life as a worker does: one alone lasts for a LockDuration, whatever was asked for."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._until: list[tuple[Delivery, float]] = []

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        self._until.append((delivery, self._clock() + hidden))
        return await super().extend(delivery, hidden)

    async def live(self) -> None:
        """Give the signs of life that are due now."""
        for delivery, until in self._until:
            if self._clock() <= until:
                await super().extend(delivery, 0)


@asynccontextmanager
async def service_bus(_directory: Path) -> AsyncIterator[Opened]:
    moved = 0.0

    def clock() -> float:
        return time.time() + moved

    async def pass_time(seconds: float) -> None:
        nonlocal moved
        end = moved + seconds
        while moved < end:
            moved = min(moved + LOCK_SECONDS / 3, end)
            await queue.live()
        await bus.wake()

    client = HttpClient()
    async with running(FakeServiceBus(["jobs", "dead"], clock=clock, lock_seconds=LOCK_SECONDS)) as bus:
        queue = Living(bus_settings(bus), client, clock=clock)
        try:
            yield Opened(queue, pass_time, exact_depth=False, tick=LOCK_SECONDS)
        finally:
            await client.aclose()


def bus_settings(bus: FakeServiceBus) -> BusSettings:
    """Return the settings of the queues of a fake."""
    return BusSettings(name="jobs", dead_name="dead", connection=bus.connection)


def away(_directory: Path) -> ServiceBusQueue:
    connection = "Endpoint=http://127.0.0.1:9/;SharedAccessKeyName=name;SharedAccessKey=key"
    return ServiceBusQueue(BusSettings(connection=connection), HttpClient())


KINDS = [
    Kind("service_bus", service_bus, away),
    Kind("storage_queue", storage_queue, lambda _directory: StorageQueue(StorageSettings(connection=AWAY))),
]
