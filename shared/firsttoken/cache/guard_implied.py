"""What a kind of question says without a word for it: why things (happen), how long it (takes)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from firsttoken.cache.guard_slots import Word
from firsttoken.cache.words import Lexicon

_BY_KIND = {
    "why": frozenset(("happen",)),
    "duration": frozenset(("last", "bring")),
}
_BY_MEASURE = {
    "speed": frozenset(("travel", "move", "go")),
    "distanc": frozenset(("travel", "go")),
    "population": frozenset(("live",)),
    "weight": frozenset(("weigh",)),
    "cost": frozenset(("pay", "sell")),
}
_OVER_TIME = frozenset(("duration", "frequency", "times"))
IMPLIED = frozenset(("fix", "work", "pay", "owe")).union(*_BY_KIND.values(), *_BY_MEASURE.values())
"""What a text may lack however little it shares with the other."""
_BINDING = {"need": "must", "worth": "should", "allow": "can"}
"""Words that make a question of yes or no one of what must, should or can be."""


def implied(kinds: list[str], words: dict[str, Word], lexicon: Lexicon) -> frozenset[str]:
    """Return what of the words is said by the kind of question, or by what is measured."""
    said: set[str] = set()
    for kind in kinds:
        said |= _BY_KIND.get(kind, frozenset())
    acts = "last" in said and any(
        one.sort == "verb" and concept not in said for concept, one in words.items()
    )
    if acts:
        said.discard("last")  # how long its charge lasts is not how long it takes to charge it
    if not _OVER_TIME.isdisjoint(kinds):
        said |= lexicon.units  # "how many hours does it take", "how many times a day"
    for measure in _BY_MEASURE.keys() & words.keys():
        said |= _BY_MEASURE[measure]
    return frozenset(said)


def binding(kinds: list[str], words: AbstractSet[str]) -> tuple[str, str]:
    """Return the modal that a word of a question of yes or no stands for, and the word; or nothing."""
    if kinds == ["yesno"]:
        for word, modal in _BINDING.items():
            if word in words:
                return modal, word
    return "", ""


def is_conversion(
    numbers: list[str], words: dict[str, Word], optional: AbstractSet[str], lexicon: Lexicon
) -> bool:
    """Return whether so much of one unit is asked for in another one."""
    if len(numbers) != 1:
        return False
    named = [one for one in words if one not in optional and one not in numbers]
    return len(named) == 2 and lexicon.units.issuperset(named)


def unordered(words: dict[str, Word]) -> dict[str, Word]:
    """Return words whose order says nothing, as that of the units of a conversion."""
    return {concept: Word(concept, "", one.sort, 0) for concept, one in sorted(words.items())}
