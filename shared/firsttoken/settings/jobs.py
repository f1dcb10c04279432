"""Calls that are answered later: which queue they wait in, how long, and how their clients hear of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import NotNegative, Positive, Section, Share

_Endpoint = Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")]


class Jobs(Section, frozen=True):
    """Deferred calls (docs/jobs.md). Times in seconds. They need a ``[queue]``."""

    defer: Literal["asked", "outage"] = "asked"
    """Which calls may become jobs: those whose client says so, or every one that no target can answer."""
    expires: Positive = 3600.0
    """A job that has no answer by then is given up."""
    keep: Positive = 86_400.0
    """How long a finished job and its answer can be fetched."""
    lease: Positive = 30.0
    """After so long without a sign of its worker, another one takes a job."""
    max_attempts: Annotated[int, Meta(ge=1)] = 5
    """Calls of a model for one job, before it goes to the dead letters."""
    retry_after: Positive = 2.0
    """What a client is told to wait before it asks again, and the first delay of a job that failed."""
    max_delay: Positive = 300.0
    """The longest delay of a job that failed, or that waits for its targets."""
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Jobs that one worker process answers at once."""
    worker: bool = True
    """Whether ``firsttoken serve`` answers jobs beside its calls, where the queue can be asked for them."""
    share: Share = 0.5
    """Of the request limit (rpm) of a route's targets, what jobs may use; the rest is for those who wait."""
    rpm: NotNegative = 0.0
    """Jobs a minute over all workers; 0: as ``share`` says, where limits are known."""
    inline_bytes: Annotated[int, Meta(ge=0)] = 256 * 1024
    """A larger request or answer goes to the object storage, if one is configured."""
    encryption_key: str = ""
    """``env:NAME`` of 32 bytes in base64: requests and answers of jobs are encrypted where they are kept."""

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Jobs(defer={self.defer!r}, ...)"


class Webhook(Section, frozen=True):
    """How clients that gave an address are told that their job is finished."""

    secret: str = ""
    """``env:NAME`` of the signing secret (Standard Webhooks, ``whsec_...``); without it none is sent."""
    allow_private: bool = False
    """Whether private, loopback and link-local addresses are called: for development only."""
    timeout: Positive = 10.0
    attempts: Annotated[int, Meta(ge=1, le=20)] = 6
    """Tries, each later than the one before: after 5 s, then five times as long, up to an hour."""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return "Webhook(...)"


class MemoryQueue(Section, frozen=True, tag_field="kind", tag="memory"):
    """In this process only: for tests."""

    entries: Annotated[int, Meta(ge=1)] = 10_000


class SqliteQueue(Section, frozen=True, tag_field="kind", tag="sqlite"):
    """A file that the processes of one machine share, with workers that poll it."""

    path: str = ""
    """Empty: a file for this configuration in the directory for temporary files."""
    max_deliveries: Annotated[int, Meta(ge=1)] = 10
    """A message that was handed out so often without an end goes to the dead letters."""


class SqsQueue(Section, frozen=True, tag_field="kind", tag="sqs"):
    """An SQS standard queue and its dead-letter queue, by URL."""

    url: Annotated[str, Meta(pattern="^https?://[^/?#]+/.+")]
    dead_url: str = ""
    region: str = ""
    endpoint: _Endpoint = ""


class PubsubQueue(Section, frozen=True, tag_field="kind", tag="pubsub"):
    """A Pub/Sub topic with a push subscription, and a dead-letter topic with a pull subscription."""

    topic: Annotated[str, Meta(pattern="^projects/[^/]+/topics/[^/]+$")]
    dead_topic: Annotated[str, Meta(pattern="^(projects/[^/]+/topics/[^/]+)?$")] = ""
    dead_subscription: Annotated[str, Meta(pattern="^(projects/[^/]+/subscriptions/[^/]+)?$")] = ""
    hold: NotNegative = 20.0
    """Seconds that a push is held before its job goes back to the topic, which knows no delay of its own."""
    endpoint: _Endpoint = ""


class StorageQueue(Section, frozen=True, tag_field="kind", tag="storage_queue"):
    """An Azure Storage queue: a connection string (or ``env:NAME``), or the account's URL (identity)."""

    name: Annotated[str, Meta(pattern="^[a-z0-9](?:[a-z0-9]|-(?!-)){1,53}[a-z0-9]$")] = "firsttoken-jobs"
    connection: str = ""
    account_url: _Endpoint = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"StorageQueue(name={self.name!r}, ...)"


class ServiceBusQueue(Section, frozen=True, tag_field="kind", tag="service_bus"):
    """An Azure Service Bus queue: a connection string (or ``env:NAME``), or the namespace (identity)."""

    name: str = "firsttoken-jobs"
    dead_name: str = "firsttoken-jobs-dead"
    connection: str = ""
    namespace: _Endpoint = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"ServiceBusQueue(name={self.name!r}, ...)"


QueueSettings = MemoryQueue | SqliteQueue | SqsQueue | PubsubQueue | StorageQueue | ServiceBusQueue


class StoreObjects(Section, frozen=True, tag_field="kind", tag="store"):
    """In the store itself, in parts: no service of its own is needed."""


class S3Objects(Section, frozen=True, tag_field="kind", tag="s3"):
    """An S3 bucket."""

    bucket: Annotated[str, Meta(min_length=3)]
    prefix: str = "firsttoken/"
    region: str = ""
    endpoint: _Endpoint = ""


class BlobObjects(Section, frozen=True, tag_field="kind", tag="blob"):
    """A container of Azure Blob storage: a connection string (or ``env:NAME``), or the account's URL."""

    container: Annotated[str, Meta(pattern="^[a-z0-9](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]$")] = "firsttoken"
    prefix: str = "firsttoken/"
    connection: str = ""
    account_url: _Endpoint = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"BlobObjects(container={self.container!r}, ...)"


class GcsObjects(Section, frozen=True, tag_field="kind", tag="gcs"):
    """A Cloud Storage bucket."""

    bucket: Annotated[str, Meta(min_length=3)]
    prefix: str = "firsttoken/"
    endpoint: _Endpoint = ""


ObjectSettings = StoreObjects | S3Objects | BlobObjects | GcsObjects
