"""Open-loop load: requests leave when they are due, however slow the answers to earlier ones are.

Every time counts from the moment a request was *due*, so that a generator that fell behind, or a server
that let it wait, shows in the figures (no coordinated omission). One process, one event loop, our own HTTP
client; answers are read as OpenAI Chat Completions with a reader of its own, so that a mistake of the
gateway's codecs is seen rather than shared.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.errors import DeadlineError, FirstTokenError, UpstreamClosedError
from firsttoken.providers.http import HttpClient, Response, Timeouts

PATH = "/v1/chat/completions"
MAX_BODY = 16 * 1024 * 1024
_HEADERS = (("content-type", "application/json"),)
_DONE = b"[DONE]"
_TIMER = 0.001


class Arrival(Struct, frozen=True):
    """One request to send: ``at`` and ``leave_after`` in seconds, from the start and from the sending."""

    at: float
    prompt: str
    body: bytes
    stream: bool
    leave_after: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Of this request alone, for example a tenant's key."""
    tenant: str = ""
    repeated: bool = False
    """Whether its prompt is one that others ask too."""


class Sample(Struct):
    """What became of one request. Times are seconds since the load began."""

    at: float
    prompt: str
    stream: bool
    sent: float = 0.0
    first: float | None = None
    """When the first content was read; of a whole answer, when all of it was."""
    done: float | None = None
    status: int = 0
    error: str = ""
    """Empty, or why it is no answer: ``503 model_overloaded``, ``deadline``, ``cut``, ``incomplete`` ..."""
    text: str = ""
    finish: str = ""
    model: str = ""
    target: str = ""
    request_id: str = ""
    usage: bool = False
    tenant: str = ""
    repeated: bool = False
    chunks: int = 0
    """Pieces of text that were read."""
    tokens: int = 0
    """Of the answer, as the server counts them; 0 where it does not say."""
    left: bool = False
    """The client went away on purpose."""
    typed: bool = False
    """It ended as the format says: whole with its end marker, or with an error and without one."""

    @property
    def latency(self) -> float | None:
        """Seconds from when it was due to the first content, or to the whole answer if it is not streamed."""
        return None if self.first is None else self.first - self.at

    @property
    def complete(self) -> bool:
        """Whether the answer came to its proper end."""
        return self.status == 200 and not self.error and bool(self.finish)


class _Usage(Struct):
    completion_tokens: int = 0


class _Said(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Said = msgspec.field(default_factory=_Said)
    message: _Said = msgspec.field(default_factory=_Said)
    finish_reason: str | None = None


class _Error(Struct):
    type: str | None = None
    code: str | None = None


class _Event(Struct):
    choices: list[_Choice] = []
    error: _Error | None = None
    model: str = ""
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Event).decode


def poisson(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Return the times of independent arrivals: ``rate`` a second on average, for ``seconds``."""
    times: list[float] = []
    now = rng.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += rng.expovariate(rate)
    return times


def body(model: str, prompt: str, *, stream: bool, **fields: Any) -> bytes:
    """Return a chat completion request; a streamed one asks for its usage too."""
    request: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(request)


def quantile(values: Iterable[float], q: float) -> float | None:
    """Return the smallest value that a share ``q`` of them does not exceed (nearest rank); None of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)) - 1, 0)] if ordered else None


async def run(  # noqa: PLR0913 - what there is to say of a load
    url: str,
    arrivals: Iterable[Arrival],
    *,
    deadline: float,
    headers: Sequence[tuple[str, str]] = (),
    ended: Callable[[Sample], object] = lambda _: None,
    keep_text: bool = True,
) -> list[Sample]:
    """Send all ``arrivals`` to the endpoint at ``url`` and return their samples, in the same order.

    A request is given up ``deadline`` seconds after it was due. ``ended`` is told each sample as it is
    finished. ``arrivals`` may be made while they are taken, in the order of their times. Memory grows with
    the number of requests: about 600 bytes each, and with ``keep_text`` the texts of prompt and answer.
    """
    client = HttpClient(max_idle=256)
    loop = asyncio.get_running_loop()
    start = loop.time()
    samples: list[Sample] = []
    calls: set[asyncio.Task[None]] = set()
    broken: list[BaseException] = []

    async def one(arrival: Arrival, sample: Sample) -> None:
        sample.sent = loop.time() - start
        call = _Call(client, sample, start, start + arrival.at + deadline)
        await call.make(url + PATH, (*_HEADERS, *headers, *arrival.headers), arrival)
        if not keep_text:
            sample.prompt = sample.text = ""
        ended(sample)

    def over(task: asyncio.Task[None]) -> None:
        calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            broken.append(error)

    try:
        for arrival in arrivals:
            await _until(start + arrival.at)
            samples.append(sample := _begun(arrival))
            calls.add(task := loop.create_task(one(arrival, sample)))
            task.add_done_callback(over)
        while calls and not broken:
            await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        if broken:  # a mistake of ours, no failed request
            raise broken[0]
    finally:
        await _stop(list(calls))
        await client.aclose()
    return samples


async def _stop(calls: Sequence[asyncio.Task[None]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


def _begun(arrival: Arrival) -> Sample:
    return Sample(
        arrival.at, arrival.prompt, arrival.stream, tenant=arrival.tenant, repeated=arrival.repeated
    )


async def _until(at: float) -> None:
    """Return at a time of the loop's clock: its timers are up to a millisecond late, its turns are not."""
    loop = asyncio.get_running_loop()
    if (wait := at - loop.time() - _TIMER) > 0:
        await asyncio.sleep(wait)
    while loop.time() < at:  # noqa: ASYNC110 - waits for a time, not for an event
        await asyncio.sleep(0)


class _Call:
    """One request on its way; fills in its sample."""

    def __init__(self, client: HttpClient, sample: Sample, start: float, until: float) -> None:
        self._client = client
        self._sample = sample
        self._start = start
        self._until = until
        self._now = asyncio.get_running_loop().time
        self._text: list[str] = []
        self._marked = False
        self._said_error = False

    async def make(self, url: str, headers: Sequence[tuple[str, str]], arrival: Arrival) -> None:
        sample = self._sample
        try:
            async with asyncio.timeout(arrival.leave_after):
                await self._exchange(url, headers, arrival.body)
        except TimeoutError:
            sample.left = True
        except DeadlineError:
            sample.error = "deadline"
        except UpstreamClosedError:
            sample.error = "cut"
        except FirstTokenError as error:
            sample.error = error.code or error.type
        except msgspec.DecodeError:
            sample.error = "unreadable"
        sample.done = self._now() - self._start
        sample.text = "".join(self._text)
        ended = bool(sample.finish) and self._marked
        sample.typed = self._said_error and not self._marked if sample.error else ended
        if not (sample.error or sample.left or sample.typed):
            sample.error = "incomplete"

    async def _exchange(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        sample = self._sample
        limit = max(self._until - self._now(), 0.001)
        timeouts = Timeouts(connect=limit, first_byte=limit, gap=limit)
        response = await self._client.request(
            "POST", url, headers=headers, body=body, timeouts=timeouts, deadline=self._until
        )
        try:
            sample.status = response.status
            sample.request_id = response.headers.get("x-request-id", "")
            sample.target = response.headers.get("x-firsttoken-target", "")
            if sample.stream and response.status == 200:
                await self._read_stream(response)
            else:
                await self._read_whole(response)
        finally:
            response.close()

    async def _read_whole(self, response: Response) -> None:
        event = _decode(await response.read(MAX_BODY))
        self._take(event)
        if response.status != 200 and event.error is None:
            self._sample.error = f"{response.status} untyped"
        self._marked = response.status == 200

    async def _read_stream(self, response: Response) -> None:
        rest = b""
        async for data in response.chunks():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if not event.startswith(b"data:"):
                    continue  # a comment: a sign of life
                payload = event[5:].strip()
                if payload == _DONE:
                    self._marked = True
                else:
                    self._take(_decode(payload))

    def _take(self, event: _Event) -> None:
        sample = self._sample
        sample.model = event.model or sample.model
        if event.usage is not None:
            sample.usage, sample.tokens = True, event.usage.completion_tokens
        if event.error is not None:
            reason = event.error.code or event.error.type or "error"
            sample.error = f"{sample.status} {reason}" if sample.status != 200 else f"event {reason}"
            self._said_error = True
        for choice in event.choices:
            said = choice.delta.content or choice.message.content
            if said:
                if sample.first is None:
                    sample.first = self._now() - self._start
                sample.chunks += 1
                self._text.append(said)
            sample.finish = choice.finish_reason or sample.finish
