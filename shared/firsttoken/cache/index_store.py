"""The index in memory, remembered in the store: an instance that has just begun finds what others were asked.

The newest questions of a scope are one value of the store, sealed, their vectors as float16. Who adds to it
reads it, adds its own and writes it back, beside the calls; of two who write at once one wins, and the other
adds its own again with its next question.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from firsttoken.cache.crypto import Seal
from firsttoken.cache.index import MemoryIndex, Near, Question
from firsttoken.cache.words import rules_version
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.stores.parts import get_large, put_large
from firsttoken.stores.store import Store

MAX_REMEMBERED = 200
"""Questions of a scope in the store: 180 KB at 384 dimensions."""
WRITE_SECONDS = 5.0
"""Between two writes of one instance for one scope; what came in between goes with the next."""
READ_SECONDS = 60.0
"""After so long a scope that is used is read again, beside the calls."""
EMPTY_SECONDS = 1.0
"""Likewise where nothing of it is here, but in the way of a call."""
MAX_SCOPES = 4096
_VERSION = 2


class _Row(Struct, array_like=True, frozen=True):
    key: str
    text: str
    canonical: str
    halves: bytes
    asked: float


class _Rows(Struct, array_like=True, frozen=True):
    version: str
    """Of their form, and of the guard's rules: canonical forms of two versions must not be compared."""
    rows: list[_Row]


class _State(Struct):
    read: float = float("-inf")
    """When it was read, and written, on the loop's clock."""
    written: float = float("-inf")
    removed: set[str] = msgspec.field(default_factory=set)
    """Keys that must not come back with what others wrote."""


class StoredIndex:
    """A memory index whose newest questions are in the store.

    A call of a scope of which this process holds nothing waits for one read of the store, within the store's
    time and once a second at most; no other call waits for it. Memory besides the index: some 200 bytes for
    each of `MAX_SCOPES` scopes.
    """

    def __init__(  # noqa: PLR0913 - its parts, and the wall clock
        self,
        memory: MemoryIndex,
        store: Store,
        shadow: Shadow,
        *,
        ttl: float,
        seal: Seal,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._memory = memory
        self._store = store
        self._shadow = shadow
        self._ttl = ttl
        self._seal = seal
        self._now = now
        self._states: OrderedDict[str, _State] = OrderedDict()

    async def equal(self, scope: str, canonical: str) -> Near | None:
        """Return a question with the same canonical form; see `VectorIndex`."""
        await self._known(scope)
        return await self._memory.equal(scope, canonical)

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return the nearest questions; see `VectorIndex`."""
        await self._known(scope)
        return await self._memory.nearest(scope, vector, count)

    async def add(self, scope: str, question: Question) -> None:
        """Add a question here, and to the store if that was not written just before."""
        self._memory.put(scope, question)
        state = self._state(scope)
        state.removed.discard(question.key)
        if asyncio.get_running_loop().time() - state.written >= WRITE_SECONDS:
            await self._write(scope, state)

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question here and from the store."""
        await self._memory.remove(scope, key)
        state = self._state(scope)
        if len(state.removed) >= MAX_REMEMBERED:
            state.removed.clear()  # those are long gone from the store
        state.removed.add(key)
        await self._write(scope, state)

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope here and from the store."""
        await self._memory.drop(scope)
        await self._store.delete(_name(scope))

    async def aclose(self) -> None:
        """Nothing is to be closed: the store is its owner's."""

    async def _known(self, scope: str) -> None:
        """Read the scope where this process has not, and again from time to time."""
        now = asyncio.get_running_loop().time()
        state = self._states.get(scope)
        if state is None or (scope not in self._memory and now - state.read > EMPTY_SECONDS):
            state = self._state(scope)
            state.read = now  # first: calls that come meanwhile take what there is
            try:
                self._take(scope, await self._read(scope), state)
            except StoreError:
                return
        elif now - state.read > READ_SECONDS:
            state.read = now
            self._shadow.run(self._renew(scope, state))

    async def _renew(self, scope: str, state: _State) -> None:
        self._take(scope, await self._read(scope), state)

    async def _write(self, scope: str, state: _State) -> None:
        """Write the newest of what is here and what is in the store."""
        from firsttoken.cache.vectors import to_halves

        state.written = state.read = asyncio.get_running_loop().time()
        known = await self._read(scope)
        rows = {row.key: row for row in known if row.key not in state.removed}
        for one in self._memory.newest(scope, MAX_REMEMBERED):
            rows[one.key] = _Row(one.key, one.text, one.canonical, to_halves(one.vector), one.asked)
        self._take(scope, known, state)
        newest = sorted(rows.values(), key=lambda row: row.asked)[-MAX_REMEMBERED:]
        name, body = _name(scope), msgspec.msgpack.encode(_Rows(_version(), newest))
        try:
            await put_large(self._store, name, self._seal.mark + self._seal.close(name, body), self._ttl)
        except ValueError:
            return  # vectors of thousands of numbers and a store of small values: it does without

    async def _read(self, scope: str) -> list[_Row]:
        name = _name(scope)
        found = await get_large(self._store, name)
        if found is None or found[:1] != self._seal.mark:
            return []
        body = self._seal.open(name, found[1:])
        if body is None:
            return []
        try:
            rows = msgspec.msgpack.decode(body, type=_Rows)
        except msgspec.DecodeError:
            return []
        oldest = self._now() - self._ttl
        return [row for row in rows.rows if row.asked > oldest] if rows.version == _version() else []

    def _take(self, scope: str, rows: Sequence[_Row], state: _State) -> None:
        """Add what others were asked."""
        from firsttoken.cache.vectors import from_halves

        size = 2 * self._memory.dimensions(scope)
        for row in rows:
            size = size or len(row.halves)
            # Another length is another embedder's: it must not drive out what is here.
            fits = len(row.halves) == size and size % 2 == 0
            if fits and row.key not in state.removed and not self._memory.has(scope, row.key):
                vector = from_halves(row.halves)
                self._memory.put(scope, Question(row.key, row.text, row.canonical, vector, row.asked))

    def _state(self, scope: str) -> _State:
        state = self._states.get(scope)
        if state is None:
            state = self._states[scope] = _State()
            if len(self._states) > MAX_SCOPES:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(scope)
        return state


def _version() -> str:
    return f"{_VERSION}:{rules_version()}"


def _name(scope: str) -> str:
    return f"similar:{scope}"
