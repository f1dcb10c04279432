"""Where large requests, answers and files are kept: one protocol (`objects`), a module for each kind."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from firsttoken.errors import ConfigError
from firsttoken.objects.objects import Objects
from firsttoken.settings import ObjectSettings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient
    from firsttoken.stores.store import Store

__all__ = ["Objects", "create_objects"]

_NEEDS = {"s3": ("aioboto3", "the extra 'aws'")}
"""The package that a kind needs, and how to come by it."""


def create_objects(settings: ObjectSettings, client: HttpClient, store: Store) -> Objects:
    """Return the configured object storage, importing nothing for the others. Nothing is connected yet.

    ``client`` is for those that are spoken to over plain HTTP. Raises ConfigError where a package is missing
    or a setting cannot be used.
    """
    kind = str(settings.__struct_config__.tag)
    package, remedy = _NEEDS.get(kind, ("", ""))
    if package and find_spec(package) is None:
        raise ConfigError(f"objects.kind: {kind!r} needs {remedy}")
    module = import_module(f"{__name__}.{kind}")
    return cast("Objects", module.create(settings, client, store))
