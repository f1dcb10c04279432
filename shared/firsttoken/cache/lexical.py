"""Texts by their words: their canonical form, how near two are by it, and the semantic cache's decision.

The embedded embedder knows no meaning; over canonical forms instead of the texts themselves it finds
questions that were put in other words of the same groups.
"""

from __future__ import annotations

from functools import lru_cache
from math import fsum

from firsttoken.cache.guard import Prepared, Verdict, prepare, verdict
from firsttoken.embedding import unpack
from firsttoken.providers import lexical
from firsttoken.settings import Semantic

THRESHOLD = Semantic().threshold
_DIMENSIONS = 384
_CACHED = 256
"""Vectors kept, 12 KB each."""


def canonical(text: str, *, language: str = "en") -> str:
    """Return the content words of an English text in their one form, sorted.

    Texts with one canonical form ask for the same if the guard passes them, too. Politeness, stop words and
    words that add nothing are left out. In another language it is the text without marks, in small letters.
    """
    return prepare(text, language=language).canonical()


def embedding_text(text: str, *, language: str = "en") -> str:
    """Return what the embedded embedder is given for a text: its canonical form.

    An embedder that knows meaning is better given the text itself.
    """
    return canonical(text, language=language)


def similarity(a: str, b: str, *, language: str = "en") -> float:
    """Return how near two texts are by the embedded embedder, 0 to 1: the cosine of their canonical forms."""
    return nearness(prepare(a, language=language), prepare(b, language=language))


def nearness(a: Prepared, b: Prepared) -> float:
    """Return `similarity` of prepared texts."""
    return _cosine(a.canonical(), b.canonical())


def same_question(a: str, b: str, *, threshold: float = THRESHOLD, language: str = "en") -> Verdict:
    """Return whether an answer to ``a`` is given to ``b``: the guard passes, and they are near enough.

    Texts with equal canonical forms are near enough at any threshold.
    """
    return decide(prepare(a, language=language), prepare(b, language=language), threshold, language=language)


def decide(a: Prepared, b: Prepared, threshold: float = THRESHOLD, *, language: str = "en") -> Verdict:
    """Return `same_question` of prepared texts."""
    found = verdict(a, b, language=language)
    if not found.same or found.reason == "equal":
        return found
    near = nearness(a, b)
    if near == 1.0:
        return Verdict(same=True, reason="canonical")
    is_near = near >= threshold
    return Verdict(same=is_near, reason="similar" if is_near else "threshold")


def _cosine(one: str, other: str) -> float:
    if one == other:
        return 1.0
    return max(0.0, min(1.0, fsum([x * y for x, y in zip(_vector(one), _vector(other), strict=True)])))


@lru_cache(maxsize=_CACHED)
def _vector(text: str) -> tuple[float, ...]:
    return unpack(lexical.embed(text, _DIMENSIONS))
