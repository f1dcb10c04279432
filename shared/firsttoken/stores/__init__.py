"""Where instances keep what they share: one protocol (`store`), five kinds, one guard around each."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from firsttoken.errors import ConfigError
from firsttoken.settings import StoreSettings
from firsttoken.stores.guarded import Guarded
from firsttoken.stores.store import Store

__all__ = ["Guarded", "Store", "create_store"]

_NEEDS = {
    "sqlite": ("_sqlite3", "a Python that was built with SQLite"),
    "redis": ("redis", "the extra 'redis'"),
    "dynamodb": ("aioboto3", "the extra 'aws'"),
}
"""The package that a kind needs, and how to come by it."""


def create_store(settings: StoreSettings, *, name: str = "") -> Guarded:
    """Return the configured store, importing nothing for the others. Nothing is connected yet.

    ``name`` is a digest of what must not share an SQLite file in the directory for temporary files. Raises
    ConfigError where a package is missing or a setting cannot be used.
    """
    kind = str(settings.__struct_config__.tag)
    package, remedy = _NEEDS.get(kind, ("", ""))
    if package and find_spec(package) is None:
        raise ConfigError(f"store.kind: {kind!r} needs {remedy}")
    factory = getattr(import_module(f"{__name__}.{kind}"), f"{kind.capitalize()}Store")
    store = factory(settings, name=name) if kind == "sqlite" else factory(settings)
    return Guarded(cast("Store", store), settings)
