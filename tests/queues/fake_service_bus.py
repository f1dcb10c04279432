"""`FakeServiceBus`: the REST API of Azure Service Bus as its reference describes it, for tests.

It has sending with properties and a scheduled time, peek-lock with a wait, renewing, unlocking and deleting
by lock token, MaxDeliveryCount with the ``$DeadLetterQueue``, the counts of an entity, and shared access
signatures of one key. It leaves out topics, sessions, transactions, batches, duplicate detection, times to
live, quotas and claims. "Active" counts what can be handed out, as the reference says.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import parse_qs, unquote, unquote_plus

from aiohttp import web

KEY_NAME, KEY = "RootManageSharedAccessKey", "c2VjcmV0IG9mIHRoZSBmYWtl"
DEAD = "$DeadLetterQueue"
_HEADERS = {"accept", "accept-encoding", "authorization", "brokerproperties", "content-length", "host"}


@dataclass
class Message:
    """A message; ``visible`` is when it can be handed out next."""

    body: bytes
    kind: str
    properties: dict[str, str]
    number: int
    enqueued: float
    visible: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    token: str = ""
    count: int = 0


@dataclass
class Entity:
    """A queue: its messages in their order."""

    messages: list[Message] = field(default_factory=list)


class FakeServiceBus:
    """A namespace with the queues that were named; ``clock`` gives Unix seconds.

    `refuse` is a status that every request gets, `requests` are the methods and paths that came.
    """

    def __init__(
        self,
        names: list[str],
        *,
        clock: Callable[[], float],
        lock_seconds: float = 60.0,
        max_delivery_count: int = 10,
    ) -> None:
        self.entities = {
            path: Entity() for name in names for path in (name.lower(), f"{name}/{DEAD}".lower())
        }
        self.refuse: int | None = None
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.url = ""
        self._clock = clock
        self._lock_seconds = lock_seconds
        self._max_delivery_count = max_delivery_count
        self._numbers = itertools.count(1)
        self._news = asyncio.Condition()

    @property
    def connection(self) -> str:
        """The connection string of the namespace."""
        return f"Endpoint={self.url};SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}"

    async def wake(self) -> None:
        """Have those that wait for a message look again: the clock has moved."""
        async with self._news:
            self._news.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append(f"{request.method} {request.path}")
        name, _, rest = request.path.strip("/").lower().partition("/messages")
        entity = self.entities.get(name)
        allowed = self._is_allowed(request.headers.get("authorization", ""), name)
        if self.refuse or not allowed or entity is None:
            absent = 404 if request.method == "GET" else 410
            return web.Response(status=self.refuse or (absent if allowed else 401))
        if request.method == "GET":
            return web.Response(body=self._describe(name), content_type="application/atom+xml")
        if not rest:
            return await self._send(entity, request)
        if rest == "/head":
            return await self._receive(name, request)
        return await self._settle(name, rest, request)

    async def _send(self, entity: Entity, request: web.Request) -> web.Response:
        broker = json.loads(request.headers.get("brokerproperties", "{}"))
        now = self._clock()
        scheduled = broker.get("ScheduledEnqueueTimeUtc")
        visible = parsedate_to_datetime(scheduled).timestamp() if scheduled else now
        own = {key.lower(): value for key, value in request.headers.items()}
        properties = {key: value for key, value in own.items() if key not in {*_HEADERS, "content-type"}}
        # A property's value is JSON: text without quotes around it is refused.
        if not all(isinstance(json.loads(value), str | int | float | bool) for value in properties.values()):
            return web.Response(status=400)
        kind, number = own.get("content-type", ""), next(self._numbers)
        body = await request.read()
        entity.messages.append(Message(body, kind, properties, number, max(now, visible), visible))
        await self.wake()
        return web.Response(status=201)

    async def _receive(self, name: str, request: web.Request) -> web.Response:
        timeout = float(request.query.get("timeout", "60"))
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            if message := self._take(name):
                return self._answer(name, message)
            if loop.time() >= until:
                return web.Response(status=204)
            try:
                async with self._news, asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _take(self, name: str) -> Message | None:
        """Lock the next message; one that was handed out too often goes to the subqueue instead."""
        now = self._clock()
        for message in list(self.entities[name].messages):
            if message.visible > now:
                continue
            message.token = ""
            if message.count >= self._max_delivery_count and not name.endswith(DEAD.lower()):
                self.entities[name].messages.remove(message)
                said = {"deadletterreason": '"MaxDeliveryCountExceeded"'}
                message.properties = {**message.properties, **said}
                self.entities[f"{name}/{DEAD}".lower()].messages.append(message)
                continue
            message.count += 1
            message.token = str(uuid.uuid4())
            message.visible = now + self._lock_seconds
            return message
        return None

    def _answer(self, name: str, message: Message) -> web.Response:
        broker = {
            "DeliveryCount": message.count,
            "EnqueuedTimeUtc": formatdate(message.enqueued, usegmt=True),
            "LockToken": message.token,
            "LockedUntilUtc": formatdate(message.visible, usegmt=True),
            "MessageId": message.id,
            "SequenceNumber": message.number,
            "State": "Active",
            "TimeToLive": 1209600,
        }
        location = f"{self.url}{name}/messages/{message.number}/{message.token}"
        headers = {
            **message.properties,
            "BrokerProperties": json.dumps(broker),
            "Location": location,
            "Content-Type": message.kind,
        }
        return web.Response(status=201, body=message.body, headers=headers)

    async def _settle(self, name: str, rest: str, request: web.Request) -> web.Response:
        identity, _, token = rest.strip("/").partition("/")
        entity, now = self.entities[name], self._clock()
        held = [
            message
            for message in entity.messages
            if unquote(identity) in (str(message.number), message.id)
            and message.token == token
            and message.visible > now
        ]
        if not held:
            return web.Response(status=404)
        if request.method == "DELETE":
            entity.messages.remove(held[0])
        elif request.method == "POST":
            held[0].visible = now + self._lock_seconds
        else:
            held[0].visible, held[0].token = now, ""
            await self.wake()
        return web.Response(status=200)

    def _describe(self, name: str) -> bytes:
        now, messages = self._clock(), self.entities[name].messages
        counts = {
            "Active": sum(message.visible <= now for message in messages),
            "DeadLetter": len(self.entities[f"{name}/{DEAD}".lower()].messages),
            "Scheduled": sum(message.visible > now and not message.count for message in messages),
            "TransferDeadLetter": 0,
            "Transfer": 0,
        }
        space = 'xmlns:d2p1="http://schemas.microsoft.com/netservices/2011/06/servicebus"'
        details = "".join(
            f"<d2p1:{key}MessageCount>{value}</d2p1:{key}MessageCount>" for key, value in counts.items()
        )
        head = f"<MessageCount>{len(messages)}</MessageCount>"
        return f"<entry><QueueDescription>{head}<CountDetails {space}>{details}</CountDetails>".encode()

    def _is_allowed(self, authorization: str, name: str) -> bool:
        """Check a signature and that it is for this entity, or for what is above it."""
        scheme, _, token = authorization.partition(" ")
        fields = {key: values[0] for key, values in parse_qs(token).items()}
        self.tokens.append(token)
        if scheme != "SharedAccessSignature" or set(fields) != {"sr", "sig", "se", "skn"}:
            return False
        signed = f"{token.partition('sr=')[2].partition('&')[0]}\n{fields['se']}".encode()
        digest = base64.b64encode(hmac.new(KEY.encode(), signed, hashlib.sha256).digest()).decode()
        resource = unquote_plus(fields["sr"]).rstrip("/")
        is_above = f"{self.url}{name}/".startswith(f"{resource}/")
        return (digest, fields["skn"]) == (fields["sig"], KEY_NAME) and is_above and self._is_young(fields)

    def _is_young(self, fields: dict[str, str]) -> bool:
        return int(fields["se"]) > self._clock()


@asynccontextmanager
async def running(bus: FakeServiceBus) -> AsyncIterator[FakeServiceBus]:
    """Serve the namespace on a free loopback port."""
    application = web.Application(client_max_size=1 << 20)
    application.router.add_route("*", "/{path:.*}", bus.handle)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        bus.url = f"http://{host}:{port}/"
        yield bus
    finally:
        await runner.cleanup()
