"""The vectors of one scope and the nearest of them: sign bits find candidates, the vectors themselves decide.

Vectors are kept as float16, half of what they come as, and beside them one bit a number: its sign. The more
signs two vectors share, the smaller the angle between them (Charikar, "Similarity Estimation Techniques from
Rounding Algorithms", 2002), and counting bits is a hundred times cheaper than multiplying halves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 16
EXACT_NUMBERS = 200_000
"""Up to so many numbers, those of 520 vectors of 384 dimensions, all vectors are compared: 0.3 ms."""
RERANKED_NUMBERS = 50_000
"""Beyond it those with the most signs in common are, with so many numbers: 130 vectors of 384 dimensions."""
LEAST_RERANKED = 32


class Vectors:
    """Vectors of one length, each under a key. Rows are kept without gaps; their order means nothing.

    Memory: `row_bytes` for each (816 at 384 dimensions), and up to twice that while it grows. Time at 384
    dimensions, one core: 0.1 ms among 10,000, 1 ms among 100,000.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.exact_rows = max(EXACT_NUMBERS // dimensions, 2 * LEAST_RERANKED)
        self._reranked = max(RERANKED_NUMBERS // dimensions, LEAST_RERANKED)
        self.row_bytes = 2 * dimensions + 8 * _words(dimensions)
        self._keys: list[str] = []
        self._rows: dict[str, int] = {}
        self._halves: NDArray[np.float16] = np.zeros((FIRST_ROWS, dimensions), np.float16)
        # One row for each 64 dimensions: what is added up then lies side by side.
        self._signs: NDArray[np.uint64] = np.zeros((_words(dimensions), FIRST_ROWS), np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all rows, those that are still empty included."""
        return self._halves.nbytes + self._signs.nbytes

    def put(self, key: str, vector: bytes) -> None:
        """Add a vector of packed float32, or replace the one of ``key``. It is scaled to length 1.

        Raises ValueError where it has another number of dimensions, or is not finite.
        """
        values = self._unit(vector)
        row = self._rows.get(key)
        if row is None:
            row = len(self._keys)
            if row == len(self._halves):
                self._grow()
            self._keys.append(key)
            self._rows[key] = row
        self._halves[row] = values
        self._signs[:, row] = _signs(values)

    def get(self, key: str) -> bytes:
        """Return a vector as packed float32, as far as half of its digits go. Raises KeyError."""
        return bytes(self._halves[self._rows[key]].astype("<f4"))

    def remove(self, key: str) -> None:
        """Remove a vector; the last one takes its row."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = self._keys.pop()
        if last != key:
            end = len(self._keys)
            self._keys[row], self._rows[last] = last, row
            self._halves[row] = self._halves[end]
            self._signs[:, row] = self._signs[:, end]

    def nearest(self, vector: bytes, count: int) -> list[tuple[str, float]]:
        """Return up to ``count`` keys with the cosines of their vectors, the nearest first.

        Raises ValueError as `put` does.
        """
        values, rows = self._unit(vector), len(self._keys)
        if not rows:
            return []
        found: Any = slice(rows)
        exact = rows <= self.exact_rows
        if not exact:
            found = np.argpartition(self._distances(values), self._reranked)[: self._reranked]
        scores = self._halves[found].astype(np.float32) @ values
        best = np.argsort(-scores)[:count]
        numbers = best if exact else found[best]
        return [(self._keys[row], float(score)) for row, score in zip(numbers, scores[best], strict=True)]

    def _distances(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return in how many signs each vector differs from ``values``."""
        rows = len(self._keys)
        total = np.zeros(rows, np.uint16)
        for signs, word in zip(self._signs, _signs(values), strict=True):
            total += np.bitwise_count(signs[:rows] ^ word)
        return total

    def _unit(self, vector: bytes) -> NDArray[np.float32]:
        if len(vector) != 4 * self.dimensions:
            raise ValueError(f"The vector has {len(vector) / 4:g} dimensions; expected {self.dimensions}.")
        values = np.frombuffer(vector, "<f4").astype(np.float32)
        length = float(np.linalg.norm(values))
        if not np.isfinite(length):
            raise ValueError("The vector has numbers that are not finite.")
        return values / np.float32(length) if length else values

    def _grow(self) -> None:
        rows = 2 * len(self._halves)
        halves = np.zeros((rows, self.dimensions), np.float16)
        signs = np.zeros((len(self._signs), rows), np.uint64)
        halves[: len(self._halves)] = self._halves
        signs[:, : len(self._halves)] = self._signs
        self._halves, self._signs = halves, signs


def to_halves(vector: bytes) -> bytes:
    """Return a vector of packed float32 as float16."""
    return np.frombuffer(vector, "<f4").astype("<f2").tobytes()


def from_halves(halves: bytes) -> bytes:
    """Return a vector of packed float16 as float32."""
    return np.frombuffer(halves, "<f2").astype("<f4").tobytes()


def _words(dimensions: int) -> int:
    return -(-dimensions // 64)


def _signs(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the signs of a vector, 64 in a number."""
    bits = np.zeros(64 * _words(len(values)), bool)
    bits[: len(values)] = values > 0
    return np.packbits(bits).view(np.uint64)
