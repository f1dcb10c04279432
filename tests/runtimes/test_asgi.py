import asyncio

import pytest

from firsttoken.runtimes.asgi import Lifespan, LifespanError


def run(app):
    """Start an app up and shut it down; return the state that it left."""

    async def scenario():
        lifespan = Lifespan(app)
        await lifespan.startup()
        await lifespan.shutdown()
        return lifespan.state

    return asyncio.run(scenario())


def test_startup_precedes_shutdown_and_leaves_state():
    """An app gets one start-up and one shutdown, and what it puts into its state stays."""
    seen = []

    async def app(scope, receive, send):
        for kind in ("startup", "shutdown"):
            seen.append((await receive())["type"])
            scope["state"][kind] = True
            await send({"type": f"lifespan.{kind}.complete"})

    assert run(app) == {"startup": True, "shutdown": True}
    assert seen == ["lifespan.startup", "lifespan.shutdown"]


def test_an_app_without_lifespan_is_served():
    """An app that refuses the lifespan scope has none, and that is no failure."""

    async def app(scope, receive, send):
        assert scope["type"] == "http"

    assert run(app) == {}


async def _says_so(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no such model"})


async def _breaks(scope, receive, send):
    await receive()
    raise KeyError("no such model")


@pytest.mark.parametrize("app", [_says_so, _breaks])
def test_a_failed_startup_is_an_error(app):
    """An app that fails to start stops the runtime, and the reason is told."""
    with pytest.raises(LifespanError, match="no such model"):
        run(app)
