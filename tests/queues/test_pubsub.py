"""The Pub/Sub queue against the local simulator: what it publishes, and what it does with dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from firsttoken.emulators.pubsub import PubsubSimulator, create
from firsttoken.emulators.pubsub_subscription import Lease
from firsttoken.errors import QueueError
from firsttoken.providers.google_api import GoogleApi
from firsttoken.providers.http import HttpClient
from firsttoken.queues import Depth, Queue, create_queue
from firsttoken.queues.queue import Delivery
from firsttoken.settings import PubsubQueue
from tests.queues.kinds_pubsub import DEAD, DEAD_SUB, SUB, TOPIC, simulated

BODY = b'{"id":"job_1","tenant":"acme"}'


def with_queue(test: Callable[[Queue, PubsubSimulator], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), simulated() as (queue, simulator):
            await test(queue, simulator)

    asyncio.run(main())


def arrived(simulator: PubsubSimulator, name: str = SUB) -> list[Lease]:
    return simulator.subscription(name).take(100)


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        (BODY, {"id": "job_1", "tenant": "acme"}),
        (b'{"id":"job_1","tenant":"acme","request":{"model":"m"}}', {"id": "job_1", "tenant": "acme"}),
        (b'{"id":"","tenant":"a"}', {"tenant": "a"}),
        (
            '{"id":"' + "\N{GRINNING FACE}" * 300 + '","tenant":"a"}',
            {"id": "\N{GRINNING FACE}" * 256, "tenant": "a"},
        ),
        (b"\xff", {}),
    ],
)
def test_a_message_says_which_job_it_is_about(body: bytes | str, attributes: dict[str, str]) -> None:
    """Job and tenant are attributes too, as far as they fit, so that filters and logs can use them."""
    data = body.encode() if isinstance(body, str) else body

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        await queue.send(data)
        (lease,) = arrived(simulator)
        assert (lease.message.data, lease.message.attributes) == (data, attributes)

    with_queue(test)


def test_a_dead_letter_says_why_and_which_job() -> None:
    """The reason is an attribute beside job and tenant; an empty one says so."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        await queue.bury(BODY, "no answer")
        await queue.bury(BODY, "")
        reasons = [lease.message.attributes for lease in arrived(simulator, DEAD_SUB)]
        assert reasons[0] == {"id": "job_1", "tenant": "acme", "reason": "no answer"}
        assert reasons[1]["reason"] == "no reason given"

    with_queue(test)


def test_what_pubsub_gave_up_says_how_often_it_was_delivered() -> None:
    """A dead letter of the service itself has no reason of ours, but a count."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        name = "projects/p/subscriptions/given-up"
        await create(simulator.url, {name: {"topic": TOPIC, "deadLetterPolicy": {"deadLetterTopic": DEAD}}})
        before = time.time()
        await queue.send(BODY)
        for _ in range(5):
            (lease,) = arrived(simulator, name)
            simulator.subscription(name).fail(lease.ack_id)
        (dead,) = await queue.dead(10)
        assert (dead.body, dead.reason) == (BODY, "handed out 5 times")
        assert abs(dead.at - before) < 60

    with_queue(test)


def test_a_redrive_moves_dead_letters() -> None:
    """Up to the limit the bodies are published again and the dead letters are gone."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        for number in range(5):
            await queue.bury(b"%d" % number, "no")
        assert await queue.redrive(2) == 2
        assert len(await queue.dead(10)) == 3
        assert await queue.redrive(10) == 3
        assert (await queue.dead(10), await queue.redrive(10)) == ([], 0)
        leases = arrived(simulator)
        assert sorted(lease.message.data for lease in leases) == [b"%d" % number for number in range(5)]
        assert all("reason" not in lease.message.attributes for lease in leases)

    with_queue(test)


def test_more_dead_letters_than_one_batch() -> None:
    """Looking, moving and deleting go on until the limit, however many requests that takes."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        for number in range(230):
            await queue.bury(b"%d" % number, "no")
        assert len({dead.id for dead in await queue.dead(220)}) == 220
        assert await queue.purge_dead(120) == 120
        assert await queue.redrive(1000) == 110
        assert await queue.dead(10) == []

    with_queue(test)


def test_nothing_is_lost_when_a_redrive_fails() -> None:
    """Dead letters are acknowledged after they were published, never before."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        await queue.bury(BODY, "no")
        client = HttpClient()
        await GoogleApi(client, simulator.url, setting="").call("DELETE", f"/v1/{TOPIC}")
        await client.aclose()
        with pytest.raises(QueueError, match="answered 404"):
            await queue.redrive(10)
        assert [dead.body for dead in await queue.dead(10)] == [BODY]

    with_queue(test)


def test_the_service_pushes() -> None:
    """There is nothing to receive, to keep hidden or to delete here, and no count of messages."""

    async def test(queue: Queue, simulator: PubsubSimulator) -> None:
        assert (queue.pulls, queue.max_delay) == (False, 0)
        with pytest.raises(QueueError, match="pushes"):
            await queue.receive(1, 60, 0)
        assert await queue.extend(Delivery(BODY, "1"), 60)
        await queue.done(Delivery(BODY, "1"))
        assert await queue.depth() == Depth()

    with_queue(test)


@pytest.mark.parametrize(("missing", "method"), [("dead_topic", "bury"), ("dead_subscription", "dead")])
def test_without_a_place_for_dead_letters(missing: str, method: str) -> None:
    """The error names the setting: then the service's own dead-letter rule keeps the message."""
    queue = create_queue(PubsubQueue(topic=TOPIC, endpoint="http://127.0.0.1:1"), HttpClient())
    work = queue.bury(BODY, "no") if method == "bury" else queue.dead(1)
    with pytest.raises(QueueError, match=f"queue.{missing} is not set"):
        asyncio.run(work)


def test_the_emulators_variable_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """PUBSUB_EMULATOR_HOST names the service where no endpoint is configured, as for Google's libraries."""

    async def test(_: Queue, simulator: PubsubSimulator) -> None:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{simulator.port}")
        client = HttpClient()
        await create_queue(PubsubQueue(topic=TOPIC), client).send(BODY)
        await client.aclose()
        assert len(arrived(simulator)) == 1

    with_queue(test)
