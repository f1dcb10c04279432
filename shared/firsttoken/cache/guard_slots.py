"""What a question asks for, as slots that can be compared: its kind, words, numbers, negations, directions.

A `Prepared` is made once for a text (`firsttoken.cache.guard_reader`) and kept with it.
"""

from __future__ import annotations

from msgspec import Struct

from firsttoken.cache.words import english

SENTENCE = 1000
"""Between the `Word.chunk` of two sentences, at least."""


class Word(Struct, frozen=True):
    """One thing that a question is about, and where it stands in it."""

    concept: str
    role: str
    """What binds it to the rest: a preposition, with ``~`` where others may stand for it, or nothing."""
    sort: str
    """``verb``, ``quality``, ``measure``, or anything else."""
    chunk: int
    """Words with nothing between them (``password reset``) have the same."""
    head: str = ""
    """The last word before the preposition."""


class Prepared(Struct, frozen=True):
    """A text as the guard compares it. Memory: about 200 bytes a word."""

    text: str
    """In small letters, without the marks at the ends of words that no reader cares for."""
    words: dict[str, Word] = {}
    names: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    """Words that the other text need not have."""
    numbers: tuple[str, ...] = ()
    counted: dict[str, str] = {}
    """The number that stands before a word."""
    kinds: tuple[str, ...] = ()
    tense: str = ""
    modal: str = ""
    persons: frozenset[str] = frozenset()
    subject: str = ""
    """Who acts: ``anyone`` (how do I, can you...) or ``named``."""
    verb: str = ""
    """What is done: the word after "how do I"."""
    negations: tuple[str, ...] = ()
    scope: frozenset[str] = frozenset()
    quantifiers: frozenset[str] = frozenset()
    joined: dict[frozenset[str], str] = {}
    """Pairs whose order does not matter, and the word that joins them: ``and``, ``or``, ``@versus``."""
    repeated: frozenset[str] = frozenset()
    """What one sentence says twice."""
    small: tuple[str, ...] = ()
    """All that was read, where there are no content words."""
    is_read: bool = True
    """Whether the text was short enough to be understood."""

    def canonical(self) -> str:
        """Return the words that must be the same, sorted; of a text that was not read all, in their order."""
        if not self.is_read:
            return self.text
        families = english().families
        kept = [concept for concept in self.words if concept not in self.optional] or self.words or self.small
        return " ".join(sorted([families.get(concept, concept) for concept in kept]))
