"""The store on Redis: a server that goes away, hangs, or wants a password, and the loops it is used from."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvloop
from redis import Redis

from firsttoken.errors import ConfigError, StoreError
from firsttoken.settings import RedisStore as Settings
from firsttoken.stores import create_store, guarded
from firsttoken.stores.redis import RedisStore
from tests.stores.conftest import PATIENCE
from tests.stores.servers import RedisServer, redis_server, silent_server

SECRET = "pass-word-1"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that asks for no password."""
    with redis_server() as running:
        yield running


def settings(server: RedisServer, timeout: float = PATIENCE) -> Settings:
    return Settings(url=server.url, timeout=timeout)


def test_a_server_that_dies_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at once, is left alone, and is used again when it is back: nothing need be restarted."""
    monkeypatch.setattr(guarded, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(guarded, "MAX_PAUSE", 0.1)

    async def main(server: RedisServer) -> None:
        store = create_store(settings(server))
        await store.put("k", b"v", 60)
        server.kill()
        for _ in range(50):
            with pytest.raises(StoreError):
                await store.get("k")
        assert store.down
        await asyncio.sleep(0.2)
        with pytest.raises(StoreError):
            await store.add("k", 1, 60)
        server.start()
        async with asyncio.timeout(PATIENCE):
            while store.down:
                with suppress(StoreError):
                    await store.get("k")
                await asyncio.sleep(0.02)
        assert await store.get("k") is None
        assert await store.swap("k", None, b"a", 60)
        assert await store.swap("k", b"a", b"b", 60)
        await store.aclose()

    with redis_server() as server:
        asyncio.run(main(server))


def test_idle_connections_are_opened_anew(server: RedisServer) -> None:
    """A connection that the server closed while nobody used it costs no operation."""

    async def main() -> None:
        store = RedisStore(settings(server))
        await asyncio.gather(*(store.put(f"{number}", b"v", 60) for number in range(8)))
        with Redis.from_url(server.url) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.05)
        found = await asyncio.gather(*(store.get(f"{number}") for number in range(8)))
        assert found == [b"v"] * 8
        await store.aclose()

    asyncio.run(main())


def test_a_server_that_never_answers_is_given_up() -> None:
    """A server that takes the connection and falls silent is bounded by the timeout, guarded or not."""

    async def main() -> None:
        async with silent_server() as port, asyncio.timeout(PATIENCE):
            given = Settings(url=f"redis://127.0.0.1:{port}", timeout=0.1)
            for store in (RedisStore(given), create_store(given)):
                with pytest.raises(StoreError):
                    await store.get("k")
                with pytest.raises(StoreError):
                    await store.add("k", 1, 60)
                await store.aclose()

    asyncio.run(main())


def test_nothing_is_tried_twice() -> None:
    """The client library does not repeat what failed: an addition might count twice."""
    connections: list[asyncio.StreamWriter] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(65536)
        writer.close()

    async def main() -> None:
        listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        store = RedisStore(Settings(url=f"redis://127.0.0.1:{port}", timeout=PATIENCE))
        for count, work in enumerate((store.get, store.delete, lambda key: store.add(key, 1, 60)), 1):
            with pytest.raises(StoreError):
                await work("k")
            assert len(connections) == count
        await store.aclose()
        listener.close()
        await listener.wait_closed()

    asyncio.run(main())


def test_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is taken from the environment and is in no error, whatever goes wrong."""

    async def main(port: int, password: str) -> str:
        monkeypatch.setenv("STORE_URL", f"redis://:{password}@127.0.0.1:{port}/0")
        store = create_store(Settings(url="env:STORE_URL", timeout=PATIENCE))
        shown = [repr(store.inner)]
        try:
            await store.put("k", b"v", 60)
        except StoreError as error:
            shown += traceback.format_exception(error)
        finally:
            await store.aclose()
        assert password not in "".join(shown)
        assert "127.0.0.1" not in store.error
        return store.error

    with redis_server("--requirepass", SECRET) as server:
        assert asyncio.run(main(server.port, SECRET)) == ""
        assert "AuthenticationError" in asyncio.run(main(server.port, "wrong-1"))
        server.kill()
        assert "ConnectionError" in asyncio.run(main(server.port, SECRET))


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://h:port", "127.0.0.1:6379", "env:NONE"])
def test_a_wrong_url_stops_the_start(url: str) -> None:
    """What cannot be an address is a ConfigError at start, which does not repeat it."""
    with pytest.raises(ConfigError, match=r"store\.url: .*expected") as caught:
        create_store(Settings(url=url))
    assert "127.0.0.1" not in str(caught.value)


def test_scripts_that_the_server_forgot(server: RedisServer) -> None:
    """A server that was restarted does not know the scripts any more, and is told them again."""

    async def main() -> None:
        store = RedisStore(settings(server))
        for _ in range(2):
            with Redis.from_url(server.url) as other:
                other.script_flush()
            epoch = await store.lease("forgotten", "me", 60)
            assert await store.release("forgotten", "me")
        assert epoch == 2
        await store.aclose()

    asyncio.run(main())


def test_everything_ends(server: RedisServer) -> None:
    """Nothing is written that Redis would keep for ever; leases are remembered for an hour or more."""

    async def main() -> None:
        store = RedisStore(settings(server))
        with Redis.from_url(server.url) as other:
            other.flushall()
            await store.put("k", b"v", 60)
            await store.swap("k2", None, b"v", 60)
            await store.swap("k2", b"v", b"w", 60)
            await store.add("k", 1, 60)
            await store.lease("k", "me", 60)
            await store.lease("k2", "me", 60)
            await store.release("k2", "me")
            times = {key: other.pttl(key) / 1000 for key in other.scan_iter()}
        assert sorted(times) == [b"k2:l", b"k2:v", b"k:c", b"k:l", b"k:v"]
        assert all(time > 3600 if key.endswith(b":l") else 0 < time <= 60 for key, time in times.items())
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_each_event_loop_has_its_connections(server: RedisServer, factory: type) -> None:
    """One store serves several event loops, one after the other; each closes its own connections."""
    store = create_store(settings(server))
    key = f"loops {time.monotonic_ns()}"

    async def main() -> int:
        count = await store.add(key, 1, 60)
        assert len(store.inner._clients) == 1
        await store.aclose()
        assert not store.inner._clients
        return count

    for expected in (1, 2, 3):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) == expected
