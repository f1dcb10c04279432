"""What all providers over HTTP share: write a request, read the answer, stop when nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress

import msgspec

from firsttoken.errors import UpstreamError, UpstreamProtocolError
from firsttoken.model import Call, Chunk
from firsttoken.providers.http import HttpClient, Response, Timeouts
from firsttoken.wire.codec import Codec
from firsttoken.wire.rate_limits import read_quotas

MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
END_SECONDS = 0.05
TRACE_HEADERS = ("traceparent", "tracestate")
"""Ours, by the time a call gets here: whoever answers it is part of the same trace."""

Headers = list[tuple[str, str]]
Authorize = Callable[[str, Headers, bytes], Awaitable[Headers]]
"""Adds a key, a token or a signature to the headers of a POST of these bytes to this URL."""


class Connection(msgspec.Struct, frozen=True):
    """What a target needs besides its format: client, limits, fixed headers, and which to forward."""

    client: HttpClient
    timeouts: Timeouts
    headers: Headers = []
    forward_headers: tuple[str, ...] = ()


class Upstream:
    """A model behind HTTP. Holds no state of a call.

    ``model`` is the target's name for it, or ``*`` for the name that the client said; ``url`` makes the
    address from that name and whether the answer is streamed. A provider whose answers say more than the
    format does overrides `answered` and `failed`.
    """

    def __init__(
        self,
        model: str,
        codec: Codec,
        url: Callable[[str, bool], str],
        connection: Connection,
        authorize: Authorize | None = None,
    ) -> None:
        self._model = model
        self._codec = codec
        self._url = url
        self._connection = connection
        self._authorize = authorize

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the target's answer.

        Raises UpstreamError and its kinds; closes the connection when it is closed.
        """
        response = await self._request(call)
        streamed = call.request.stream
        attempt = call.attempt
        try:
            attempt.requests_quota, attempt.tokens_quota = read_quotas(response.headers)
            self.answered(call, response)
            if response.status != 200:
                body = await response.read(MAX_ERROR_BYTES)
                error = self._codec.error_from(response.status, response.headers, body)
                raise self.failed(call, response, error)
            if _is_stream(response, self._codec):
                async for chunk in _read_stream(response, self._codec):
                    yield chunk if streamed else _decoded(chunk)
            else:
                chunk = _answer(await response.read(MAX_ANSWER_BYTES), self._codec)
                yield _decoded(chunk) if streamed else chunk
        finally:
            response.close()

    def answered(self, call: Call, response: Response) -> None:
        """Take notes of the head of an answer, whatever its status."""

    def failed(self, call: Call, response: Response, error: UpstreamError) -> UpstreamError:  # noqa: ARG002
        """Return the error that an answer means, given what the format says of it."""
        return error

    async def _request(self, call: Call) -> Response:
        model = call.request.model if self._model == "*" else self._model
        body = self._codec.write_request(call, model)
        url = self._url(model, call.request.stream)
        accept = self._codec.STREAM_TYPE.partition(";")[0] if call.request.stream else "application/json"
        link = self._connection
        wanted = dict.fromkeys((*link.forward_headers, *TRACE_HEADERS))
        forwarded = [(name, call.headers[name]) for name in wanted if name in call.headers]
        headers = [("content-type", "application/json"), ("accept", accept), *link.headers, *forwarded]
        if self._authorize:
            headers = await self._authorize(url, headers, body)
        return await link.client.request(
            "POST", url, headers=headers, body=body, timeouts=link.timeouts, deadline=call.deadline
        )


def bearer(key: str, name: str = "authorization") -> Authorize:
    """Return what adds a fixed key: as a bearer token, or as it is in another header."""
    header = (name, f"Bearer {key}" if name == "authorization" else key)

    async def authorize(_url: str, headers: Headers, _body: bytes) -> Headers:
        return [*headers, header]

    return authorize


def _is_stream(response: Response, codec: Codec) -> bool:
    content_type = response.headers.get("content-type", "")
    return content_type.startswith(codec.STREAM_TYPE.partition(";")[0])


def _answer(body: bytes, codec: Codec) -> Chunk:
    chunk = codec.read_answer(body)
    if chunk.finish is None and not (chunk.text or chunk.tool_calls):
        raise UpstreamProtocolError("The target's answer holds no answer.")
    return chunk


async def _read_stream(response: Response, codec: Codec) -> AsyncGenerator[Chunk]:
    reader = codec.open_reader()
    arrivals = response.chunks()
    async for received in arrivals:
        chunk = reader.feed(received)
        while chunk is not None:
            yield chunk
            chunk = reader.feed(b"")
        if reader.done:
            await _await_end(arrivals)
            break
    reader.close()


async def _await_end(arrivals: AsyncIterator[bytes]) -> None:
    """Give the end of the body, which mostly follows at once, a moment: only then is the connection kept."""
    with suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(END_SECONDS):
            await anext(arrivals, None)


def _decoded(chunk: Chunk) -> Chunk:
    """Return ``chunk`` without its bytes, for a client that must get it in another shape than it came in."""
    return msgspec.structs.replace(chunk, raw=b"", wire="")
