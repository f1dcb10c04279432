"""An index whose service sees no words: questions are sealed before they are handed on.

The vectors are not: they are what it compares. They tell roughly what a question was about.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from msgspec.structs import replace

from firsttoken.cache.crypto import Seal
from firsttoken.cache.index import Near, Question, VectorIndex


class SealedIndex:
    """An index around an index. A question that does not open with our key is not found."""

    def __init__(self, index: VectorIndex, seal: Seal) -> None:
        self._index = index
        self._seal = seal

    async def equal(self, scope: str, canonical: str) -> Near | None:  # noqa: ARG002 - of the protocol
        """Find nothing: what is sealed cannot be compared."""
        return None

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return the nearest questions; see `VectorIndex`."""
        found = await self._index.nearest(scope, vector, count)
        opened = [(one, self._opened(scope, one)) for one in found]
        return [replace(one, text=text) for one, text in opened if text is not None]

    async def add(self, scope: str, question: Question) -> None:
        """Add a question; see `VectorIndex`."""
        closed = self._seal.mark + self._seal.close(_name(scope, question.key), question.text.encode())
        text = base64.b64encode(closed).decode()
        await self._index.add(scope, replace(question, text=text, canonical=""))

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question; see `VectorIndex`."""
        await self._index.remove(scope, key)

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope; see `VectorIndex`."""
        await self._index.drop(scope)

    async def aclose(self) -> None:
        """Close the index."""
        await self._index.aclose()

    def _opened(self, scope: str, near: Near) -> str | None:
        try:
            closed = base64.b64decode(near.text, validate=True)
        except (binascii.Error, ValueError):
            return None
        body = self._seal.open(_name(scope, near.key), closed[1:]) if closed[:1] == self._seal.mark else None
        return None if body is None else body.decode("utf-8", "replace")


def _name(scope: str, key: str) -> str:
    return f"similar:{scope}/{key}"
