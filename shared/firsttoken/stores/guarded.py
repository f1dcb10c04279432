"""The store as its users see it: bounded in time, left alone while it is down, and only ever a StoreError."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from firsttoken.errors import StoreError
from firsttoken.settings import StoreSettings
from firsttoken.stores.keys import check_number, check_ttl, check_value, fit_key
from firsttoken.stores.store import Store

T = TypeVar("T")

FIRST_PAUSE = 1.0
MAX_PAUSE = 30.0
OPEN_SECONDS = 5.0
"""What a store's ``open`` may take (imports, credentials), once for each event loop, besides its time."""
PURGE_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


class Guarded:
    """A store around a store: every operation ends within ``settings.timeout``, whatever happens behind it.

    After a failure the store is not asked for `FIRST_PAUSE` seconds, twice as long after each further one,
    up to `MAX_PAUSE`; until then every operation raises StoreError at once, and then one may try again.
    Keys get the configured prefix and are made to fit; ValueError is raised for what no store can do.
    """

    def __init__(self, store: Store, settings: StoreSettings) -> None:
        self.inner = store
        self.kind = str(settings.__struct_config__.tag)
        self.down = False
        """Whether the last that was heard of the store was a failure."""
        self.failures = 0
        """Operations that failed, not counting those that were not tried."""
        self.error = ""
        """What the last failure was, without secrets and addresses."""
        self._timeout = settings.timeout
        self._prefix = f"{settings.prefix}:" if settings.prefix else ""
        self._open: Callable[[], Awaitable[None]] | None = getattr(store, "open", None)
        self._opened: asyncio.AbstractEventLoop | None = None
        self._pause = FIRST_PAUSE
        self._again = 0.0
        """When it may be tried again, on the event loop's clock."""

    @property
    def shared(self) -> bool:
        """Whether other instances see the same values."""
        return self.inner.shared

    @property
    def max_value_bytes(self) -> int:
        """How large one value can be."""
        return self.inner.max_value_bytes

    async def open(self) -> None:
        """Do ahead what the first operation on an event loop does: import, find credentials, open a file."""
        await self._ask(_nothing)

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None; see `Store`."""
        name = self._key(key)
        return await self._ask(lambda: self.inner.get(name))

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there; see `Store`."""
        names = {self._key(key): key for key in keys}
        if not names:
            return {}
        found = await self._ask(lambda: self.inner.get_many(list(names)))
        return {names[name]: value for name, value in found.items()}

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value; see `Store`."""
        check_ttl(ttl)
        check_value(value, self.max_value_bytes)
        name = self._key(key)
        await self._ask(lambda: self.inner.put(name, value, ttl))

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write a value where it is ``old``; see `Store`. After a StoreError it may have been written."""
        check_ttl(ttl)
        check_value(new, self.max_value_bytes)
        name = self._key(key)
        return await self._ask(lambda: self.inner.swap(name, old, new, ttl))

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value; see `Store`."""
        name = self._key(key)
        return await self._ask(lambda: self.inner.delete(name, old))

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter; see `Store`. After a StoreError it may have been added."""
        check_ttl(ttl)
        check_number(amount)
        name = self._key(key)
        return await self._ask(lambda: self.inner.add(name, amount, ttl))

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take or renew a lease; see `Store`."""
        check_ttl(ttl)
        name = self._key(key)
        return await self._ask(lambda: self.inner.lease(name, _owner(owner), ttl))

    async def release(self, key: str, owner: str) -> bool:
        """Give a lease back; see `Store`."""
        name = self._key(key)
        return await self._ask(lambda: self.inner.release(name, _owner(owner)))

    async def purge(self) -> int:
        """Delete what has expired; see `Store`. May take `PURGE_SECONDS`."""
        return await self._ask(self.inner.purge, PURGE_SECONDS)

    async def aclose(self) -> None:
        """Close connections and files, as far as that is possible."""
        with suppress(StoreError, OSError):  # a TimeoutError is an OSError
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.inner.aclose()

    def _key(self, key: str) -> str:
        return fit_key(key, self._prefix)

    async def _ask(self, work: Callable[[], Awaitable[T]], seconds: float = 0) -> T:
        now = asyncio.get_running_loop().time
        seconds = seconds or self._timeout
        trial = self._admit(now(), seconds)
        try:
            await self._prepare()
            async with asyncio.timeout(seconds):
                result = await work()
        except ValueError:
            if trial:
                self._again = now()
            raise
        except Exception as error:  # whatever a client library raises must not break a call
            raise self._fail(error, now(), trial=trial) from error
        except BaseException:
            if trial:
                self._again = now()  # nothing was learned: the next one may try
            raise
        if trial:
            self.down = False
            self._pause = FIRST_PAUSE
        return result

    def _admit(self, now: float, seconds: float) -> bool:
        """Return whether this operation is the one that tries a store that is down."""
        if not self.down:
            return False
        if now < self._again:
            error = StoreError("The store is down and is not asked for a while.")
            error.retry_after = self._again - now
            raise error
        self._again = now + max(seconds, self._pause)
        return True

    def _fail(self, error: Exception, now: float, *, trial: bool) -> StoreError:
        self.failures += 1
        self.error = _describe(error, self.kind)
        if trial or not self.down:
            # Operations that were under way at the first failure are no news.
            self._pause = min(self._pause * 2, MAX_PAUSE) if trial else FIRST_PAUSE
            self._again = now + self._pause
            self.down = True
        failed = StoreError(self.error)
        failed.retry_after = max(0.0, self._again - now)
        return failed

    async def _prepare(self) -> None:
        loop = asyncio.get_running_loop()
        if self._open is not None and self._opened is not loop:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._open()
            self._opened = loop


async def _nothing() -> None:
    pass


def _owner(owner: str) -> str:
    if not owner:
        raise ValueError("The lease's owner is empty; expected some text.")
    return owner


def _describe(error: Exception, kind: str) -> str:
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"The store ({kind}) did not answer in time."
    return f"The store ({kind}) cannot be had ({type(error).__name__})."
