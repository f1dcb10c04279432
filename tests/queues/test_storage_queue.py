"""What only the queue in Azure Storage has: base64, envelopes, receipts, and queues that are made."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import azure.identity
import pytest
import virtual_time
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.storage.queue import QueueClient

from firsttoken.errors import ConfigError, QueueError, StoreError
from firsttoken.providers.http import HttpClient
from firsttoken.queues import create_queue, storage_queue
from firsttoken.queues.storage_queue import BY_HOST, PAGE, StorageQueue, _twice
from firsttoken.settings import StorageQueue as Settings
from tests.queues.kinds_azure import storage_settings
from tests.stores import cloud

BODY = b'{"id":"job_1","tenant":"acme"}'
TEXT = base64.b64encode(BODY).decode()


@asynccontextmanager
async def opened(settings: Settings | None = None, **given: Any) -> AsyncIterator[StorageQueue]:
    queue = StorageQueue(settings or storage_settings(), **given)
    try:
        yield queue
    finally:
        await queue.aclose()


def client(settings: Settings, suffix: str = "") -> QueueClient:
    """The SDK's own client of a queue."""
    return QueueClient.from_connection_string(settings.connection, settings.name + suffix)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def refused(queue: StorageQueue, untold: str = "127.0.0.1") -> str:
    """The message of the QueueError that sending and receiving raise."""
    with pytest.raises(QueueError) as sending:
        await queue.send(BODY)
    with pytest.raises(QueueError) as receiving:
        await queue.receive(1, 60, 0)
    await queue.aclose()
    assert str(sending.value) == str(receiving.value)
    assert untold not in str(sending.value)
    return str(sending.value)


def test_messages_are_what_the_functions_host_reads() -> None:
    """A message is the body in base64, and never expires: the service's default is a week."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings) as queue:
            await queue.send(BODY)
        (message,) = client(settings).receive_messages()
        assert message.content == TEXT
        assert message.expires_on.year == 9999

    run(main())


def test_what_is_not_base64_is_given_as_it_stands() -> None:
    """A message that somebody else sent as plain text reaches the worker, who will say what is wrong."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings) as queue:
            await queue.send(BODY)
            client(settings).clear_messages()
            client(settings).send_message("grün, not base64!")
            (delivery,) = await queue.receive(1, 60, 0)
            assert delivery.body == "grün, not base64!".encode()

    run(main())


def test_a_missing_queue_is_an_empty_one_until_something_is_sent() -> None:
    """Reading makes no queue; the first message does, once for those that come at the same time."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings) as queue:
            assert await queue.receive(1, 60, 0) == []
            assert await queue.dead(1) == []
            assert (await queue.redrive(1), await queue.purge_dead(1)) == (0, 0)
            depth = await queue.depth()
            assert (depth.waiting, depth.dead) == (0, 0)
            await asyncio.gather(*(queue.send(b"%d" % number) for number in range(5)))
            assert len(await queue.receive(10, 60, 0)) == 5

    run(main())


def test_each_sign_of_life_renews_the_receipt() -> None:
    """A delivery can be kept again and again, by several at once, and then deleted."""

    async def main() -> None:
        async with opened() as queue:
            await queue.send(BODY)
            (delivery,) = await queue.receive(1, 60, 0)
            first = delivery.receipt.pop
            assert await asyncio.gather(*(queue.extend(delivery, 60) for _ in range(3))) == [True] * 3
            assert delivery.receipt.pop != first
            await queue.done(delivery)
            assert (await queue.depth()).waiting == 0
            assert await queue.extend(delivery, 60) is False

    run(main())


def test_a_delivery_that_another_has_now_is_left_alone() -> None:
    """Who comes too late can neither keep nor delete what was handed out to another."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings) as queue:
            await queue.send(BODY)
            (late,) = await queue.receive(1, 60, 0)
            client(settings).update_message(late.id, pop_receipt=late.receipt.pop, visibility_timeout=0)
            (other,) = await queue.receive(1, 60, 0)
            assert await queue.extend(late, 60) is False
            await queue.done(late)
            assert await queue.extend(other, 60) is True

    run(main())


def test_a_dead_letter_is_an_envelope_in_the_poison_queue() -> None:
    """It is JSON in base64, so that a function may be triggered by it: reason, body and time."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings, clock=lambda: 1_800_000_000.5) as queue:
            await queue.bury(BODY, "no such model")
            (dead,) = await queue.dead(1)
            assert (dead.body, dead.reason, dead.at) == (BODY, "no such model", 1_800_000_000.5)
        (message,) = client(settings, "-poison").peek_messages()
        envelope = json.loads(base64.b64decode(message.content))
        assert envelope == {"reason": "no such model", "body": TEXT, "at": 1_800_000_000.5}

    run(main())


@pytest.mark.parametrize("text", [TEXT, "not base64!"])
def test_what_the_functions_host_gave_up_has_no_reason_with_it(text: str) -> None:
    """The host copies a message as it was; it is shown with the host as the reason, and can be redriven."""

    async def main() -> None:
        settings = storage_settings()
        async with opened(settings) as queue:
            await queue.bury(BODY, "no")
            await queue.purge_dead(1)
            client(settings, "-poison").send_message(text)
            expected = BODY if text == TEXT else text.encode()
            (dead,) = await queue.dead(1)
            assert (dead.body, dead.reason) == (expected, BY_HOST)
            assert dead.at > 1_700_000_000
            assert await queue.redrive(1) == 1
            (delivery,) = await queue.receive(1, 60, 0)
            assert delivery.body == expected

    run(main())


def test_a_body_that_leaves_no_room_for_a_reason_is_kept_without_it() -> None:
    """The largest message that can be sent can also be buried, and comes back whole."""

    async def main() -> None:
        async with opened() as queue:
            whole = bytes(range(256)) * (queue.max_body_bytes // 256)
            await queue.bury(whole, "too large")
            (dead,) = await queue.dead(1)
            assert (dead.body, dead.reason) == (whole, BY_HOST)

    run(main())


def test_more_than_a_page_of_dead_letters() -> None:
    """Only a page of them can be looked at, but all are sent again, and counted."""

    async def main() -> None:
        async with opened() as queue:
            await asyncio.gather(*(queue.bury(b"%d" % number, "no") for number in range(PAGE + 3)))
            assert len(await queue.dead(100)) == PAGE
            assert (await queue.depth()).dead == PAGE + 3
            assert await queue.redrive(100) == PAGE + 3
            depth = await queue.depth()
            assert (depth.waiting, depth.dead) == (PAGE + 3, 0)

    run(main())


@pytest.mark.parametrize("url", ["", "http://account.queue.core.windows.net"])
def test_an_account_is_needed(url: str) -> None:
    """Without a connection string there must be a URL to which a token may be sent."""
    with pytest.raises(ConfigError, match="account_url with https"):
        StorageQueue(Settings(account_url=url))


@pytest.mark.parametrize("connection", ["nonsense", "AccountName=x", "AccountName=x;AccountKey"])
def test_a_connection_string_that_is_none(connection: str) -> None:
    """It is not repeated: it may be a secret in the wrong place."""
    message = asyncio.run(refused(StorageQueue(Settings(connection=connection)), connection))
    assert "connection string" in message


@pytest.mark.parametrize(("status", "code"), [("503 -", "ServerBusy"), ("403 -", "AuthorizationFailure")])
def test_a_refusal_is_named_and_asked_once(status: str, code: str) -> None:
    """The error has the service's own word for it; the SDK does not try again behind our back."""

    async def main() -> None:
        async with cloud.refusing(status, f"x-ms-error-code: {code}\r\n") as (url, requests):
            account = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;QueueEndpoint={url}/a;"
            assert code in await refused(StorageQueue(Settings(connection=account)))
            assert len(requests) == 2

    run(main())


def test_the_sdk_is_asked_for_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment without the extra does not begin; with it, nothing of it is imported yet."""
    settings = Settings(connection="UseDevelopmentStorage=true")
    assert isinstance(create_queue(settings, HttpClient()), StorageQueue)
    monkeypatch.setattr(storage_queue, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="extra 'azure'"):
        create_queue(settings, HttpClient())


def test_a_token_that_ends_is_a_queue_error() -> None:
    """What an identity raises in the middle of an operation does not reach the queue's users as it is."""

    async def main() -> None:
        async with opened() as queue:
            with pytest.raises(QueueError, match="No identity"):
                async with queue._operation():
                    raise StoreError("No identity for Azure can be had (X).")

    run(main())


def test_no_identity_is_a_queue_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account URL alone asks for an Entra identity; without one there is no queue."""

    def nobody(*_scopes: str) -> None:
        raise ClientAuthenticationError("nobody")

    monkeypatch.setattr(azure.identity.DefaultAzureCredential, "get_token", nobody)
    queue = StorageQueue(Settings(account_url="https://account.queue.core.windows.net"))
    assert "No identity for Azure" in asyncio.run(refused(queue, "nobody"))


@pytest.mark.parametrize(("failures", "sent"), [(0, 1), (1, 2), (2, 2)])
def test_a_request_without_an_answer_is_made_once_more(failures: int, sent: int) -> None:
    """A pooled connection may be dead; a second failure is one."""
    made: list[int] = []

    async def request() -> str:
        made.append(1)
        if len(made) <= failures:
            raise ServiceRequestError("Server disconnected")
        return "done"

    if failures < 2:
        assert virtual_time.run(_twice(request)) == "done"
    else:
        with pytest.raises(ServiceRequestError):
            virtual_time.run(_twice(request))
    assert len(made) == sent
