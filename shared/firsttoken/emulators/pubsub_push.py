"""Push a subscription's messages to an HTTP endpoint, as Pub/Sub and Eventarc write them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Literal

import msgspec
from msgspec import Struct

from firsttoken.emulators.child import CONNECTION_FIELDS
from firsttoken.emulators.pubsub_subscription import Lease, Message, Subscription
from firsttoken.errors import FirstTokenError
from firsttoken.providers.http import HttpClient, Timeouts

ACKNOWLEDGED = frozenset({200, 201, 202, 204})
"""Pub/Sub also takes 102, which ends no request in HTTP; every other status has a message delivered again."""
FIRST_WINDOW, LAST_WINDOW = 4, 1000
"""Pushes that are under way at once: doubled by each success, halved by each failure."""
MESSAGE_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e]*")

Form = Literal["wrapped", "unwrapped", "unwrapped-metadata", "cloudevent-binary", "cloudevent-structured"]
Headers = list[tuple[str, str]]
Post = Callable[[str, Headers, bytes, float], Awaitable[int]]
"""Sends headers and body to a URL and returns the status; the last argument is its time in seconds."""


class Target(Struct, frozen=True):
    """Where a subscription pushes to, and in which form; ``name`` and ``topic`` are in full."""

    name: str
    topic: str
    endpoint: str
    form: Form = "wrapped"
    counts: bool = False
    """Whether pushes say how often the message was delivered: only with a dead-letter policy."""


async def push(subscription: Subscription, target: Target, post: Post) -> None:
    """Deliver what is due until cancelled; what is under way then is given back."""
    window, under_way = FIRST_WINDOW, 0
    running: dict[asyncio.Task[None], str] = {}

    async def deliver(lease: Lease) -> None:
        nonlocal window, under_way
        is_acknowledged = False
        try:
            headers, body = write(target, lease.message, lease.attempt)
            status = await post(target.endpoint, headers, body, subscription.rules.ack_deadline)
            is_acknowledged = status in ACKNOWLEDGED
        finally:
            under_way -= 1
            window = min(window * 2, LAST_WINDOW) if is_acknowledged else max(window // 2, 1)
            (subscription.acknowledge if is_acknowledged else subscription.fail)(lease.ack_id)

    try:
        while True:
            room = window - under_way
            # A push ends by itself at the ack deadline: no second end for its lease.
            leases = subscription.take(room, hidden=inf) if room > 0 else []
            under_way += len(leases)
            for lease in leases:
                task = asyncio.create_task(deliver(lease))
                running[task] = lease.ack_id
                task.add_done_callback(running.pop)
            if not leases:
                await subscription.wait(for_due=room > 0)
    finally:
        unfinished = dict(running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for ack_id in unfinished.values():  # a task that had not begun gives nothing back
            subscription.fail(ack_id)


def over_http(client: HttpClient) -> Post:
    """Return what posts with ``client``. An endpoint that does not answer in time counts as a 504."""

    async def post(url: str, headers: Headers, body: bytes, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        try:
            response = await client.request(
                "POST",
                url,
                headers=headers,
                body=body,
                timeouts=Timeouts(first_byte=seconds, gap=seconds),
                deadline=loop.time() + seconds,
            )
            await response.read(1 << 24)
        except FirstTokenError:
            return 504
        return response.status

    return post


def write(target: Target, message: Message, attempt: int) -> tuple[Headers, bytes]:
    """Return the headers and the body of one push."""
    agent = [("user-agent", "CloudPubSub-Google"), ("from", "noreply@google.com")]
    if target.form.startswith("unwrapped"):
        metadata = _metadata(target, message) if target.form == "unwrapped-metadata" else []
        return [("content-type", "application/json"), *agent, *metadata], message.data
    body = _wrapped(target, message, attempt)
    if target.form == "wrapped":
        return [("content-type", "application/json"), *agent], msgspec.json.encode(body)
    event = {
        "specversion": "1.0",
        "id": message.id,
        "source": f"//pubsub.googleapis.com/{target.topic}",
        "type": MESSAGE_PUBLISHED,
        "time": message.time,
    }
    if target.form == "cloudevent-binary":
        fields = [(f"ce-{name}", value) for name, value in event.items()]
        return [("content-type", "application/json"), *agent, *fields], msgspec.json.encode(body)
    content_type = ("content-type", "application/cloudevents+json; charset=utf-8")
    whole = {**event, "datacontenttype": "application/json", "data": body}
    return [content_type, *agent], msgspec.json.encode(whole)


def _wrapped(target: Target, message: Message, attempt: int) -> dict[str, Any]:
    inner: dict[str, Any] = {
        "messageId": message.id,
        "message_id": message.id,
        "publishTime": message.time,
        "publish_time": message.time,
    }
    if message.attributes:
        inner["attributes"] = message.attributes
    if message.data:
        inner["data"] = message.data
    if message.ordering_key:
        inner["orderingKey"] = message.ordering_key
    body = {"message": inner, "subscription": target.name}
    return {**body, "deliveryAttempt": attempt} if target.counts else body


def _metadata(target: Target, message: Message) -> Headers:
    fields = {
        "x-goog-pubsub-subscription-name": target.name,
        "x-goog-pubsub-message-id": message.id,
        "x-goog-pubsub-publish-time": message.time,
        "x-goog-pubsub-ordering-key": message.ordering_key,
    }
    taken = CONNECTION_FIELDS | fields.keys() | {"content-type", "from", "user-agent"}
    own = {name: value for name, value in message.attributes.items() if name.lower() not in taken}
    return [(name, value) for name, value in {**fields, **own}.items() if value and _is_field(name, value)]


def _is_field(name: str, value: str) -> bool:
    return _HEADER.fullmatch(f"{name}: {value}") is not None
