"""A Lambda Function URL on this machine: requests become events, answers become responses as they stream."""

from __future__ import annotations

import asyncio
import binascii
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from firsttoken.emulators.aws_environment import HTTP_INTEGRATION, PAYLOAD_LIMIT, FunctionError, Invocation
from firsttoken.emulators.http11 import LAST_CHUNK, Request, head, response
from firsttoken.errors import FirstTokenError

_PRELUDE_END = b"\0" * 8
_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")
_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})


class ThrottledError(FirstTokenError):
    """Every execution environment that the function may have is busy."""


class Answer(Struct):
    """What a function answered, the way HTTP sees it; ``body`` streams and may raise `FunctionError`."""

    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]


class _Metadata(Struct, frozen=True, rename="camel"):
    """A prelude, or the JSON object that a proxy integration expects."""

    status_code: int | str
    headers: dict[str, Any] | None = None
    multi_value_headers: dict[str, list[Any]] | None = None
    cookies: list[str] | None = None
    body: str | None = None
    is_base64_encoded: bool = False


async def open_answer(invocation: Invocation) -> Answer:
    """Read an answer up to where its body begins.

    Raises `FunctionError` when the function fails before that.
    """
    payload = invocation.payload()
    if not invocation.streaming:
        return _buffered(b"".join([piece async for piece in payload]), invocation.content_type)
    if invocation.content_type != HTTP_INTEGRATION:
        return Answer(200, [("content-type", invocation.content_type)], payload)
    start = b""
    async for piece in payload:
        start += piece
        if _PRELUDE_END in start:
            break
    prelude, end, rest = start.partition(_PRELUDE_END)
    try:
        metadata = msgspec.json.decode(prelude, type=_Metadata)
    except msgspec.DecodeError as error:
        raise FunctionError("Runtime.InvalidPrelude", f"{error}: {prelude[:200]!r}") from error
    if not end:
        raise FunctionError("Runtime.InvalidPrelude", "the eight NUL bytes after it are missing")
    return Answer(int(metadata.status_code), _headers(metadata), _rejoined(rest, payload))


class FunctionUrl:
    """The HTTP side of a function."""

    def __init__(self, invoke: Callable[[bytes], Awaitable[Invocation]], region: str) -> None:
        self._invoke = invoke
        self._domain = f"firsttokenexampleexampleexample.lambda-url.{region}.on.aws"

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one HTTP request by one invocation."""
        body = await request.read(PAYLOAD_LIMIT)
        if body is None:
            writer.write(_message(413, "Request Entity Too Large", Connection="close"))
            await writer.drain()
            return False
        peer = writer.get_extra_info("peername")
        event = url_event(request, body, self._domain, peer[0] if peer else "")
        try:
            answer = await open_answer(await self._invoke(msgspec.json.encode(event)))
        except ThrottledError:
            writer.write(_message(429, "Rate Exceeded."))
        except FunctionError as error:
            # AWS tells the client nothing; the reason is in the function's log.
            writer.write(_message(502, "Internal Server Error", x_amzn_ErrorType=error.kind))
        else:
            return await _respond(answer, request, writer)
        await writer.drain()
        return True


def url_event(request: Request, body: bytes, domain: str, address: str) -> dict[str, Any]:
    """Return an HTTP request as a Function URL event (payload format 2.0)."""
    path, _, query = request.target.partition("?")
    headers: dict[str, str] = {}
    for name, value in request.header_list:
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    cookies = headers.pop("cookie", "")
    content_type = headers.get("content-type", "").lower()
    text = _text(body) if content_type.startswith(_TEXT_TYPES) else None
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers | {"x-forwarded-for": address, "x-forwarded-proto": "http"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": domain.partition(".")[0],
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": address,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": bool(body) and text is None,
    }
    if cookies:
        event["cookies"] = cookies.split("; ")
    if query:
        parameters: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
        event["queryStringParameters"] = parameters
    if body:
        event["body"] = binascii.b2a_base64(body, newline=False).decode() if text is None else text
    return event


async def _respond(answer: Answer, request: Request, writer: asyncio.StreamWriter) -> bool:
    """Write an answer as it comes; a client that leaves does not stop the function (as AWS documents)."""
    bodiless = request.method == "HEAD" or answer.status in {204, 304}
    fields = [(name, value) for name, value in answer.headers if name.lower() not in _HOP_BY_HOP]
    if not bodiless:
        fields.append(("Transfer-Encoding", "chunked"))
    start = head(answer.status, fields)
    gone = False
    try:
        async for piece in answer.body:
            if gone or bodiless or not piece:
                continue
            try:
                writer.write(b"%b%x\r\n%b\r\n" % (start, len(piece), piece))
                start = b""
                await writer.drain()
            except OSError:
                gone = True
    except FunctionError:
        if start:
            writer.write(_message(502, "Internal Server Error"))
            return True
        writer.transport.abort()  # the client must see that the answer is not complete
        return False
    writer.write(start if bodiless else start + LAST_CHUNK)
    await writer.drain()
    return True


def _buffered(payload: bytes, content_type: str) -> Answer:
    """Map a whole JSON answer: an object with a status code is HTTP, anything else is a body of its own."""
    try:
        metadata = msgspec.json.decode(payload, type=_Metadata)
        text = (metadata.body or "").encode()
        body = binascii.a2b_base64(text) if metadata.is_base64_encoded else text
        status = int(metadata.status_code)
    except (msgspec.DecodeError, ValueError):
        return Answer(200, [("content-type", content_type)], _rejoined(payload, None))
    headers = _headers(metadata)
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    return Answer(status, headers, _rejoined(body, None))


def _headers(metadata: _Metadata) -> list[tuple[str, str]]:
    multiple = metadata.multi_value_headers or {}
    fields = [(name, _plain(value)) for name, values in multiple.items() for value in values]
    fields += [
        (name, _plain(value)) for name, value in (metadata.headers or {}).items() if name not in multiple
    ]
    return fields + [("set-cookie", _plain(cookie)) for cookie in metadata.cookies or ()]


def _plain(value: object) -> str:
    return str(value).replace("\r", " ").replace("\n", " ")


async def _rejoined(first: bytes, rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    if first:
        yield first
    if rest is not None:
        async for piece in rest:
            yield piece


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _message(status: int, text: str, **fields: str) -> bytes:
    return response(status, msgspec.json.encode({"message": text}), **fields)
