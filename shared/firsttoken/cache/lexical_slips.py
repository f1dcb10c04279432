"""Slips of the pen: the known word that an unknown one was meant to be ("recieve", "pasword", "seperate").

Only words that the lexicon does not know are looked at, so a real word that looks like another one has to be
known (``plain`` in ``guard_en.toml``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from firsttoken.cache.words import english, fold

_CACHED = 8192
_LEAST = 5
"""Letters of a stem: shorter ones are too often words of their own."""
_LONG = 8
"""Letters of a stem from which on one that is missing, too many or another vowel is a slip, too."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = "aeiou"


@lru_cache(maxsize=_CACHED)
def mended(word: str) -> str:
    """Return the one form (`fold`) of a lower-case word, or of the known word that it is a slip of.

    Time: 30 us for an unknown word of ten letters, once.
    """
    concept = fold(word)
    lexicon = english()
    if len(concept) < _LEAST or concept in lexicon.known or concept in lexicon.plain or not concept.isalpha():
        return concept
    found = next((slip for slip in _slips(concept) if slip in lexicon.known), concept)
    return lexicon.groups.get(found, found)


def _slips(stem: str) -> Iterator[str]:
    """Yield what a stem may have been meant to be; its first letter is right."""
    for at in range(1, len(stem)):
        before, here, rest = stem[:at], stem[at], stem[at + 1 :]
        if rest:
            yield before + rest[0] + here + rest[1:]
        yield before + here + here + rest
        if here == before[-1]:
            yield before + rest
        if len(stem) < _LONG or not rest:
            continue
        yield before + rest
        if here in _VOWELS:
            for letter in _VOWELS:
                yield before + letter + rest
        for letter in _LETTERS:
            yield before + letter + here + rest
