"""Words that may say the same in one of their senses, put in each other's place before texts are compared.

A group of synonyms holds everywhere; akin words only where everything else is the same, and not by way of a
third one (to kill and to cancel a process are to end it, but no order is killed).
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from firsttoken.cache.guard_slots import Prepared, Word
from firsttoken.cache.words import english

_MOST = 2
"""Words of a text that others may stand for; at least as many must be the same."""


def aligned(a: Prepared, b: Prepared) -> Prepared:
    """Return ``b`` with the words of ``a`` that are akin to its own."""
    if a.words.keys() == b.words.keys():
        return b
    akin = english().akin
    only_a = {concept for concept in a.words if concept not in b.words}
    found: dict[str, str] = {}
    for concept in b.words:
        if concept in akin and concept not in a.words:
            others = akin[concept] & only_a
            if len(others) == 1:
                found[concept] = next(iter(others))
    twice = Counter(found.values())
    found = {concept: other for concept, other in found.items() if twice[other] == 1}
    is_alike = 0 < len(found) <= _MOST and len(a.words) - len(only_a) >= len(found)
    return _renamed(b, found) if is_alike else b


def _renamed(text: Prepared, instead: dict[str, str]) -> Prepared:
    def named(concept: str) -> str:
        return instead.get(concept, concept)

    words = {}
    for concept, word in text.words.items():
        words[named(concept)] = Word(named(concept), word.role, word.sort, word.chunk, word.head)
    return replace(
        text,
        words=words,
        verb=named(text.verb),
        names=frozenset(map(named, text.names)),
        optional=frozenset(map(named, text.optional)),
        counted={named(concept): number for concept, number in text.counted.items()},
        scope=frozenset(map(named, text.scope)),
        repeated=frozenset(map(named, text.repeated)),
        joined={frozenset(map(named, pair)): word for pair, word in text.joined.items()},
    )
