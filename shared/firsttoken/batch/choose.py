"""Which provider answers a batch: the target's own batch API, or we."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, cast

from firsttoken.batch import lines as reading
from firsttoken.batch.batch import Batch
from firsttoken.batch.lines import Line
from firsttoken.batch.provider import BatchProvider, Lines
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.batch.batches import Batches

_MODULES = {"azure": "openai"}
"""Kinds of providers whose module has another name."""


def provider_of(batches: Batches, batch: Batch, until: Callable[[], float] = lambda: inf) -> BatchProvider:
    """Return what answers a batch. ``until``: when no further work is to be begun, on the loop's clock.

    Raises ConfigError where the provider's key cannot be had. A provider's module is imported only here.
    """
    if batch.target:
        name = batch.target.partition("/")[0]
        provider = batches.settings.providers.get(name)
        if provider is None:
            raise ConfigError(f"providers.{name}: expected the provider of a batch that is under way")
        kind = str(provider.__struct_config__.tag)
        module = import_module(f"firsttoken.batch.{_MODULES.get(kind, kind)}")
        return cast("BatchProvider", module.create(batches, batch))
    from firsttoken.batch.local import HANDLE, FanOut, Queued

    lines = lines_of(batches, batch)
    if batches.jobs is not None and batch.handle != HANDLE:  # one that was begun without a queue ends so
        return Queued(batch, lines, batches.own, batches.jobs, until)
    return FanOut(batch, lines, batches.own, batches.stream, until)


def lines_of(batches: Batches, batch: Batch) -> Lines:
    """Return what reads the requests of a batch, which were checked before."""
    return partial(_read, batches, batch)


async def _read(batches: Batches, batch: Batch, start: int) -> AsyncGenerator[Line]:
    pieces = batches.files.content(batch.tenant, batch.input_parts)
    async for line in reading.read(pieces, batches.own.max_line_bytes, start):
        yield line
