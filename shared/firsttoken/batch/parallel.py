"""Many calls at once, within bounds: fan out and in, the first success, a quorum, a graph of dependencies.

All of them work with functions that return awaitables, start no more than they are allowed to, keep partial
results, and leave no task behind: what is not needed any more is cancelled, and waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from graphlib import CycleError, TopologicalSorter
from math import inf
from typing import Any, Generic, TypeVar, cast

from msgspec import Struct

from firsttoken.errors import DeadlineError

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[], Awaitable[T]]
LIMIT = 8
_NO_TIME = "The time for this was used up before it was done."


class Outcome(Struct, Generic[T], frozen=True):
    """What came of one item: a value, or an error. ``index`` is its place among the items."""

    index: int
    value: T | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Return whether there is a value."""
        return self.error is None

    def result(self) -> T:
        """Return the value. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class SkippedError(Exception):
    """A node of a graph was not started, because one that it needs failed."""


class Node(Struct, Generic[T], frozen=True):
    """A step of a graph: ``do`` gets the values of the nodes that it ``needs``, by name."""

    do: Callable[[Mapping[str, Any]], Awaitable[T]]
    needs: Sequence[str] = ()


async def as_done(
    items: Iterable[R], do: Callable[[R], Awaitable[T]], *, limit: int = LIMIT, seconds: float = inf
) -> AsyncGenerator[Outcome[T]]:
    """Do ``do(item)`` for all items, ``limit`` at a time, and yield each outcome as soon as it is there.

    Items are taken as they are needed, so there may be any number of them: memory is that of ``limit`` tasks.
    After ``seconds`` those that run are cancelled and yielded with a DeadlineError; no other is started.
    Closing the generator cancels what runs.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1")
    end = asyncio.get_running_loop().time() + seconds
    waiting = enumerate(items)
    running: dict[asyncio.Task[T], int] = {}
    try:
        while True:
            while len(running) < limit and (following := next(waiting, None)) is not None:
                running[_start(do(following[1]))] = following[0]
            if not running:
                return
            done = await _some(running, end)
            for task in done:
                yield _outcome(running.pop(task), task)
            if not done:
                for task, index in list(running.items()):
                    del running[task]
                    await _stop([task])
                    yield Outcome(index, error=DeadlineError(_NO_TIME))
                return
    finally:
        await _stop(running)


async def gather(
    items: Iterable[R],
    do: Callable[[R], Awaitable[T]],
    *,
    limit: int = LIMIT,
    seconds: float = inf,
    fail_fast: bool = False,
) -> list[Outcome[T]]:
    """Do ``do(item)`` for all items, ``limit`` at a time, and return the outcomes in the items' order.

    What failed, or was not done after ``seconds``, is among them with its error. With ``fail_fast`` the first
    error cancels the rest and is raised.
    """
    listed = list(items)
    found: dict[int, Outcome[T]] = {}
    async with aclosing(as_done(listed, do, limit=limit, seconds=seconds)) as outcomes:
        async for outcome in outcomes:
            if fail_fast:
                outcome.result()
            found[outcome.index] = outcome
    late: Outcome[T] = Outcome(0, error=DeadlineError(_NO_TIME))
    return [found.get(index) or Outcome(index, error=late.error) for index in range(len(listed))]


async def first(calls: Sequence[Work[T]], *, stagger: float = 0.0) -> T:
    """Return the value of the first call that succeeds; the others are cancelled.

    Each starts ``stagger`` seconds after the one before it, or as soon as one has failed. Raises an
    ExceptionGroup of all errors when none succeeds, and ValueError when there are none.
    """
    if not calls:
        raise ValueError("there are no calls; expected at least one")
    waiting = iter(calls)
    running: dict[asyncio.Task[T], int] = {}
    errors: list[Exception] = []
    loop = asyncio.get_running_loop()
    try:
        following = next(waiting, None)
        while following is not None or running:
            if following is not None:
                running[_start(following())] = len(running)
                following = next(waiting, None)
            until = loop.time() + stagger if following is not None else inf
            for task in await _some(running, until):
                del running[task]
                error = _error_of(task)
                if error is None:
                    return task.result()
                errors.append(error)
    finally:
        await _stop(running)
    raise ExceptionGroup("no call succeeded", errors)


async def quorum(calls: Sequence[Work[T]], need: int, *, key: Callable[[T], Hashable] | None = None) -> T:
    """Return the first value that ``need`` of the calls agree on; the others are cancelled.

    Values agree when they are equal, or when ``key`` of them is. Raises an ExceptionGroup as soon as no value
    can reach ``need`` any more.
    """
    if not 1 <= need <= len(calls):
        raise ValueError(f"need is {need}; expected 1 to {len(calls)}, the number of calls")
    running = dict.fromkeys([_start(call()) for call in calls], 0)
    votes: Counter[Hashable] = Counter()
    errors: list[Exception] = []
    try:
        while max(votes.values(), default=0) + len(running) >= need:
            for task in await _some(running, inf):
                del running[task]
                if (error := _error_of(task)) is not None:
                    errors.append(error)
                    continue
                value = task.result()
                vote = key(value) if key else cast("Hashable", value)
                votes[vote] += 1
                if votes[vote] == need:
                    return value
    finally:
        await _stop(running)
    most = max(votes.values(), default=0)
    split = ValueError(f"{most} of {len(calls)} calls agree; expected {need}")
    raise ExceptionGroup("no quorum", [*errors, split])


async def graph(
    nodes: Mapping[str, Node[Any]], *, limit: int = LIMIT, seconds: float = inf
) -> dict[str, Outcome[Any]]:
    """Do all nodes, each as soon as those that it needs are done, ``limit`` at a time.

    Returns the outcomes by name. What needs a node that failed is not done: SkippedError. After ``seconds``
    what is not done has a DeadlineError. Raises ValueError for an unknown name and for a circle.
    """
    order = _ordered(nodes)
    names = list(nodes)
    found: dict[str, Outcome[Any]] = {}
    running: dict[asyncio.Task[Any], str] = {}
    ready: list[str] = []
    end = asyncio.get_running_loop().time() + seconds
    try:
        while order.is_active():
            ready += order.get_ready()
            ready = _skip(ready, nodes, names, found, order)
            while ready and len(running) < limit:
                name = ready.pop(0)
                running[_start(nodes[name].do({need: found[need].value for need in nodes[name].needs}))] = (
                    name
                )
            if not running:
                continue
            done = await _some(running, end)
            if not done:
                break
            for task in done:
                name = running.pop(task)
                found[name] = _outcome(names.index(name), task)
                order.done(name)
    finally:
        await _stop(running)
    late = DeadlineError(_NO_TIME)
    return {name: found.get(name) or Outcome(number, error=late) for number, name in enumerate(names)}


def _skip(
    ready: list[str],
    nodes: Mapping[str, Node[Any]],
    names: list[str],
    found: dict[str, Outcome[Any]],
    order: TopologicalSorter[str],
) -> list[str]:
    """Mark what cannot be done, and return the rest."""
    rest: list[str] = []
    for name in ready:
        failed = [need for need in nodes[name].needs if not found[need].ok]
        if not failed:
            rest.append(name)
            continue
        error = SkippedError(f"{name} was not started: it needs {failed[0]}, which failed")
        error.__cause__ = found[failed[0]].error
        found[name] = Outcome(names.index(name), error=error)
        order.done(name)
    return rest


def _ordered(nodes: Mapping[str, Node[Any]]) -> TopologicalSorter[str]:
    for name, node in nodes.items():
        for need in node.needs:
            if need not in nodes:
                raise ValueError(f"{name} needs {need!r}, which is none of {', '.join(nodes)}")
    order = TopologicalSorter({name: node.needs for name, node in nodes.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise ValueError(f"the nodes need each other in a circle: {' -> '.join(error.args[1])}") from error
    return order


def _start(work: Awaitable[T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(_run(work))


async def _run(work: Awaitable[T]) -> T:
    return await work


async def _some(running: Mapping[asyncio.Task[T], Any], end: float) -> list[asyncio.Task[T]]:
    """Wait until some of the tasks are done, in the order of their start, or until ``end``: then none."""
    left = None if end == inf else max(0.0, end - asyncio.get_running_loop().time())
    done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    return [task for task in running if task in done]


def _outcome(index: int, task: asyncio.Task[T]) -> Outcome[T]:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return Outcome(index, error=error) if error else Outcome(index, task.result())


def _error_of(task: asyncio.Task[Any]) -> Exception | None:
    """Return why a task has no value. Raises what is no error but an order to stop."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


async def _stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    listed = list(tasks)
    for task in listed:
        task.cancel()
    await asyncio.gather(*listed, return_exceptions=True)
