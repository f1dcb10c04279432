"""Lambda's HTTP events as ASGI requests, and ASGI answers as what the caller of the function understands.

Three shapes are accepted: Function URL and API Gateway HTTP API (payload format 2.0), API Gateway REST
(format 1.0). Only the fields that are read are declared; decoding checks their types in the same pass.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode

import msgspec
from msgspec import Struct

Headers = Iterable[tuple[bytes, bytes]]
ResponseMode = Literal["auto", "stream", "buffered"]

PRELUDE_END = b"\0" * 8
"""What stands between the prelude (JSON) and the body of a streamed HTTP answer."""


class UnknownEventError(ValueError):
    """The event is not an HTTP request that we can read: a queue's batch, a schedule, a completion notice."""


class HttpRequest(Struct, frozen=True):
    """One HTTP request taken out of an event."""

    scope: dict[str, Any]
    body: bytes
    streams: bool
    """Whether the caller of the function passes a streamed answer on."""
    multi_value: bool
    """Whether a buffered answer has cookies in ``multiValueHeaders`` (format 1.0) or ``cookies`` (2.0)."""


class _Http(Struct, frozen=True, rename="camel"):
    method: str
    source_ip: str = ""


class _Identity(Struct, frozen=True, rename="camel"):
    source_ip: str | None = None


class _Context(Struct, frozen=True, rename="camel"):
    http: _Http | None = None
    identity: _Identity | None = None
    domain_name: str | None = None
    stage: str | None = None
    elb: dict[str, Any] | None = None


class _Event(Struct, frozen=True, rename="camel"):
    request_context: _Context
    headers: dict[str, str | None] | None = None
    body: str | None = None
    is_base64_encoded: bool = False
    # Format 2.0
    raw_path: str | None = None
    raw_query_string: str | None = None
    cookies: list[str] | None = None
    # Format 1.0
    http_method: str | None = None
    path: str | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    query_string_parameters: dict[str, str | None] | None = None
    multi_value_query_string_parameters: dict[str, list[str]] | None = None


class _Parts(Struct, frozen=True):
    """What the shapes have in common; the query is encoded, header names are lower-case."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    address: str


_decode = msgspec.json.Decoder(_Event).decode


def http_request(event: bytes, mode: ResponseMode = "auto") -> HttpRequest:
    """Read one HTTP request from an event of any of the three shapes.

    In mode ``auto`` only an HTTP API gets a buffered answer, because that gateway cannot stream.
    Raises `UnknownEventError` for everything else.
    """
    try:
        parsed = _decode(event)
        body = _body(parsed)
    except (msgspec.DecodeError, binascii.Error, UnicodeEncodeError) as error:
        raise UnknownEventError(f"not an HTTP request ({error}); {_shape(event)}") from error
    context = parsed.request_context
    if context.elb is not None:
        raise UnknownEventError("a load balancer's event: use a Function URL or API Gateway")
    if context.http is not None:
        scope = _scope(_parts_v2(parsed, context, context.http), context.domain_name)
        streams = mode == "stream" or (mode == "auto" and ".lambda-url." in (context.domain_name or ""))
        return HttpRequest(scope, body, streams=streams, multi_value=False)
    if parsed.http_method and parsed.path is not None:
        scope = _scope(_parts_v1(parsed, context), context.domain_name)
        return HttpRequest(scope, body, streams=mode != "buffered", multi_value=True)
    raise UnknownEventError(f"not an HTTP request (no method or path); {_shape(event)}")


def prelude(status: int, headers: Headers) -> bytes:
    """Return the start of a streamed answer: status, headers and cookies as JSON, then eight NUL bytes."""
    single, cookies = _joined(headers)
    answer: dict[str, Any] = {"statusCode": status, "headers": single}
    if cookies:
        answer["cookies"] = cookies
    return msgspec.json.encode(answer) + PRELUDE_END


def proxy_response(status: int, headers: Headers, body: bytes, *, multi_value: bool) -> bytes:
    """Return a whole answer as the JSON object that API Gateway's proxy integrations expect."""
    single, cookies = _joined(headers)
    answer: dict[str, Any] = {"statusCode": status, "headers": single}
    if cookies and multi_value:
        answer["multiValueHeaders"] = {"set-cookie": cookies}
    elif cookies:
        answer["cookies"] = cookies
    try:
        # A compressed body must not pass as text, even where its bytes happen to be valid UTF-8.
        text = None if "content-encoding" in single else body.decode()
    except UnicodeDecodeError:
        text = None
    answer["body"] = binascii.b2a_base64(body, newline=False).decode() if text is None else text
    answer["isBase64Encoded"] = text is None
    return msgspec.json.encode(answer)


def ignored(reason: str) -> bytes:
    """Return the answer to an event that is none of our business: a success, or it would come again."""
    return msgspec.json.encode({"ignored": True, "reason": reason})


def _parts_v2(event: _Event, context: _Context, http: _Http) -> _Parts:
    headers = [
        (name.lower(), value)
        for name, value in (event.headers or {}).items()
        if value is not None and not (event.cookies and name.lower() == "cookie")
    ]
    if event.cookies:
        headers.append(("cookie", "; ".join(event.cookies)))
    path = event.raw_path or "/"
    # The HTTP API puts the name of a stage in front of the path; the default stage has no name there.
    stage = f"/{context.stage}"
    if context.stage and (path == stage or path.startswith(stage + "/")):
        path = path[len(stage) :] or "/"
    return _Parts(http.method, path, event.raw_query_string or "", headers, http.source_ip)


def _parts_v1(event: _Event, context: _Context) -> _Parts:
    headers = [(name.lower(), value) for name, value in _pairs(event.multi_value_headers, event.headers)]
    # Format 1.0 carries the parameters decoded.
    query = urlencode(_pairs(event.multi_value_query_string_parameters, event.query_string_parameters))
    address = (context.identity.source_ip if context.identity else None) or ""
    return _Parts(event.http_method or "GET", event.path or "/", query, headers, address)


def _pairs(
    multiple: dict[str, list[str]] | None, single: dict[str, str | None] | None
) -> list[tuple[str, str]]:
    if multiple:
        return [(name, value) for name, values in multiple.items() for value in values]
    return [(name, value) for name, value in (single or {}).items() if value is not None]


def _scope(parts: _Parts, domain: str | None) -> dict[str, Any]:
    scheme = next((value for name, value in parts.headers if name == "x-forwarded-proto"), "https")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": parts.method.upper(),
        "scheme": "http" if scheme == "http" else "https",
        "path": unquote(parts.path),
        "raw_path": quote(parts.path, safe="/%:@!$&'()*+,;=~").encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(_latin(name), _latin(value)) for name, value in parts.headers],
        "client": (parts.address, 0) if parts.address else None,
        "server": (domain or "localhost", 443),
    }


def _latin(text: str) -> bytes:
    """Encode a header as it stood on the wire; what does not fit into Latin-1 was UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _body(event: _Event) -> bytes:
    if not event.body:
        return b""
    return (
        binascii.a2b_base64(event.body, strict_mode=True) if event.is_base64_encoded else event.body.encode()
    )


def _joined(headers: Headers) -> tuple[dict[str, str], list[str]]:
    """Fold repeated headers into one value each; cookies cannot be folded and come back on their own."""
    single: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        else:
            single[name] = f"{single[name]}, {value}" if name in single else value
    return single, cookies


def _shape(event: bytes) -> str:
    """Say what an unknown event looks like, by its keys alone: its values may be private."""
    try:
        keys = sorted(msgspec.json.decode(event, type=dict[str, msgspec.Raw]))
    except msgspec.DecodeError:
        return "the event is not a JSON object"
    return f"the event's keys are {', '.join(keys[:12]) or 'none'}"
