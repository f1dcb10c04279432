"""A Pub/Sub topic that pushes to a function, and a dead-letter topic with a pull subscription.

Everything goes over the REST API with the gateway's own HTTP client. ``PUBSUB_EMULATOR_HOST`` is honoured as
Google's libraries do, where no endpoint is configured; plain HTTP is spoken without a token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from firsttoken.errors import FirstTokenError, QueueError
from firsttoken.providers.google_api import GoogleApi
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.settings import PubsubQueue as Settings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

ENDPOINT = "https://pubsub.googleapis.com"
MAX_BODY_BYTES = 7 * 1024 * 1024
"""In base64, with its attributes, it still fits into the 10 MB of one publish request."""
MAX_ATTRIBUTE_BYTES = 1024
BATCH = 100
"""Dead letters that are moved at once: they must be finished before the subscription's ack deadline."""
_COUNT = "CloudPubSubDeadLetterSourceDeliveryCount"


class _Named(Struct):
    id: str
    tenant: str


_named = msgspec.json.Decoder(_Named)


class _Message(Struct, rename="camel"):
    message_id: str
    data: bytes = b""
    attributes: dict[str, str] = {}
    publish_time: str = ""


class _Received(Struct, rename="camel"):
    ack_id: str
    message: _Message


class _Pulled(Struct):
    messages: list[_Received] = field(name="receivedMessages", default_factory=list)


_pulled = msgspec.json.Decoder(_Pulled)


class PubsubQueue:
    """Messages of up to 7 MiB; see `Queue`. No state but connections, which are the client's.

    Pub/Sub knows no delay: a worker holds the push that it answers for ``queue.hold`` before it sends again.
    """

    pulls = False
    max_body_bytes = MAX_BODY_BYTES
    max_delay = 0.0

    def __init__(self, settings: Settings, api: GoogleApi) -> None:
        self._settings = settings
        self._api = api

    async def send(self, body: bytes, delay: float = 0.0) -> None:  # noqa: ARG002 - no delay is kept
        """Publish a message, with its job and tenant as attributes; see `Queue`."""
        _check(body)
        await self._publish(self._settings.topic, [_to_publish(body)])

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:  # noqa: ARG002
        """Raise QueueError: Pub/Sub pushes."""
        raise QueueError("Pub/Sub pushes its messages; expected no worker that pulls them.")

    async def extend(self, delivery: Delivery, hidden: float) -> bool:  # noqa: ARG002
        """Return True: a push stays hidden until it is answered, or the ack deadline is over."""
        return True

    async def done(self, delivery: Delivery) -> None:
        """Do nothing: the answer to a push acknowledges it."""

    async def bury(self, body: bytes, reason: str) -> None:
        """Publish a message to the dead-letter topic; the reason is cut to 1024 bytes; see `Queue`."""
        _check(body)
        await self._publish(
            self._setting("dead_topic"), [_to_publish(body, reason=_cut(reason) or "no reason given")]
        )

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Pull dead letters and give them back; see `Queue`.

        Nobody else sees them for that moment, and each look counts as a delivery.
        """
        found: dict[str, _Received] = {}
        pulled: list[_Received] = []
        try:
            while len(found) < limit:
                known = len(found)
                pulled += (batch := await self._pull(min(BATCH, limit - known)))
                found.update({received.message.message_id: received for received in batch})
                if len(found) == known:
                    break
        finally:
            await self._give_back(pulled)
        return [_dead(received.message) for received in found.values()]

    async def redrive(self, limit: int) -> int:
        """Publish dead letters to the topic, then acknowledge them; see `Queue`."""
        return await self._finish(limit, again=True)

    async def purge_dead(self, limit: int) -> int:
        """Pull dead letters and acknowledge them; see `Queue`."""
        return await self._finish(limit, again=False)

    async def depth(self) -> Depth:
        """Return an empty answer: only Cloud Monitoring counts messages, minutes later."""
        return Depth()

    async def aclose(self) -> None:
        """Do nothing: the connections are the client's."""

    async def _finish(self, limit: int, *, again: bool) -> int:
        finished = 0
        while finished < limit and (pulled := await self._pull(min(BATCH, limit - finished))):
            unique = {received.message.message_id: received.message for received in pulled}
            try:
                if again:
                    for message in unique.values():
                        await self._publish(self._settings.topic, [_to_publish(message.data)])
            except QueueError:
                await self._give_back(pulled)
                raise
            await self._on_subscription("acknowledge", ackIds=[received.ack_id for received in pulled])
            finished += len(unique)
        return finished

    async def _pull(self, limit: int) -> list[_Received]:
        # Deprecated for those who poll; without it an empty subscription keeps the request for minutes.
        answer = await self._on_subscription("pull", maxMessages=limit, returnImmediately=True)
        try:
            return _pulled.decode(answer or b"{}").messages
        except msgspec.DecodeError as error:
            raise _failed("sent what is no answer", str(error)) from error

    async def _give_back(self, pulled: Sequence[_Received]) -> None:
        """Have messages delivered again at once; where that fails, their ack deadline does it."""
        if pulled:
            with suppress(QueueError):
                ids = [received.ack_id for received in pulled]
                await self._on_subscription("modifyAckDeadline", ackIds=ids, ackDeadlineSeconds=0)

    async def _publish(self, topic: str, messages: list[dict[str, Any]]) -> None:
        await self._call(f"{topic}:publish", {"messages": messages})

    async def _on_subscription(self, method: str, **fields: Any) -> bytes:
        return await self._call(f"{self._setting('dead_subscription')}:{method}", fields)

    async def _call(self, name: str, content: Mapping[str, Any]) -> bytes:
        path = f"/v1/{quote(name, safe='/:')}"
        try:
            answer = await self._api.call("POST", path, msgspec.json.encode(content))
        except FirstTokenError as error:
            raise _failed("did not answer", f"{name}: {error}") from error
        if answer.status != 200:
            raise _failed(f"answered {answer.status}", f"{name}: {answer}")
        return answer.body

    def _setting(self, name: str) -> str:
        value: str = getattr(self._settings, name)
        if not value:
            raise QueueError(f"queue.{name} is not set: there is no place for dead letters.")
        return value


def create(settings: Settings, client: HttpClient, _name: str) -> PubsubQueue:
    """Return the queue of a topic. Raises ConfigError without the library that gets tokens."""
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST", "")
    endpoint = settings.endpoint or (f"http://{emulator}" if emulator else ENDPOINT)
    return PubsubQueue(settings, GoogleApi(client, endpoint, setting="queue.kind"))


def _to_publish(body: bytes, **more: str) -> dict[str, Any]:
    attributes = dict(more)
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        named = _named.decode(body)
        attributes |= {"id": _cut(named.id), "tenant": _cut(named.tenant)}
    return {"data": body, "attributes": {name: value for name, value in attributes.items() if value}}


def _cut(text: str) -> str:
    """Return the text in as many bytes as an attribute may have."""
    return text.encode(errors="replace")[:MAX_ATTRIBUTE_BYTES].decode(errors="ignore")


def _check(body: bytes) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"The message has {len(body)} bytes; expected at most {MAX_BODY_BYTES}.")


def _dead(message: _Message) -> Dead:
    reason = message.attributes.get("reason", "")
    if not reason and (count := message.attributes.get(_COUNT)):
        reason = f"handed out {count} times"
    at = 0.0
    with suppress(ValueError):
        at = datetime.fromisoformat(message.publish_time).timestamp()
    return Dead(message.data, message.message_id, reason, at)


def _failed(what: str, detail: str) -> QueueError:
    error = QueueError(f"Pub/Sub {what}.")
    error.add_note(detail)
    return error
