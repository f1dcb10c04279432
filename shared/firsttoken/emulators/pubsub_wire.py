"""What requests to the local Pub/Sub look like, and what Pub/Sub refuses in them."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, TypeVar, cast, get_args

import msgspec
from msgspec import Struct

from firsttoken.emulators.pubsub_push import Form
from firsttoken.emulators.pubsub_subscription import PUSH_BACKOFF, Lease, Message, Rules

T = TypeVar("T")

MAX_MESSAGES = 1000
FORM = "x-firsttoken-form"
"""The attribute of a push configuration that asks for a CloudEvent, which Eventarc would make of a push."""
_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][\w.~+%-]{2,254}", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


class PubsubError(Exception):
    """An answer that is no success, as Google's APIs write it."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Published(Struct, rename="camel"):
    """A message as its publisher wrote it."""

    data: bytes = b""
    attributes: dict[str, str] = {}
    ordering_key: str = ""


class Publish(Struct):
    """The body of ``publish``."""

    messages: list[Published]


class RetryPolicy(Struct, rename="camel"):
    """How long a message that failed waits."""

    minimum_backoff: str = "10s"
    maximum_backoff: str = "600s"


class DeadLetterPolicy(Struct, rename="camel"):
    """Where a message goes that failed too often."""

    dead_letter_topic: str
    max_delivery_attempts: int = 0


class NoWrapper(Struct, rename="camel"):
    """The message itself is the body of a push."""

    write_metadata: bool = False


class PushConfig(Struct, rename="camel", omit_defaults=True):
    """Where and how to push; without an endpoint messages are pulled."""

    push_endpoint: str = ""
    attributes: dict[str, str] = {}
    no_wrapper: NoWrapper | None = None

    @property
    def form(self) -> Form:
        """Return the form of a push's body."""
        if self.no_wrapper:
            return "unwrapped-metadata" if self.no_wrapper.write_metadata else "unwrapped"
        return cast("Form", self.attributes.get(FORM, "wrapped"))


class ModifyPush(Struct, rename="camel"):
    """The body of ``modifyPushConfig``."""

    push_config: PushConfig


class Config(Struct, rename="camel", omit_defaults=True):
    """A subscription."""

    topic: str
    name: str = ""
    push_config: PushConfig = msgspec.field(default_factory=PushConfig)
    ack_deadline_seconds: int = 10
    retry_policy: RetryPolicy | None = None
    dead_letter_policy: DeadLetterPolicy | None = None


class Pull(Struct, rename="camel"):
    """The body of ``pull``."""

    max_messages: int
    return_immediately: bool = False


class Acks(Struct, rename="camel"):
    """The body of ``acknowledge``."""

    ack_ids: list[str]


class Deadlines(Struct, rename="camel"):
    """The body of ``modifyAckDeadline``."""

    ack_ids: list[str]
    ack_deadline_seconds: int


def decode(body: bytes, shape: type[T]) -> T:
    """Read the body of a request. Raises PubsubError."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise invalid(f"Invalid JSON payload received: {error}") from error


def check_name(name: str, taken: Container[str]) -> None:
    """Raise PubsubError unless ``name`` may be given to something new."""
    if _NAME.fullmatch(name) is None:
        raise invalid(f"Invalid resource name given (name={name}).")
    if name in taken:
        raise PubsubError(409, "ALREADY_EXISTS", f"Resource already exists (resource={name}).")


def check_messages(messages: list[Published]) -> None:
    """Raise PubsubError for messages that Pub/Sub does not take."""
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise invalid(f"A publish request has 1 to {MAX_MESSAGES} messages.")
    for message in messages:
        if not message.data and not message.attributes:
            raise invalid("Some messages in the batch have neither data nor attributes.")
        if len(message.attributes) > 100:
            raise invalid("A message has at most 100 attributes.")
        for name, value in message.attributes.items():
            if not 1 <= len(name.encode()) <= 256 or name.startswith("goog"):
                raise invalid("An attribute's name has 1 to 256 bytes and does not begin with goog.")
            if len(value.encode()) > 1024:
                raise invalid("An attribute's value has at most 1024 bytes.")


def rules_of(config: Config) -> Rules:
    """Return what a subscription does with messages, and write its defaults into ``config``.

    Raises PubsubError for values that Pub/Sub does not take.
    """
    config.ack_deadline_seconds = config.ack_deadline_seconds or 10
    if not 10 <= config.ack_deadline_seconds <= 600:
        raise invalid("ackDeadlineSeconds must be from 10 to 600.")
    if config.push_config.form not in get_args(Form):
        raise invalid(f"{FORM}: expected one of {', '.join(get_args(Form))}.")
    backoff = PUSH_BACKOFF if config.push_config.push_endpoint else (0.0, 0.0)
    if config.retry_policy:
        backoff = (
            _seconds(config.retry_policy.minimum_backoff),
            _seconds(config.retry_policy.maximum_backoff),
        )
    most = None
    if config.dead_letter_policy:
        most = config.dead_letter_policy.max_delivery_attempts or 5
        config.dead_letter_policy.max_delivery_attempts = most
        if not 5 <= most <= 100:
            raise invalid("maxDeliveryAttempts must be from 5 to 100.")
    return Rules(config.ack_deadline_seconds, backoff, most)


def buried(config: Config, message: Message, attempts: int) -> Published:
    """Return a message as Pub/Sub publishes it to the dead-letter topic."""
    _, project, _, short = config.name.split("/")
    source = {
        "CloudPubSubDeadLetterSourceDeliveryCount": str(attempts),
        "CloudPubSubDeadLetterSourceSubscription": short,
        "CloudPubSubDeadLetterSourceSubscriptionProject": project,
        "CloudPubSubDeadLetterSourceTopicPublishTime": message.time,
    }
    return Published(message.data, {**message.attributes, **source}, message.ordering_key)


def pulled(config: Config, lease: Lease) -> dict[str, Any]:
    """Return a message as ``pull`` answers it."""
    message = lease.message
    inner: dict[str, Any] = {"messageId": message.id, "publishTime": message.time}
    inner |= {"data": message.data} if message.data else {}
    inner |= {"attributes": message.attributes} if message.attributes else {}
    inner |= {"orderingKey": message.ordering_key} if message.ordering_key else {}
    counts = {"deliveryAttempt": lease.attempt} if config.dead_letter_policy else {}
    return {"ackId": lease.ack_id, "message": inner, **counts}


def invalid(message: str) -> PubsubError:
    """Return the error for a request that is wrong."""
    return PubsubError(400, "INVALID_ARGUMENT", message)


def missing(name: str) -> PubsubError:
    """Return the error for a topic or subscription that is not there."""
    return PubsubError(404, "NOT_FOUND", f"Resource not found (resource={name.rpartition('/')[2]}).")


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) > 600:
        raise invalid(f"Invalid duration {text!r}; expected seconds from 0 to 600, such as '10s'.")
    return float(match[1])
