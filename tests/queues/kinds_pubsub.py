"""A Pub/Sub topic of the local simulator: it pushes, so the suite sees only its dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from firsttoken.emulators.pubsub import PubsubSimulator, create
from firsttoken.providers.google_api import GoogleApi
from firsttoken.providers.http import HttpClient
from firsttoken.queues import Queue, create_queue
from firsttoken.queues.pubsub import PubsubQueue as Pubsub
from firsttoken.settings import PubsubQueue
from tests.queues.kinds import Kind, Opened

TOPIC, DEAD = "projects/p/topics/jobs", "projects/p/topics/jobs-dead"
SUB, DEAD_SUB = "projects/p/subscriptions/jobs", "projects/p/subscriptions/jobs-dead"
RESOURCES: dict[str, Any] = {TOPIC: {}, DEAD: {}, SUB: {"topic": TOPIC}, DEAD_SUB: {"topic": DEAD}}


def settings_of(url: str, **other: Any) -> PubsubQueue:
    return PubsubQueue(topic=TOPIC, dead_topic=DEAD, dead_subscription=DEAD_SUB, endpoint=url, **other)


@asynccontextmanager
async def simulated() -> AsyncIterator[tuple[Queue, PubsubSimulator]]:
    """A queue, and the simulator with its topics; the main subscription is one to pull from."""
    client = HttpClient()
    async with PubsubSimulator().running() as simulator:
        try:
            await create(simulator.url, RESOURCES)
            yield create_queue(settings_of(simulator.url), client), simulator
        finally:
            await client.aclose()


@asynccontextmanager
async def opened(_directory: Path) -> AsyncIterator[Opened]:
    async with simulated() as (queue, _):
        yield Opened(queue, exact_depth=False)


def unreachable(_directory: Path) -> Queue:
    api = GoogleApi(HttpClient(), "http://127.0.0.1:1", setting="queue.kind", delay=0.0)
    return Pubsub(settings_of(""), api)


KINDS = [Kind("pubsub", opened, unreachable, pulls=False)]
