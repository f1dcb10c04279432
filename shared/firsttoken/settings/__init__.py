"""Every setting there is, as frozen, validated values. `config` reads them from file and environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from firsttoken.settings.base import Positive, Section
from firsttoken.settings.batch import Batch, BedrockBatch
from firsttoken.settings.cache import Cache, Prefix, Semantic
from firsttoken.settings.jobs import (
    BlobObjects,
    GcsObjects,
    Jobs,
    MemoryQueue,
    ObjectSettings,
    PubsubQueue,
    QueueSettings,
    S3Objects,
    ServiceBusQueue,
    SqliteQueue,
    SqsQueue,
    StorageQueue,
    StoreObjects,
    Webhook,
)
from firsttoken.settings.policies import (
    Alerts,
    Breaker,
    Coalesce,
    Hedge,
    Idempotency,
    Limit,
    Resume,
    Retry,
    Throttle,
    Timeouts,
)
from firsttoken.settings.providers import (
    AnthropicProvider,
    AzureProvider,
    BedrockProvider,
    GeminiProvider,
    HttpProvider,
    LocalProvider,
    OpenAIProvider,
    Provider,
    SimulatedProvider,
    VertexProvider,
)
from firsttoken.settings.routes import (
    Embedding,
    Route,
    Rung,
    Target,
    TargetName,
    Weighted,
)
from firsttoken.settings.stores import (
    DynamodbStore,
    MemoryStore,
    RedisStore,
    SqliteStore,
    StoreSettings,
    TablesStore,
)
from firsttoken.settings.telemetry import Telemetry

__all__ = [
    "Alerts",
    "AnthropicProvider",
    "Auth",
    "AzureProvider",
    "Batch",
    "BedrockBatch",
    "BedrockProvider",
    "BlobObjects",
    "Breaker",
    "Cache",
    "Coalesce",
    "DynamodbStore",
    "Embedding",
    "GcsObjects",
    "GeminiProvider",
    "Hedge",
    "HttpProvider",
    "Idempotency",
    "Jobs",
    "Limit",
    "LocalProvider",
    "MemoryQueue",
    "MemoryStore",
    "ObjectSettings",
    "OpenAIProvider",
    "Prefix",
    "Provider",
    "PubsubQueue",
    "QueueSettings",
    "RedisStore",
    "Resume",
    "Retry",
    "Route",
    "Rung",
    "S3Objects",
    "Semantic",
    "Server",
    "ServiceBusQueue",
    "Settings",
    "SimulatedProvider",
    "SqliteQueue",
    "SqliteStore",
    "SqsQueue",
    "StorageQueue",
    "StoreObjects",
    "StoreSettings",
    "TablesStore",
    "Target",
    "TargetName",
    "Telemetry",
    "Throttle",
    "Timeouts",
    "VertexProvider",
    "Webhook",
    "Weighted",
]


class Server(Section, frozen=True):
    """Limits of the HTTP side."""

    max_body_bytes: Annotated[int, Meta(ge=1024)] = 4 * 1024 * 1024
    max_json_depth: Annotated[int, Meta(ge=4)] = 64
    heartbeat_seconds: Positive = 15.0
    log: bool = True


class Auth(Section, frozen=True):
    """Who may call. ``keys`` maps a tenant to the SHA-256 digests (hex) of its API keys.

    ``auto`` asks for a key when deployed and not on loopback.
    """

    mode: Literal["auto", "on", "off"] = "auto"
    keys: dict[str, list[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]]] = {}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be configured."""

    server: Server = Server()
    auth: Auth = Auth()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    throttle: Throttle = Throttle()
    limit: Limit = Limit()
    hedge: Hedge = Hedge()
    resume: Resume = Resume()
    coalesce: Coalesce = Coalesce()
    idempotency: Idempotency = Idempotency()
    alerts: Alerts = Alerts()
    telemetry: Telemetry = Telemetry()
    cache: Cache = Cache()
    semantic: Semantic = Semantic()
    prefix: Prefix = Prefix()
    jobs: Jobs = Jobs()
    webhook: Webhook = Webhook()
    batch: Batch = Batch()
    queue: QueueSettings | None = None
    """Without one there are no jobs."""
    objects: ObjectSettings = StoreObjects()
    store: StoreSettings = MemoryStore()
    providers: dict[str, Provider] = {}
    targets: dict[str, Target] = {}
    models: dict[str, Route] = {}
    embeddings: dict[str, Embedding] = {}
