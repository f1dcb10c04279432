"""``Idempotency-Key``: the same key gives the same answer, byte for byte, whoever comes with it again.

The answer belongs to none of the clients. One task (a `_Run`) writes it into memory; the first client and all
that come with its key meanwhile follow it live, and it goes on when they leave, so that a retry finds it. In
the store a `Claim` tells the other instances: they wait for the answer and then repeat it.

Only whole answers are kept. An error goes to all who follow and frees the key: a retry really tries again.
Without a store the guarantee holds in this process, while the answer is on its way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from hashlib import sha256
from math import inf

import msgspec

from firsttoken.api.chat import stream_headers
from firsttoken.api.claim import Claim, Kept, reused
from firsttoken.api.exchange import Exchange, Heartbeat, Message
from firsttoken.api.lifetime import until_the_client_leaves
from firsttoken.errors import DeadlineError, FirstTokenError, RequestError, UpstreamClosedError
from firsttoken.gateway import Gateway
from firsttoken.model import Call
from firsttoken.policies.broadcast import Broadcast
from firsttoken.stores.parts import MAX_LARGE_BYTES

Answer = Callable[[Exchange], Awaitable[None]]

HEADER = "idempotency-key"
_PRINTABLE = re.compile(r"[ -~]{1,255}")
_REPLAYED = (b"x-firsttoken-replayed", b"true")
_LOCAL = (b"x-firsttoken-idempotency", b"local")
_ACCEPTED = 202
"""The status of an answer that is a job's document."""
_MAX_BODY = MAX_LARGE_BYTES - 64 * 1024

_runs: dict[tuple[int, str], _Run] = {}
"""What is under way in this process, by gateway and key."""


async def once(exchange: Exchange, gateway: Gateway, call: Call, answer: Answer) -> None:
    """Answer ``call`` with what its key was answered before, or do ``answer`` and keep that.

    The work goes on without clients until the deadline of the first one. Raises RequestError for a key that
    is none, IdempotencyError for one that another request has used, and whatever ``answer`` raises. Memory:
    ``settings.idempotency.max_bytes`` a key in flight; an answer that is larger is sent, but not kept.
    """
    key = exchange.headers[HEADER]
    if not _PRINTABLE.fullmatch(key):
        message = (
            f"Idempotency-Key: expected 1 to 255 printable ASCII characters, got {len(key)}: {key[:40]!r}."
        )
        raise RequestError(message, param="Idempotency-Key", code="invalid_value")
    name = f"idempotency:{call.tenant}:{sha256(key.encode()).hexdigest()}"
    fingerprint = _fingerprint(exchange, call)
    run = _runs.get((id(gateway), name))
    if run is not None and run.fingerprint != fingerprint:
        raise reused()
    first = run is None or not run.joinable
    if run is None or first:
        run = _Run(exchange, gateway, call, name, fingerprint)
        run.start(answer)
    follow = _follow(run, exchange, gateway, call, first=first)
    await until_the_client_leaves(exchange, call.deadline, follow)
    if first and exchange.record.disconnected:
        await run.settled()  # a function is frozen once its request is over


async def _follow(run: _Run, exchange: Exchange, gateway: Gateway, call: Call, *, first: bool) -> None:
    """Send the answer of a run to one client."""
    record, streamed = exchange.record, call.request.stream
    heartbeat = gateway.settings.server.heartbeat_seconds
    own = exchange.writer = exchange.codec.open_writer(call, int(time.time())) if streamed else None
    beat = Heartbeat(exchange, heartbeat if streamed else inf, stream_headers(exchange.codec))
    whole: list[bytes] = []
    try:
        async with aclosing(run.parts.follow()) as parts:
            async for part in parts:
                if record.first_chunk is None:
                    record.first_chunk = asyncio.get_running_loop().time()
                if not streamed or run.status == _ACCEPTED:
                    whole.append(part)
                    continue
                if not exchange.started:
                    await exchange.start(run.status, run.headers_for(first=first))
                exchange.writer = run.inner.writer or own  # an error is to stand where this answer stopped
                await exchange.write(part)
        if exchange.started and run.status == _ACCEPTED:  # by a heartbeat, so the stream goes on with the job
            beat.stop()
            from firsttoken.api.jobs import accept_again

            await accept_again(exchange, gateway, call, b"".join(whole))
            return
        if not exchange.started:
            await exchange.start(run.status, run.headers_for(first=first))
        await exchange.end(b"".join(whole))
    finally:
        beat.stop()
        if run.replayed or not first:
            record.replayed, record.target = True, run.target


class _Run:
    """The one answer to a key that is under way in this process."""

    def __init__(self, exchange: Exchange, gateway: Gateway, call: Call, name: str, fingerprint: str) -> None:
        settings = gateway.settings.idempotency
        self._gateway = gateway
        self._call = call
        self._place = (id(gateway), name)
        self._claim = Claim(gateway.store, settings, name, fingerprint)
        self.fingerprint = fingerprint
        self.parts: Broadcast[bytes] = Broadcast(min(settings.max_bytes, _MAX_BODY), len)
        self.status = 0
        self.target = ""
        self.replayed = False
        """Whether the answer came from the store."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._task: asyncio.Task[None] | None = None
        self.inner = Exchange(exchange.scope, _nothing, self._send, exchange.id)
        """What the answer is written to, instead of a client."""
        self.inner.codec = exchange.codec

    def start(self, answer: Answer) -> None:
        """Begin: ask the store, and where nobody has answered yet do ``answer``."""
        _runs[self._place] = self
        self._task = asyncio.get_running_loop().create_task(self._run(answer))

        def ended(task: asyncio.Task[None]) -> None:
            self._forget()
            stopped = DeadlineError("The answer was stopped.") if task.cancelled() else None
            self.parts.finish(stopped or task.exception())

        self._task.add_done_callback(ended)

    @property
    def joinable(self) -> bool:
        """Return whether a client that comes now can get all of the answer."""
        in_time = self.parts.done or asyncio.get_running_loop().time() < self._call.deadline
        return self.parts.joinable and in_time

    async def settled(self) -> None:
        """Wait until the answer is kept, or is known to be none."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def headers_for(self, *, first: bool) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer for one client."""
        again = [_REPLAYED] if self.replayed or not first else []
        return [*self._headers, *again, *([_LOCAL] if self._claim.local else [])]

    async def _run(self, answer: Answer) -> None:
        kept = False
        try:
            kept = await self._answer(answer) or await self._keep()
        except FirstTokenError as error:
            self._forget()
            self.parts.finish(error)
        finally:
            if not kept:
                await self._claim.free()

    async def _answer(self, answer: Answer) -> bool:
        """Write the answer; return whether it came from the store."""
        renewing: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout_at(self._call.deadline):
                found = await self._claim.take()
                if found is not None:
                    self._replay(found)
                    return True
                renewing = asyncio.get_running_loop().create_task(self._claim.renew())
                await answer(self.inner)
        except TimeoutError as error:
            raise DeadlineError("The time for this call is used up.") from error
        finally:
            if renewing is not None:
                renewing.cancel()
            self._gateway.shadow.run(self.settled())  # whatever the runtime, it waits for the store
        self.target = self._call.record.target
        self.parts.finish()
        return False

    def _replay(self, found: Kept) -> None:
        self.replayed, self.target = True, found.target
        self.status, self._headers = found.status, found.headers
        self.parts.append(found.body)
        self.parts.finish()

    async def _keep(self) -> bool:
        if not self.parts.joinable:
            return False
        return await self._claim.keep(
            Kept(self.status, self._headers, b"".join(self.parts.items), self.target)
        )

    async def _send(self, message: Message) -> None:
        """Take what the answer consists of: ASGI messages. Raises UpstreamClosedError to stop it."""
        if message["type"] == "http.response.start":
            self.status, self.target = message["status"], self._call.record.target
            self._headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
        elif message["body"]:
            self.parts.append(message["body"])
            if not self.parts.joinable:
                if not self.parts.followed:
                    raise UpstreamClosedError("Nobody listens to an answer that is too large to be kept.")
                await self.parts.room()

    def _forget(self) -> None:
        if _runs.get(self._place) is self:
            del _runs[self._place]


def _fingerprint(exchange: Exchange, call: Call) -> str:
    """Return what makes two requests the same: where they went, and the bytes of their bodies."""
    scope = exchange.scope
    asked = (str(scope["path"]), scope.get("query_string", b""), call.source.body)
    return sha256(msgspec.msgpack.encode(asked)).hexdigest()


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
