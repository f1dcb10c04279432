"""Where the state that instances share is kept."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from firsttoken.settings.base import Positive, Section


class _Store(Section, frozen=True, kw_only=True):
    prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{0,40}$")] = "firsttoken"
    """Of all keys, so that several deployments can share one store."""
    timeout: Positive = 0.25
    """Seconds that any one operation may take."""


class MemoryStore(_Store, frozen=True, tag_field="kind", tag="memory"):
    """In this process only."""

    entries: Annotated[int, Meta(ge=16)] = 10_000
    """Beyond it, what was used least recently goes."""


class SqliteStore(_Store, frozen=True, tag_field="kind", tag="sqlite"):
    """A file that the processes of one machine share."""

    path: str = ""
    """Empty: a file for this configuration in the directory for temporary files."""


class RedisStore(_Store, frozen=True, tag_field="kind", tag="redis"):
    """Redis or Valkey. ``url`` may be ``env:NAME``."""

    url: str = "redis://127.0.0.1:6379/0"

    def __repr__(self) -> str:
        """Leave the secret out."""
        return "RedisStore(...)"


class DynamodbStore(_Store, frozen=True, tag_field="kind", tag="dynamodb"):
    """One DynamoDB table with the string partition key ``pk`` and TTL on ``expires``."""

    table: str = "firsttoken"
    region: str = ""
    endpoint: Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")] = ""


class TablesStore(_Store, frozen=True, tag_field="kind", tag="tables"):
    """Azure Table storage: a connection string (or ``env:NAME``), or the account's URL with an identity."""

    table: Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9]{2,62}$")] = "firsttoken"
    connection: str = ""
    account_url: Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")] = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return "TablesStore(...)"


StoreSettings = MemoryStore | SqliteStore | RedisStore | DynamodbStore | TablesStore
