"""How Google Cloud hands a Pub/Sub message to a function over HTTP.

The same message comes in one of four envelopes: a push request (wrapped, or unwrapped with its metadata in
headers), or a CloudEvent as Eventarc sends it (binary or structured mode), whose data is then usually a
wrapped push again. functions-framework's own CloudEvent signature takes only the last two on its ASGI side,
so this module reads all of them.

Who may call is the platform's business: deploy these functions without ``--allow-unauthenticated``, and Cloud
Run itself checks the identity token of every push.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from firsttoken.errors import FirstTokenError, RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")
_EXPECTED = (
    'expected a Pub/Sub push ({"message": {"data": "<base64>", ...}, "subscription": ...}, or unwrapped with '
    "x-goog-pubsub-message-id) or a CloudEvent (ce-id, ce-source, ce-type and ce-specversion headers, or "
    "application/cloudevents+json)"
)
_UNWRAPPED = "x-goog-pubsub-"
MAX_PUSH_SECONDS = 600.0
"""The longest ack deadline: a push ends with it, and Pub/Sub does not tell which one is set."""


class PushMessage(Struct, frozen=True):
    """A Pub/Sub message, whatever it came in.

    ``attempt`` counts deliveries from 1 where Pub/Sub says so (wrapped pushes of subscriptions with a
    dead-letter topic). ``attributes`` of an unwrapped push are left out: they are plain HTTP headers that
    nothing tells from the others.
    """

    data: bytes
    id: str
    attributes: dict[str, str] = {}
    attempt: int | None = None
    subscription: str = ""
    source: str = ""


class _Message(Struct):
    id: str = field(name="messageId")
    data: bytes = b""
    attributes: dict[str, str] = {}


class _Push(Struct):
    message: _Message
    subscription: str = ""
    attempt: int | None = field(name="deliveryAttempt", default=None)


class _CloudEvent(Struct):
    id: str
    source: str
    type: str
    specversion: str
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: bytes | None = None


def read_message(headers: Mapping[str, str], body: bytes) -> PushMessage:
    """Return the Pub/Sub message in a request; ``headers`` are looked up by lower-case name.

    Raises `RequestError` naming what was expected.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/cloudevents+json":
        event = _decode(body, _CloudEvent, "structured CloudEvent")
        data = event.data_base64 if event.data_base64 is not None else _json_data(event.data)
        return _from_event(event.id, event.source, data)
    if "ce-id" in headers:
        missing = [name for name in ("ce-source", "ce-type", "ce-specversion") if not headers.get(name)]
        if missing:
            raise RequestError(f"binary CloudEvent without {', '.join(missing)}: {_EXPECTED}")
        return _from_event(headers["ce-id"], headers["ce-source"], body)
    if _UNWRAPPED + "message-id" in headers:
        return PushMessage(
            data=body,
            id=headers[_UNWRAPPED + "message-id"],
            subscription=headers.get(_UNWRAPPED + "subscription-name", ""),
        )
    return _from_push(_decode(body, _Push, "push request"), "")


class Answer(Protocol):
    """What answers a message."""

    def __call__(self, body: bytes, *, delivered: int, deadline: float) -> Awaitable[dict[str, Any]]:
        """Return what came of it, or raise a FirstTokenError to have it delivered again.

        ``delivered`` counts deliveries from 1, where Pub/Sub does (it needs a dead-letter topic for that);
        ``deadline`` is when the push ends, on the event loop's clock.
        """


async def answer_push(request: Request, answer: Answer) -> tuple[dict[str, Any], int]:
    """Answer a Pub/Sub delivery: 200 acknowledges it, the status of an error has it delivered again."""
    seconds = min(request_timeout() or MAX_PUSH_SECONDS, MAX_PUSH_SECONDS)
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        message = read_message(request.headers, await request.body())
        return await answer(message.data, delivered=message.attempt or 1, deadline=deadline), 200
    except FirstTokenError as error:
        # Pub/Sub delivers again on every status but a success: this one speaks to whoever reads the log.
        body = {"message": str(error), "type": error.type, "param": error.param, "code": error.code}
        return {"error": body}, error.status


def request_timeout(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds that Cloud Run grants a request, or None where the deployment does not say.

    The platform tells the container nothing; the variable is the one that functions-framework itself reads.
    """
    seconds = float(environ.get("CLOUD_RUN_TIMEOUT_SECONDS") or 0)
    return seconds if seconds > 0 else None


def _from_event(event_id: str, source: str, data: bytes) -> PushMessage:
    """Read a CloudEvent's data: a wrapped push from Eventarc, or the message itself from anybody else."""
    try:
        push = msgspec.json.decode(data, type=_Push)
    except msgspec.DecodeError:
        return PushMessage(data=data, id=event_id, source=source)
    return _from_push(push, source)


def _from_push(push: _Push, source: str) -> PushMessage:
    return PushMessage(
        data=push.message.data,
        id=push.message.id,
        attributes=push.message.attributes,
        attempt=push.attempt,
        subscription=push.subscription,
        source=source,
    )


def _json_data(raw: msgspec.Raw) -> bytes:
    """Return the data of a structured CloudEvent: JSON stays JSON, a JSON string is its text."""
    data = bytes(raw)
    return str(msgspec.json.decode(data)).encode() if data.startswith(b'"') else data


def _decode(body: bytes, shape: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise RequestError(f"not a {name} ({error}): {_EXPECTED}") from error
