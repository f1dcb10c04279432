"""Finds a question that asks for the same: equal words first, then near vectors, each past the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, field

from firsttoken.cache.index import Near, Question, VectorIndex
from firsttoken.cache.similar_pause import Pause
from firsttoken.embedding import EmbedCall, Embedder, EmbedRequest
from firsttoken.errors import FirstTokenError
from firsttoken.settings import Semantic

T = TypeVar("T")

MAX_PREPARED = 4096
"""Questions that the guard has read already, some 2 KB each."""


class Verdict(Protocol):
    """What the guard says of two questions."""

    @property
    def same(self) -> bool:
        """Whether nothing in their words speaks against one answer for both."""

    @property
    def reason(self) -> str:
        """What does, in a word."""


class Rules(Struct, frozen=True):
    """The words' part in it."""

    prepare: Callable[[str], Any]
    verdict: Callable[[Any, Any], Verdict]
    canonical: Callable[[str], str]
    """The form in which questions of equal words are equal text."""
    embedding_text: Callable[[str], str]
    """What the embedder is given for a question."""


def rules_for(language: str, *, lexical: bool) -> Rules:
    """Return the rules of the guard for a language; ``lexical``: the embedder is the embedded one.

    That one compares words, so it is given their canonical form; any other is given the question itself.
    """
    from firsttoken.cache import guard
    from firsttoken.cache import lexical as forms

    def same_words(text: str) -> str:
        return " ".join(text.casefold().split())

    return Rules(
        prepare=lambda text: guard.prepare(text, language=language),
        verdict=lambda a, b: guard.verdict(a, b, language=language),
        canonical=forms.canonical if language == "en" else same_words,
        embedding_text=(lambda text: forms.embedding_text(text, language=language)) if lexical else str,
    )


class Asked(Struct):
    """A question on its way: what is known of it so far."""

    scope: str
    key: str
    """Of the answer that the call itself will get."""
    text: str
    tenant: str = "local"
    vector: bytes | None = None
    tried: bool = False
    """Whether its vector was asked for; it is once."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Finding(Struct, Generic[T], frozen=True):
    """What came of a look-up: ``answer`` is None where there is no hit, and ``reason`` says why."""

    near: Near | None = None
    answer: T | None = None
    reason: str = ""


class Lookup:
    """Looks questions up in an index, and adds them to it.

    ``name`` is what the embedder's requests call its model; ``seconds`` limits a look-up in the way of a
    call, and ten times as much one beside it. Nothing here raises; what fails is left alone for a while.
    """

    def __init__(
        self,
        settings: Semantic,
        embedder: Embedder,
        index: VectorIndex,
        rules: Rules,
        *,
        seconds: float = 0.5,
    ) -> None:
        self._settings = settings
        self._embedder = embedder
        self._index = index
        self._rules = rules
        self._seconds = seconds
        self._pause = Pause()
        self._prepare = lru_cache(MAX_PREPARED)(rules.prepare)

    async def find(
        self, asked: Asked, accept: Callable[[Near], Awaitable[T | None]], *, beside: bool = False
    ) -> Finding[T]:
        """Return the first question that passes the guard and whose answer ``accept`` returns."""
        if self._pause.on:
            return Finding(reason="paused")
        try:
            async with asyncio.timeout(self._seconds * 10 if beside else self._seconds):
                found = await self._find(asked, accept)
        except (FirstTokenError, TimeoutError) as error:
            self._pause.failed()
            return Finding(reason=f"failed: {type(error).__name__}")
        self._pause.worked()
        return found

    async def add(self, asked: Asked, now: float) -> None:
        """Add a question that was answered. Raises StoreError."""
        if self._pause.on:
            return
        try:
            async with asyncio.timeout(self._seconds * 10):
                vector = await self._vector(asked)
                if vector is not None:
                    canonical = self._rules.canonical(asked.text)
                    question = Question(asked.key, asked.text, canonical, vector, now)
                    await self._index.add(asked.scope, question)
        except (FirstTokenError, TimeoutError):
            self._pause.failed()

    async def aclose(self) -> None:
        """Close the index."""
        await self._index.aclose()

    async def remove(self, asked: Asked, near: Near) -> None:
        """Take a question out of the index. Raises StoreError."""
        await self._index.remove(asked.scope, near.key)

    async def _find(self, asked: Asked, accept: Callable[[Near], Awaitable[T | None]]) -> Finding[T]:
        equal = await self._index.equal(asked.scope, self._rules.canonical(asked.text))
        first = await self._first(asked, [equal] if equal else [], accept, "words")
        if first.answer is not None:
            return first
        vector = await self._vector(asked)
        if vector is None:
            return Finding(reason="no vector")
        near = await self._index.nearest(asked.scope, vector, self._settings.candidates)
        others = [
            one
            for one in near
            if one.score >= self._settings.threshold and not (equal and one.key == equal.key)
        ]
        found = await self._first(asked, others, accept, "meaning")
        return found if found.near or not first.near else first

    async def _first(
        self,
        asked: Asked,
        candidates: Sequence[Near],
        accept: Callable[[Near], Awaitable[T | None]],
        reason: str,
    ) -> Finding[T]:
        """Return the first of the candidates that may answer, or why the nearest of them may not."""
        why: Finding[T] = Finding(reason="nothing near")
        for one in candidates:
            if one.key == asked.key:
                continue  # its own answer, which is not there any more
            verdict = self._rules.verdict(self._prepare(asked.text), self._prepare(one.text))
            answer = await accept(one) if verdict.same else None
            if answer is not None:
                return Finding(one, answer, reason)
            if why.near is None:
                why = Finding(one, reason="gone" if verdict.same else verdict.reason)
        return why

    async def _vector(self, asked: Asked) -> bytes | None:
        """Return the question's vector, asked for once; None where that failed. Raises FirstTokenError."""
        async with asked.lock:
            if not asked.tried:
                asked.tried = True
                request = EmbedRequest(
                    self._settings.embedding, inputs=(self._rules.embedding_text(asked.text),)
                )
                deadline = asyncio.get_running_loop().time() + self._seconds * 10
                call = EmbedCall(request=request, deadline=deadline, tenant=asked.tenant)
                vectors = (await self._embedder.embed(call)).vectors
                asked.vector = vectors[0] if vectors else None
            return asked.vector
