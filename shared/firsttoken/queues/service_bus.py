"""A queue in Azure Service Bus, over its REST API, with a queue of its own for dead letters.

A trigger of Azure Functions cannot say why a message failed, so a dead letter is sent to ``dead_name`` with
the reason as a property. What Service Bus itself has given up lies in the queue's ``$DeadLetterQueue`` and is
shown, sent again and deleted with them.

A message is hidden for the queue's own LockDuration (at most 5 minutes), whatever is asked for; `extend`
hides it for as long again. Delays need the Standard tier.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate, parsedate_to_datetime
from math import ceil
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from firsttoken import config
from firsttoken.errors import DeadlineError, QueueError, RequestError, UpstreamError
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.queues.service_bus_access import access_of
from firsttoken.settings import ServiceBusQueue as Settings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

MAX_BODY_BYTES = 192 * 1024
"""The Standard tier takes 256 KiB with all headers."""
MAX_ANSWER_BYTES = 1024 * 1024
MAX_SECONDS = 7 * 86_400.0
MAX_WAIT = 60
"""Seconds that one request may wait for a message."""
SECONDS = 15.0
"""For one request, beyond what it waits."""
MAX_REASON = 500
"""Characters of a reason that are kept."""

_DEAD = "$DeadLetterQueue"
_PLAIN = " !#$&'()*+,-./:;<=>?@[]^_`{|}~"
_LOST = (404, 410)
_COUNT = re.compile(rb"<(?:\w+:)?(\w+)MessageCount[^>]*>(\d+)<")


class _Broker(Struct, rename="pascal"):
    """What the service says of a message."""

    sequence_number: int = 0
    message_id: str = ""
    lock_token: str = ""
    delivery_count: int = 1
    enqueued_time_utc: str = ""


class _Locked(NamedTuple):
    """A message that was received: its ``path`` is good until the lock is over."""

    broker: _Broker
    body: bytes
    reason: str
    path: str


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class ServiceBusQueue:
    """Messages of up to 192 KiB; ``clock`` is the time of day in Unix seconds.

    Connections are those of ``client``. Raises ConfigError where settings name no namespace.
    """

    pulls = True
    max_body_bytes = MAX_BODY_BYTES
    max_delay = MAX_SECONDS

    def __init__(
        self, settings: Settings, client: HttpClient, *, clock: Callable[[], float] = time.time
    ) -> None:
        connection = config.secret(settings.connection, "queue.connection")
        self._access = access_of(connection, settings.namespace, "queue", clock)
        self._name = quote(settings.name, safe="/")
        self._dead_name = quote(settings.dead_name, safe="/")
        self._graves = (self._dead_name, f"{self._dead_name}/{_DEAD}", f"{self._name}/{_DEAD}")
        """Where dead letters lie; one that was looked at too often sinks from the first to the second."""
        self._client = client
        self._clock = clock

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message, in one request; see `Queue`. A delay is kept to the second."""
        if len(body) > self.max_body_bytes:
            raise ValueError(f"The message has {len(body)} bytes; expected at most {self.max_body_bytes}.")
        await self._send(self._name, body, delay=delay)

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:  # noqa: ARG002
        """Return up to ``limit`` messages, with a request for each; see `Queue`."""
        locked = await self._lock(self._name, limit, wait)
        return [
            Delivery(item.body, item.broker.message_id, item.broker.delivery_count, item.path)
            for item in locked
        ]

    async def extend(self, delivery: Delivery, hidden: float) -> bool:  # noqa: ARG002 - the queue's LockDuration
        """Hide a message for another LockDuration; see `Queue`. One request."""
        answer = await self._ask("POST", self._name, delivery.receipt, well=(200, *_LOST))
        return answer.status == 200

    async def done(self, delivery: Delivery) -> None:
        """Delete a message, unless it is no longer ours. One request."""
        await self._delete(self._name, delivery.receipt)

    async def bury(self, body: bytes, reason: str) -> None:
        """Send a message to the dead letters; of the reason 500 characters are kept."""
        text = "".join(char if char.isprintable() else " " for char in reason[:MAX_REASON])
        # A property is text in quotes; whatever might need an escape there travels as in a URL.
        await self._send(self._dead_name, body, properties=[("reason", f'"{quote(text, safe=_PLAIN)}"')])

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return dead letters: each is locked and unlocked again, in two requests."""
        found: list[_Locked] = []
        try:
            for grave in self._graves:
                found += await self._lock(grave, limit - len(found), 0)
        finally:
            await asyncio.gather(*(self._unlock(item) for item in found), return_exceptions=True)
        return [_letter(item) for item in found]

    async def redrive(self, limit: int) -> int:
        """Send dead letters again, then delete them here: three requests for each."""
        return await self._empty(limit, send=True)

    async def purge_dead(self, limit: int) -> int:
        """Delete dead letters: two requests for each."""
        return await self._empty(limit, send=False)

    async def depth(self) -> Depth:
        """Return what the service counts; nothing where the key or identity may not see it (Manage)."""
        main, dead = await asyncio.gather(self._counts(self._name), self._counts(self._dead_name))
        buried = [main.get("DeadLetter"), dead.get("Active"), dead.get("DeadLetter")]
        return Depth(
            waiting=main.get("Active"),
            delayed=main.get("Scheduled"),
            dead=None if None in buried else sum(count or 0 for count in buried),
        )

    async def aclose(self) -> None:
        """Do nothing: the connections are the client's."""

    async def _send(
        self, entity: str, body: bytes, *, delay: float = 0.0, properties: Sequence[tuple[str, str]] = ()
    ) -> None:
        # No MessageId: a queue that detects duplicates would drop what is sent again on purpose.
        broker: dict[str, str] = {}
        if delay > 0:
            at = ceil(self._clock() + min(delay, self.max_delay))
            broker["ScheduledEnqueueTimeUtc"] = formatdate(at, usegmt=True)
        headers = [
            ("content-type", "application/json"),
            ("brokerproperties", msgspec.json.encode(broker).decode()),
            *properties,
        ]
        await self._ask("POST", entity, f"{entity}/messages", headers=headers, body=body, well=(201,))

    async def _lock(self, entity: str, limit: int, wait: float) -> list[_Locked]:
        """Receive and lock up to ``limit`` messages, waiting for the first one."""
        loop = asyncio.get_running_loop()
        until, found = loop.time() + wait, list[_Locked]()
        while len(found) < limit:
            left = 0 if found else min(ceil(max(0.0, until - loop.time())), MAX_WAIT)
            path = f"{entity}/messages/head?timeout={left}"
            try:
                answer = await self._ask("POST", entity, path, well=(200, 201, 204), wait=left)
            except QueueError:
                if found:  # those that are locked already are as good as without the failure
                    break
                raise
            if answer.status != 204:
                found.append(_locked(entity, answer))
            elif found or loop.time() >= until:
                break
        return found

    async def _unlock(self, item: _Locked) -> None:
        await self._ask("PUT", item.path.partition("/messages/")[0], item.path, well=(200, *_LOST))

    async def _delete(self, entity: str, path: str) -> None:
        await self._ask("DELETE", entity, path, well=(200, *_LOST))

    async def _empty(self, limit: int, *, send: bool) -> int:
        """Take up to ``limit`` messages out of the dead letters, one by one."""
        count = 0
        for grave in self._graves:
            while count < limit and (found := await self._lock(grave, 1, 0)):
                if send:
                    await self._send(self._name, found[0].body)
                await self._delete(grave, found[0].path)
                count += 1
        return count

    async def _counts(self, entity: str) -> dict[str, int]:
        """Return the numbers of messages in a queue by their state."""
        path = f"{entity}?api-version=2017-04"
        answer = await self._ask("GET", entity, path, well=(200, 401, 403, 404))
        if answer.status != 200:
            return {}
        return {name.decode(): int(number) for name, number in _COUNT.findall(answer.body)}

    async def _ask(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        entity: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        well: Sequence[int],
        wait: float = 0.0,
    ) -> _Answer:
        """Send a request and read the answer; a status that is not ``well`` is a QueueError."""
        deadline = asyncio.get_running_loop().time() + wait + SECONDS
        sent = [*headers, ("authorization", await self._access.authorization(entity))]
        url = f"{self._access.url}/{path}"
        from firsttoken.providers.http import Timeouts

        try:
            response = await self._client.request(
                method,
                url,
                headers=sent,
                body=body,
                deadline=deadline,
                timeouts=Timeouts(first_byte=wait + SECONDS),
            )
            data = await response.read(MAX_ANSWER_BYTES)
        except (UpstreamError, DeadlineError, RequestError) as error:
            raise QueueError(f"Azure Service Bus cannot be reached ({type(error).__name__}).") from error
        if response.status not in well:
            name = unquote(entity)
            raise QueueError(f"Azure Service Bus refused an operation on {name!r} ({response.status}).")
        return _Answer(response.status, response.headers, data)


def create(settings: Settings, client: HttpClient, _name: str) -> ServiceBusQueue:
    """Return the queue; nothing is connected yet. Raises ConfigError."""
    return ServiceBusQueue(settings, client)


def _locked(entity: str, answer: _Answer) -> _Locked:
    try:
        broker = msgspec.json.decode(answer.headers.get("brokerproperties", ""), type=_Broker)
    except msgspec.DecodeError as error:
        raise QueueError("Azure Service Bus sent a message without its properties.") from error
    path = f"{entity}/messages/{broker.sequence_number}/{broker.lock_token}"
    reason = answer.headers.get("reason") or answer.headers.get("deadletterreason", "")
    return _Locked(broker, answer.body, unquote(reason.strip('"')), path)


def _letter(item: _Locked) -> Dead:
    try:
        at = parsedate_to_datetime(item.broker.enqueued_time_utc).timestamp()
    except ValueError:
        at = 0.0
    return Dead(item.body, item.broker.message_id, item.reason or "by Service Bus", at)
