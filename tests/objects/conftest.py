"""The object storage under test: every kind of every file ``kinds_*.py`` beside this one; see kinds.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from firsttoken.objects import Objects
from tests.objects.kinds import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for path in sorted(Path(__file__).parent.glob("kinds_*.py"))
    for kind in import_module(f"tests.objects.{path.stem}").KINDS
}
LIMIT = 60.0
"""Seconds that a test may truly take."""


@dataclass
class Subject:
    """An object storage of some kind, and the loop that it lives in."""

    kind: Kind
    objects: Objects
    run: Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of object storage."""
    return KINDS[request.param]


@pytest.fixture
def subject(kind: Kind, tmp_path: Path) -> Iterator[Subject]:
    """An empty object storage of the kind."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:

        async def bounded(work: Coroutine[Any, Any, Any]) -> Any:
            async with asyncio.timeout(LIMIT):
                return await work

        objects = runner.run(stack.enter_async_context(kind.open(tmp_path)))
        try:
            yield Subject(kind, objects, lambda work: runner.run(bounded(work)))
        finally:
            runner.run(stack.aclose())
