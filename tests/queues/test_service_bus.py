"""What only the queue in Service Bus has: signatures, properties, subqueues and counts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import azure.identity
import pytest
from azure.core.exceptions import ClientAuthenticationError

from firsttoken.errors import ConfigError, QueueError
from firsttoken.providers.http import HttpClient
from firsttoken.queues.queue import Depth
from firsttoken.queues.service_bus import ServiceBusQueue
from firsttoken.settings import ServiceBusQueue as Settings
from tests.queues.fake_service_bus import FakeServiceBus, running
from tests.queues.kinds_azure import bus_settings

BODY = b'{"id":"job_1","tenant":"acme"}'
START = 1_800_000_000.25


class Clock:
    """The time of day, as a test sets it."""

    now = START

    def __call__(self) -> float:
        return self.now


def run(work: Callable[[ServiceBusQueue, FakeServiceBus, Clock], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a queue on a fake namespace."""

    async def bounded() -> None:
        async with asyncio.timeout(60), opened() as given:
            await work(*given)

    asyncio.run(bounded())


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[ServiceBusQueue, FakeServiceBus, Clock]]:
    clock, client = Clock(), HttpClient()
    async with running(FakeServiceBus(["jobs", "dead"], clock=clock, max_delivery_count=3)) as bus:
        try:
            yield ServiceBusQueue(bus_settings(bus), client, clock=clock), bus, clock
        finally:
            await client.aclose()


def test_a_signature_is_made_once_an_hour_for_each_queue() -> None:
    """It is used again until five minutes before its end; subqueues need none of their own."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, clock: Clock) -> None:
        for _ in range(3):
            await queue.send(BODY)
        assert len(set(bus.tokens)) == 1
        await queue.dead(1)
        assert len(set(bus.tokens)) == 2
        clock.now += 3301
        await queue.send(BODY)
        assert len(set(bus.tokens)) == 3

    run(main)


def test_a_wrong_key_is_a_queue_error() -> None:
    """The error says which queue it was about, and neither address nor key."""

    async def main(_queue: ServiceBusQueue, bus: FakeServiceBus, _clock: Clock) -> None:
        client = HttpClient()
        wrong = Settings(name="jobs", connection=bus.connection + "wrong")
        with pytest.raises(QueueError, match=r"'jobs' \(401\)") as caught:
            await ServiceBusQueue(wrong, client, clock=Clock()).send(BODY)
        assert "127.0.0.1" not in str(caught.value)
        await client.aclose()

    run(main)


def test_a_delay_is_kept_to_the_second() -> None:
    """A message is never handed out before its time, by the service's whole seconds."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, clock: Clock) -> None:
        await queue.send(BODY, 1.5)
        assert bus.entities["jobs"].messages[0].visible == START + 1.75
        assert await queue.receive(1, 60, 0) == []
        clock.now += 1.75
        assert len(await queue.receive(1, 60, 0)) == 1

    run(main)


def test_a_message_has_no_id_of_ours() -> None:
    """A queue that detects duplicates would drop a message that is sent again on purpose."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, _clock: Clock) -> None:
        await queue.send(BODY)
        await queue.send(BODY)
        assert len({message.id for message in bus.entities["jobs"].messages}) == 2
        assert {message.kind for message in bus.entities["jobs"].messages} == {"application/json"}

    run(main)


def test_dead_letters_of_the_service_are_seen_too() -> None:
    """What was handed out too often lies in the queue's subqueue; it is shown and sent again from there."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, clock: Clock) -> None:
        await queue.send(BODY)
        for _ in range(4):
            await queue.receive(1, 60, 0)
            clock.now += 61
        await queue.bury(b"ours", "no such model")
        dead = {letter.body: letter.reason for letter in await queue.dead(10)}
        assert dead == {BODY: "MaxDeliveryCountExceeded", b"ours": "no such model"}
        assert (await queue.depth()).dead == 2
        assert await queue.redrive(10) == 2
        assert await queue.dead(10) == []
        assert len(bus.entities["jobs"].messages) == 2

    run(main)


def test_looking_often_loses_no_dead_letter() -> None:
    """Each look is a delivery: the service moves the letter on, and it is found there with its reason."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, _clock: Clock) -> None:
        await queue.bury(BODY, "no such model")
        for _ in range(8):
            (dead,) = await queue.dead(10)
            assert (dead.body, dead.reason) == (BODY, "no such model")
        assert not bus.entities["dead"].messages
        assert await queue.purge_dead(10) == 1

    run(main)


def test_what_was_received_before_a_failure_is_returned() -> None:
    """Those messages are locked: to raise would hide them from everybody for a while."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, _clock: Clock) -> None:
        await queue.send(BODY)
        await queue.send(BODY)
        take, calls = bus._take, itertools.count()

        def once(name: str) -> Any:
            if next(calls):
                bus.refuse = 503
            return take(name)

        bus._take = once  # type: ignore[method-assign]
        assert len(await queue.receive(3, 60, 0)) == 2
        with pytest.raises(QueueError, match="503"):
            await queue.receive(3, 60, 0)

    run(main)


def test_counts_need_a_permission() -> None:
    """Who may only send and listen gets no numbers, and no error."""

    async def main(queue: ServiceBusQueue, bus: FakeServiceBus, _clock: Clock) -> None:
        await queue.send(BODY)
        assert await queue.depth() == Depth(waiting=1, delayed=0, dead=0)
        bus.refuse = 403
        assert await queue.depth() == Depth()

    run(main)


CONNECTION = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=name;SharedAccessKey=key="


@pytest.mark.parametrize("connection", [CONNECTION, f"{CONNECTION};EntityPath=jobs", f" {CONNECTION} "])
def test_a_connection_string_names_an_https_address(connection: str) -> None:
    """``sb://`` is the same host over HTTPS."""
    queue = ServiceBusQueue(Settings(connection=connection), HttpClient())
    assert queue._access.url == "https://ns.servicebus.windows.net"


@pytest.mark.parametrize("connection", ["nonsense", "Endpoint=sb://ns/", CONNECTION.replace("sb:", "ftp:")])
def test_a_connection_string_that_is_none(connection: str) -> None:
    """It stops the start, and is not repeated: it may be a secret in the wrong place."""
    with pytest.raises(ConfigError, match=r"queue\.connection") as caught:
        ServiceBusQueue(Settings(connection=connection), HttpClient())
    assert connection not in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "http://ns.servicebus.windows.net"])
def test_a_namespace_is_needed(namespace: str) -> None:
    """Without a connection string there must be a URL to which a token may be sent."""
    with pytest.raises(ConfigError, match="namespace with https"):
        ServiceBusQueue(Settings(namespace=namespace), HttpClient())


def test_an_identity_gives_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection string an Entra token for Service Bus is sent; without one there is no queue."""
    asked: list[str] = []
    token = SimpleNamespace(token="t0ken", expires_on=4_000_000_000)

    def give(_self: Any, scope: str) -> Any:
        asked.append(scope)
        if len(asked) == 1:
            raise ClientAuthenticationError("nobody")
        return token

    monkeypatch.setattr(azure.identity.DefaultAzureCredential, "get_token", give)
    queue = ServiceBusQueue(Settings(namespace="https://ns.servicebus.windows.net/"), HttpClient())

    async def main() -> str:
        with pytest.raises(QueueError, match="No identity for Azure"):
            await queue.send(BODY)
        return await queue._access.authorization("jobs")

    assert asyncio.run(main()) == "Bearer t0ken"
    assert set(asked) == {"https://servicebus.azure.net/.default"}
