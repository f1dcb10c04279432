"""Where deferred calls wait for a worker: one protocol (`queue`), a module for each kind."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from firsttoken.errors import ConfigError
from firsttoken.queues.queue import Dead, Delivery, Depth, Queue
from firsttoken.settings import QueueSettings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

__all__ = ["Dead", "Delivery", "Depth", "Queue", "create_queue"]

_NEEDS = {
    "sqs": ("aioboto3", "the extra 'aws'"),
}
"""The package that a kind needs, and how to come by it."""


def create_queue(settings: QueueSettings, client: HttpClient, *, name: str = "") -> Queue:
    """Return the configured queue, importing nothing for the others. Nothing is connected yet.

    ``client`` is for those that are spoken to over plain HTTP; ``name`` is a digest of what must not share an
    SQLite file in the directory for temporary files. Raises ConfigError where a package is missing or a
    setting cannot be used.
    """
    kind = str(settings.__struct_config__.tag)
    package, remedy = _NEEDS.get(kind, ("", ""))
    if package and find_spec(package) is None:
        raise ConfigError(f"queue.kind: {kind!r} needs {remedy}")
    module = import_module(f"{__name__}.{kind}")
    return cast("Queue", module.create(settings, client, name))
