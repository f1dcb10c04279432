"""From settings to a store: the configured kind, and nothing of the others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from firsttoken import stores
from firsttoken.errors import ConfigError
from firsttoken.settings import (
    DynamodbStore,
    MemoryStore,
    RedisStore,
    SqliteStore,
    StoreSettings,
    TablesStore,
)
from firsttoken.stores import Guarded, create_store

IMPORTED = """
import sys
from firsttoken.settings import MemoryStore, RedisStore, SqliteStore
from firsttoken.stores import create_store
create_store({0}())
print(*(set(sys.modules) & {{"sqlite3", "redis", "aioboto3", "botocore", "azure"}}))
"""


@pytest.mark.parametrize(
    "settings",
    [
        MemoryStore(),
        SqliteStore(),
        RedisStore(),
        DynamodbStore(region="eu-central-1"),
        TablesStore(account_url="https://account.table.core.windows.net"),
    ],
    ids=lambda settings: str(settings.__struct_config__.tag),
)
def test_each_kind_has_its_store(settings: StoreSettings) -> None:
    """The settings' type says which store it is; what it promises is known before it is connected."""
    store = create_store(settings, name="digest")
    assert isinstance(store, Guarded)
    assert type(store.inner).__name__ == type(settings).__name__
    assert store.kind == settings.__struct_config__.tag
    assert store.shared is not isinstance(settings, MemoryStore)
    assert store.max_value_bytes >= 32 * 1024
    assert not store.down


@pytest.mark.parametrize("kind", ["MemoryStore", "SqliteStore", "RedisStore"])
def test_nothing_heavy_is_imported_before_it_is_used(kind: str) -> None:
    """Making a store imports neither a client library nor sqlite3: a cold start pays for what it uses."""
    command = [sys.executable, "-c", IMPORTED.format(kind)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("settings", "named"), [(RedisStore(), "redis"), (SqliteStore(), "SQLite")])
def test_a_missing_package_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: StoreSettings, named: str
) -> None:
    """A kind whose package is not installed is a ConfigError at start that says what to install."""
    monkeypatch.setattr(stores, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=named):
        create_store(settings)
    assert create_store(MemoryStore()).kind == "memory"
