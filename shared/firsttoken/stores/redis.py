"""Redis or Valkey as the store: what must be atomic is a script of one key.

The client library is imported in a thread where it is first used. It neither retries nor waits on its own:
`firsttoken.stores.guarded` decides when a store that failed is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from msgspec import Struct

from firsttoken import config
from firsttoken.errors import ConfigError, StoreError
from firsttoken.settings import RedisStore as Settings
from firsttoken.stores.keys import check_value

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECTIONS = 32
"""Of one event loop; operations beyond that wait for one."""
_MAX_COMMANDS = 256


class _Script(Struct, frozen=True):
    text: str
    sha: str


def _script(text: str) -> _Script:
    return _Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


_SWAP = _script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1""")
_DELETE = _script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])""")
# A number of Lua has 53 bits, so the sum is read as text.
_ADD = _script("""
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' then
    if string.find(sum['err'], 'overflow') then return false end
    return sum
end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])""")
# The server's clock decides, so the instances' own need not agree.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 'owner', 'until', 'epoch')
local held = lease[1] and tonumber(lease[2]) > now
"""
_EPOCH_MS = 7_200_000
_LEASE = _script(f"""{_NOW}
if held and lease[1] ~= ARGV[1] then return false end
local epoch = tonumber(lease[3] or 0)
if not held then epoch = epoch + 1 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + ARGV[2], 'epoch', epoch)
redis.call('PEXPIRE', KEYS[1], ARGV[2] + {_EPOCH_MS})
return epoch""")
_RELEASE = _script(f"""{_NOW}
if not held or lease[1] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'until')
redis.call('PEXPIRE', KEYS[1], {_EPOCH_MS})
return 1""")


class RedisStore:
    """Values as strings, counters as numbers, leases as hashes, each kind with a suffix of its own.

    One round trip an operation (two where the server does not know the script yet), up to `CONNECTIONS`
    connections for each event loop, which `aclose` closes in that loop. Raises ConfigError for a wrong URL.
    """

    shared = True
    max_value_bytes = 32 * 1024 * 1024

    def __init__(self, settings: Settings) -> None:
        self._url = config.secret(settings.url, "store.url")
        self._timeout = settings.timeout
        if not _is_understood(self._url):
            raise ConfigError("store.url: expected redis://HOST:PORT/DB, rediss://... or unix://PATH")
        self._clients: dict[asyncio.AbstractEventLoop, Redis] = {}

    async def open(self) -> None:
        """Import the client library (100 ms of CPU, in a thread); the first operation does so if need be."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            await asyncio.to_thread(import_module, "redis.asyncio")
        if loop not in self._clients:
            self._clients = {at: client for at, client in self._clients.items() if not at.is_closed()}
            self._clients[loop] = self._connect()

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None; see `Store`."""
        client = await self._client()
        with _failures():
            return cast("bytes | None", await client.get(f"{key}:v"))

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there; see `Store`. One round trip for every 256 keys.

        Single GETs in a pipeline, as the keys of one MGET would have to be on one node of a cluster.
        """
        client = await self._client()
        found: list[bytes | None] = []
        with _failures():
            for start in range(0, len(keys), _MAX_COMMANDS):
                pipeline = client.pipeline(transaction=False)
                for key in keys[start : start + _MAX_COMMANDS]:
                    pipeline.get(f"{key}:v")
                found += await pipeline.execute()
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value; see `Store`."""
        check_value(value, self.max_value_bytes)
        client = await self._client()
        with _failures():
            await client.set(f"{key}:v", value, px=_ms(ttl))

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write a value where it is ``old``; see `Store`."""
        check_value(new, self.max_value_bytes)
        if old is not None:
            return bool(await self._run(_SWAP, f"{key}:v", old, new, _ms(ttl)))
        client = await self._client()
        with _failures():
            return bool(await client.set(f"{key}:v", new, px=_ms(ttl), nx=True))

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value; see `Store`."""
        if old is not None:
            return bool(await self._run(_DELETE, f"{key}:v", old))
        client = await self._client()
        with _failures():
            return bool(await client.delete(f"{key}:v"))

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter; see `Store`. Raises ValueError beyond 64 bits."""
        total = await self._run(_ADD, f"{key}:c", amount, _ms(ttl))
        if total is None:
            raise ValueError("The counter does not fit into 64 bits.")
        return int(total)

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take or renew a lease; see `Store`. The server's clock decides."""
        epoch = await self._run(_LEASE, f"{key}:l", owner, _ms(ttl))
        return None if epoch is None else int(epoch)

    async def release(self, key: str, owner: str) -> bool:
        """Give a lease back; see `Store`."""
        return bool(await self._run(_RELEASE, f"{key}:l", owner))

    async def purge(self) -> int:
        """Return 0: Redis forgets what has expired by itself."""
        return 0

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            with _failures():
                await client.aclose()
                await client.connection_pool.aclose()

    async def _run(self, script: _Script, key: str, *arguments: bytes | str | int) -> Any:
        client = await self._client()
        with _failures():
            from redis.exceptions import NoScriptError

            try:
                return await client.evalsha(script.sha, 1, key, *arguments)
            except NoScriptError:  # a server that was restarted
                return await client.eval(script.text, 1, key, *arguments)

    async def _client(self) -> Redis:
        await self.open()
        return self._clients[asyncio.get_running_loop()]

    def _connect(self) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=self._timeout,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # known to every server, and one round trip less at the start
            )
        except ValueError:
            raise StoreError("The store (redis) has an address that is not understood.") from None
        return Redis(connection_pool=pool)


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what the client raises into a StoreError without its text, which may hold addresses."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError, RuntimeError) as error:
        raise StoreError(f"The store (redis) cannot be had ({type(error).__name__}).") from error


def _is_understood(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number
        return False
    return parts.scheme in ("redis", "rediss", "unix") and port != 0


def _ms(ttl: float) -> int:
    return max(1, round(ttl * 1000))
