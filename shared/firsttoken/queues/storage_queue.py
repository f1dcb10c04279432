"""A queue in Azure Storage, with the queue ``<name>-poison`` beside it for the dead letters.

Messages are base64, as the trigger of Azure Functions expects them, and never expire. A dead letter is JSON
(``{"reason", "body", "at"}``, the body in base64); the Functions host puts plain messages there, which
has no reason with them. A queue that is missing is created when something is first sent to it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from firsttoken import config
from firsttoken.errors import ConfigError, QueueError, StoreError
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.settings import StorageQueue as Settings
from firsttoken.stores.azure_identity import Identity
from firsttoken.stores.clients import Clients
from firsttoken.stores.table_rows import code_of

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

MAX_TEXT_BYTES = 64 * 1024
"""Of a message as the service keeps it."""
PAGE = 32
"""Messages that one request can receive or peek at."""
MAX_SECONDS = 7 * 86_400.0
"""The longest that a message can be hidden."""
TIMEOUT = 5.0
"""Seconds for one request, which is made twice if need be."""
AGAIN = 0.1
"""Seconds until it is made once more."""
POLLS = (0.1, 0.2, 0.5, 1.0)
"""Seconds between looks into an empty queue: the service has no way to wait; the last one stays."""
MAX_REASON = 500
"""Characters of a reason that are kept."""
MOVING = 60.0
"""Seconds that dead letters are hidden while they are moved or deleted."""
BY_HOST = "by the Functions host after maxDequeueCount"

_SCOPE = "https://storage.azure.com/.default"
_FOREVER = -1


class _Envelope(Struct):
    reason: str
    body: bytes
    at: float = 0.0


class _Clients(NamedTuple):
    """The SDK's clients of one event loop, over the same connections."""

    queue: Any
    poison: Any


class _Receipt:
    """The current receipt of a delivery: each extension makes a new one, and the old one void."""

    def __init__(self, pop: str) -> None:
        self.pop = pop
        self.turn = asyncio.Lock()


class StorageQueue:
    """Messages of up to 48 KiB; ``clock`` is the time of day in Unix seconds.

    Up to 100 connections for each event loop, which `aclose` closes in that loop. Raises ConfigError where
    settings name no account.
    """

    pulls = True
    max_body_bytes = MAX_TEXT_BYTES * 3 // 4
    max_delay = MAX_SECONDS

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._connection = config.secret(settings.connection, "queue.connection")
        if not self._connection and not settings.account_url.startswith("https://"):
            raise ConfigError("queue: expected a connection string, or an account_url with https://")
        self._identity = None if self._connection else Identity(_SCOPE)
        self._clock = clock
        self._clients: Clients[_Clients] = Clients(self._opening)

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message, in one request; see `Queue`."""
        if len(body) > self.max_body_bytes:
            raise ValueError(f"The message has {len(body)} bytes; expected at most {self.max_body_bytes}.")
        async with self._operation() as clients:
            await _add(clients.queue, _encode(body), delay)

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:
        """Return up to 32 messages; see `Queue`. While there is none, a request is made every second."""
        loop = asyncio.get_running_loop()
        until, looks = loop.time() + wait, 0
        async with self._operation() as clients:
            while True:
                found = await _take(clients.queue, limit, hidden)
                left = until - loop.time()
                if found or left <= 0:
                    return [_delivery(message) for message in found]
                await asyncio.sleep(min(POLLS[min(looks, len(POLLS) - 1)], left))
                looks += 1

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        """Hide a message for so long from now on; its receipt is renewed. One request; see `Queue`."""
        receipt: _Receipt = delivery.receipt
        async with receipt.turn, self._operation() as clients:
            try:
                update = partial(clients.queue.update_message, delivery.id, pop_receipt=receipt.pop)
                updated = await _twice(partial(update, visibility_timeout=_seconds(hidden)))
            except _http_error() as error:
                if _is_lost(error):
                    return False
                raise
            receipt.pop = updated.pop_receipt
            return True

    async def done(self, delivery: Delivery) -> None:
        """Delete a message, unless it has been handed out to another meanwhile. One request."""
        receipt: _Receipt = delivery.receipt
        async with receipt.turn, self._operation() as clients:
            await _delete(clients.queue, delivery.id, receipt.pop)

    async def bury(self, body: bytes, reason: str) -> None:
        """Add a message to the poison queue; one that leaves no room for a reason goes without it."""
        reason = reason[:MAX_REASON].encode(errors="replace").decode()  # JSON has no lone surrogates
        envelope = _Envelope(reason, body, self._clock())
        text = _encode(msgspec.json.encode(envelope))
        async with self._operation() as clients:
            await _add(clients.poison, text if len(text) <= MAX_TEXT_BYTES else _encode(body))

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return up to 32 dead letters: the service does not show those behind them. One request."""
        async with self._operation() as clients:
            return [_letter(message) for message in await _peek(clients.poison, limit)]

    async def redrive(self, limit: int) -> int:
        """Send dead letters again, then delete them here: two requests for each."""

        async def again(clients: _Clients, message: Any) -> None:
            await _add(clients.queue, _encode(_letter(message).body))

        return await self._empty(limit, again)

    async def purge_dead(self, limit: int) -> int:
        """Delete dead letters, with a request for each."""

        async def nothing(_clients: _Clients, _message: Any) -> None:
            pass

        return await self._empty(limit, nothing)

    async def depth(self) -> Depth:
        """Return how many messages there are, in two or three requests.

        The service counts messages whether they are hidden or not, and shows 32 that are not. So from 32 on
        ``waiting`` has the delayed and running ones too.
        """
        async with self._operation() as clients:
            shown = len(await _peek(clients.queue, PAGE))
            waiting = shown if shown < PAGE else await _count(clients.queue)
            return Depth(waiting=waiting, dead=await _count(clients.poison))

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    async def _empty(self, limit: int, first: Callable[[_Clients, Any], Any]) -> int:
        """Take up to ``limit`` messages out of the poison queue, after ``first`` was done with each."""
        count = 0
        async with self._operation() as clients:
            while count < limit and (found := await _take(clients.poison, limit - count, MOVING)):
                for message in found:
                    await first(clients, message)
                    await _delete(clients.poison, message.id, message.pop_receipt)
                    count += 1
        return count

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[_Clients]:
        """Give the clients to one operation, and turn what goes wrong into a QueueError."""
        try:
            clients = await self._clients.get()
        except StoreError as error:  # what an `Identity` raises
            raise QueueError(str(error)) from error
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            yield clients
        except HttpResponseError as error:
            name, code = self._settings.name, code_of(error) or str(error.status_code)
            raise QueueError(f"Azure Queue storage refused an operation on {name!r} ({code}).") from error
        except AzureError as error:
            raise QueueError(f"Azure Queue storage cannot be reached ({type(error).__name__}).") from error
        except StoreError as error:  # a token that ended meanwhile
            raise QueueError(str(error)) from error

    async def _opening(self, stack: AsyncExitStack) -> _Clients:
        await asyncio.to_thread(import_module, "azure.storage.queue.aio")
        await asyncio.to_thread(import_module, "aiohttp")  # which the SDK imports at its first request
        if self._identity is not None:
            await self._identity.get_token()
        from azure.storage.queue.aio import QueueServiceClient

        options: Any = {"retry_total": 0, "connection_timeout": TIMEOUT, "read_timeout": TIMEOUT}
        try:
            if self._identity is None:
                service = QueueServiceClient.from_connection_string(self._connection, **options)
            else:
                service = QueueServiceClient(self._settings.account_url, credential=self._identity, **options)
        except ValueError:
            raise QueueError("The connection string of Azure Queue storage is not understood.") from None
        await stack.enter_async_context(service)
        name = self._settings.name
        return _Clients(service.get_queue_client(name), service.get_queue_client(f"{name}-poison"))


def create(settings: Settings, _client: HttpClient, _name: str) -> StorageQueue:
    """Return the queue; nothing is connected yet. Raises ConfigError."""
    try:
        found = find_spec("azure.storage.queue")
    except ModuleNotFoundError:  # not even the namespace that it is in
        found = None
    if found is None:
        raise ConfigError("queue.kind: 'storage_queue' needs the extra 'azure'")
    return StorageQueue(settings)


def _encode(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _decode(text: str) -> bytes:
    """Return what a message holds; what is not base64 came from elsewhere, and is given as it stands."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def _seconds(time: float, least: int = 0) -> int:
    return ceil(max(least, min(time, MAX_SECONDS)))


def _delivery(message: Any) -> Delivery:
    receipt = _Receipt(message.pop_receipt)
    return Delivery(_decode(message.content), message.id, message.dequeue_count or 1, receipt)


def _letter(message: Any) -> Dead:
    body = _decode(message.content)
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.DecodeError:
        at = message.inserted_on.timestamp() if message.inserted_on else 0.0
        return Dead(body, message.id, BY_HOST, at)
    return Dead(envelope.body, message.id, envelope.reason, envelope.at)


async def _add(client: Any, text: str, delay: float = 0.0) -> None:
    """Send a message; where the queue is missing, create it and send once more."""
    send = partial(client.send_message, text, visibility_timeout=_seconds(delay), time_to_live=_FOREVER)
    try:
        await _twice(send)
    except _http_error() as error:
        if code_of(error) != "QueueNotFound":
            raise
        await _create(client)
        await send()


async def _twice(request: Callable[[], Awaitable[Any]]) -> Any:
    """Make a request, and once more where there was no answer: a pooled connection may be a dead one.

    A message that was sent after all comes twice then, as it may anyway.
    """
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    try:
        return await request()
    except (ServiceRequestError, ServiceResponseError):
        await asyncio.sleep(AGAIN)
        return await request()


async def _create(client: Any) -> None:
    try:
        await client.create_queue()
    except _http_error() as error:
        if code_of(error) != "QueueAlreadyExists":  # another instance was faster
            raise


async def _take(client: Any, limit: int, hidden: float) -> list[Any]:
    """Receive one page of messages; a queue that is missing is an empty one."""

    async def first_page() -> list[Any]:
        options = {"messages_per_page": max(1, min(limit, PAGE))}
        pages = client.receive_messages(visibility_timeout=_seconds(hidden, least=1), **options).by_page()
        async for page in pages:
            return [message async for message in page]
        return []

    try:
        found: list[Any] = await _twice(first_page)
    except _http_error() as error:
        if code_of(error) != "QueueNotFound":
            raise
        return []
    return found


async def _peek(client: Any, limit: int) -> list[Any]:
    """Return one page of messages that are not hidden; a queue that is missing is an empty one."""
    try:
        found: list[Any] = await _twice(partial(client.peek_messages, max_messages=max(1, min(limit, PAGE))))
    except _http_error() as error:
        if code_of(error) != "QueueNotFound":
            raise
        return []
    return found


async def _delete(client: Any, name: str, receipt: str) -> None:
    try:
        await _twice(partial(client.delete_message, name, pop_receipt=receipt))
    except _http_error() as error:
        if not _is_lost(error):
            raise


async def _count(client: Any) -> int:
    try:
        found = await _twice(client.get_queue_properties)
    except _http_error() as error:
        if code_of(error) != "QueueNotFound":
            raise
        return 0
    return int(found.approximate_message_count)


def _is_lost(error: Exception) -> bool:
    """Whether a delivery is no longer ours: deleted, or handed out to another."""
    return code_of(error) in ("MessageNotFound", "PopReceiptMismatch", "QueueNotFound")


def _http_error() -> Any:
    from azure.core.exceptions import HttpResponseError

    return HttpResponseError
