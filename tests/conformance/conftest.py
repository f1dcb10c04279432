"""Start each runtime once, in a thread with a loop of its own, and print the table at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from endpoints import RUNTIMES, Endpoint, configuration, simulator
from recovery import QUEUES, WORKERS

OUTCOMES = pytest.StashKey[dict[tuple[str, str], str]]()


@pytest.fixture(scope="session")
def background() -> Iterator[asyncio.AbstractEventLoop]:
    """A running event loop that lives as long as the session."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session", params=list(RUNTIMES))
def endpoint(
    request: pytest.FixtureRequest,
    background: asyncio.AbstractEventLoop,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Endpoint]:
    """One endpoint in the runtime that the parameter names, with a simulated provider of its own."""
    stack = AsyncExitStack()

    async def start() -> Endpoint:
        upstream = await stack.enter_async_context(simulator())
        folder = tmp_path_factory.mktemp(request.param)
        waiting = await asyncio.to_thread(QUEUES[request.param], folder)
        env = configuration(folder, upstream, waiting)
        await stack.enter_async_context(WORKERS[request.param](env, waiting.section))
        url = await stack.enter_async_context(RUNTIMES[request.param](env))
        return Endpoint(request.param, url, upstream)

    try:
        yield asyncio.run_coroutine_threadsafe(start(), background).result(90)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), background).result(60)


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> dict[tuple[str, str], str]:
    """What each runtime did with each behaviour, for the table."""
    return request.config.stash.setdefault(OUTCOMES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the conformance table of this run."""
    outcomes = config.stash.get(OUTCOMES, {})
    if not outcomes:
        return
    names = list(dict.fromkeys(name for _, name in outcomes))
    width = max(len(name) for name in names)
    terminalreporter.section("conformance")
    terminalreporter.write_line(" ".join([" " * width, *(f"{runtime:>15}" for runtime in RUNTIMES)]))
    for name in names:
        cells = [outcomes.get((runtime, name), "-") for runtime in RUNTIMES]
        terminalreporter.write_line(" ".join([f"{name:<{width}}", *(f"{cell:>15}" for cell in cells)]))
