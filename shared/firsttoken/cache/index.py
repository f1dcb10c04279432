"""Which questions were asked before in the same scope, and how near a new one is to them.

A scope (see `firsttoken.cache.scope`) is everything of a call but its last question: what is found in one
never answers a call of another. An index is of this process, or a service.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.cache.vectors import Vectors

LEAST_BYTES = 256 * 1024 * 1024
ENTRY_BYTES = 4096
"""Of all scopes in one process: `LEAST_BYTES`, or so many for each entry that a scope may have."""
_OVERHEAD = 600
"""Bytes that an entry takes besides its texts and its vector, about."""


class Question(Struct, frozen=True):
    """A question that was answered: the key of its answer, its words, and when it was asked (Unix seconds).

    ``canonical`` is its form in which equal questions are equal text.
    """

    key: str
    text: str
    canonical: str
    vector: bytes
    """Packed float32."""
    asked: float = 0.0


class Near(Struct, frozen=True):
    """A question that is near to another one: 1 is the same direction, 0 has nothing in common."""

    key: str
    text: str
    score: float
    asked: float = 0.0


class VectorIndex(Protocol):
    """Questions by scope. Every method may raise StoreError, and nothing else.

    A vector of another length than the others of its scope is of another embedder: it finds nothing, and
    where it is added, the others go.
    """

    async def equal(self, scope: str, canonical: str) -> Near | None:
        """Return a question whose canonical form is the same, if that can be told without a vector."""

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return up to ``count`` questions of this scope, the nearest first."""

    async def add(self, scope: str, question: Question) -> None:
        """Add a question, or replace the one of the same key."""

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question, if it is there."""

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope."""

    async def aclose(self) -> None:
        """Close connections."""


class MemoryIndex:
    """An index in this process.

    Memory: ``max_bytes``, about (0: see `LEAST_BYTES`); beyond that the scopes used least recently go. A
    scope holds ``entries`` questions, and no more than half of all memory; beyond that its oldest go. One of
    100 characters with 384 dimensions takes 2 KB: 20 MB for 10,000. Time: see `firsttoken.cache.vectors`.
    Raises ConfigError where numpy is not installed.
    """

    def __init__(self, entries: int, *, max_bytes: int = 0) -> None:
        if find_spec("numpy") is None:
            raise ConfigError("semantic.index: 'memory' needs the extra 'semantic'")
        self._entries = entries
        self._max_bytes = max_bytes or max(LEAST_BYTES, ENTRY_BYTES * entries)
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()
        self._bytes = 0

    def __contains__(self, scope: str) -> bool:
        return scope in self._scopes

    @property
    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        return self._bytes

    async def equal(self, scope: str, canonical: str) -> Near | None:
        """Return a question with the same canonical form; see `VectorIndex`."""
        found = self._used(scope)
        return None if found is None else found.equal(canonical)

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return the nearest questions; see `VectorIndex`."""
        found = self._used(scope)
        return [] if found is None else found.nearest(vector, count)

    async def add(self, scope: str, question: Question) -> None:
        """Add a question; see `VectorIndex`."""
        self.put(scope, question)

    def put(self, scope: str, question: Question) -> None:
        """Add a question, at once."""
        if not question.vector or len(question.vector) % 4:
            return
        found = self._used(scope)
        fresh = found is None or found.dimensions * 4 != len(question.vector)
        if found is None or fresh:
            found = _Scope(len(question.vector) // 4)
        before = 0 if fresh else found.nbytes
        if not found.put(question, self._entries, self._max_bytes // 2):
            return
        if fresh:
            self._forget(scope)
            self._scopes[scope] = found
        self._bytes += found.nbytes - before
        while self._bytes > self._max_bytes and len(self._scopes) > 1:
            self._forget(next(iter(self._scopes)))

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question; see `VectorIndex`."""
        found = self._scopes.get(scope)
        if found is not None:
            before = found.nbytes
            found.remove(key)
            self._bytes += found.nbytes - before

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope; see `VectorIndex`."""
        self._forget(scope)

    async def aclose(self) -> None:
        """Nothing is to be closed."""

    def has(self, scope: str, key: str) -> bool:
        """Return whether a question is there."""
        found = self._scopes.get(scope)
        return found is not None and key in found

    def dimensions(self, scope: str) -> int:
        """Return how long the vectors of a scope are, 0 where there are none."""
        found = self._scopes.get(scope)
        return 0 if found is None else found.dimensions

    def newest(self, scope: str, count: int) -> list[Question]:
        """Return the questions that were added last, the oldest of them first."""
        found = self._scopes.get(scope)
        return [] if found is None else found.newest(count)

    def _used(self, scope: str) -> _Scope | None:
        found = self._scopes.get(scope)
        if found is not None:
            self._scopes.move_to_end(scope)
        return found

    def _forget(self, scope: str) -> None:
        found = self._scopes.pop(scope, None)
        if found is not None:
            self._bytes -= found.nbytes


class _Entry(Struct, frozen=True, gc=False):
    text: str
    canonical: str
    asked: float

    def size(self) -> int:
        return sys.getsizeof(self.text) + sys.getsizeof(self.canonical) + _OVERHEAD


class _Scope:
    """The questions of one scope, the oldest first."""

    __slots__ = ("_by_form", "_entries", "_texts", "_vectors")

    def __init__(self, dimensions: int) -> None:
        from firsttoken.cache.vectors import Vectors

        self._vectors: Vectors = Vectors(dimensions)
        self._entries: dict[str, _Entry] = {}
        self._by_form: dict[str, str] = {}
        self._texts = 0

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def dimensions(self) -> int:
        return self._vectors.dimensions

    @property
    def nbytes(self) -> int:
        return self._texts + self._vectors.nbytes

    def equal(self, canonical: str) -> Near | None:
        key = self._by_form.get(canonical) if canonical else None
        return None if key is None else self._near(key, 1.0)

    def nearest(self, vector: bytes, count: int) -> list[Near]:
        try:
            found = self._vectors.nearest(vector, count)
        except ValueError:
            return []
        return [self._near(key, score) for key, score in found]

    def put(self, question: Question, entries: int, max_bytes: int) -> bool:
        """Add a question; return False where its vector cannot be taken."""
        try:
            self._vectors.put(question.key, question.vector)
        except ValueError:
            return False
        self._discard(question.key)
        entry = _Entry(question.text, question.canonical, question.asked)
        self._entries[question.key] = entry
        self._texts += entry.size()
        if entry.canonical:
            self._by_form[entry.canonical] = question.key
        while len(self._entries) > entries or (self._used_bytes() > max_bytes and len(self._entries) > 1):
            self.remove(next(iter(self._entries)))
        return True

    def remove(self, key: str) -> None:
        self._discard(key)
        self._vectors.remove(key)

    def newest(self, count: int) -> list[Question]:
        keys = list(self._entries)[-count:]
        return [self._question(key) for key in keys]

    def _used_bytes(self) -> int:
        return self._texts + len(self._vectors) * self._vectors.row_bytes

    def _question(self, key: str) -> Question:
        entry = self._entries[key]
        return Question(key, entry.text, entry.canonical, self._vectors.get(key), entry.asked)

    def _near(self, key: str, score: float) -> Near:
        entry = self._entries[key]
        return Near(key, entry.text, score, entry.asked)

    def _discard(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._texts -= entry.size()
            if self._by_form.get(entry.canonical) == key:
                del self._by_form[entry.canonical]
