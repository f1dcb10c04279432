"""English words for the guard of the semantic cache: one form for each, and phrases that ask for the same.

Read once, when first wanted, from ``guard_en.toml`` beside this module; that takes about 35 ms.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from itertools import product

from msgspec import Struct

_CACHED = 8192
_CODE = 2
"""Goes up with every change of the guard's code that changes a verdict or a canonical form."""
_KEPT = frozenset(
    (  # noqa: SIM905 - what looks like an ending but is none
        "action apartment basement business caption department document edition element family fiction "
        "fraction lotion mansion moment motion nation option pension portion position potion production "
        "question relation section session statement station supply apply reply daily weekly monthly "
        "yearly assembly italy early only likely friendly rally bully jelly anomaly multiply imply comply "
        "comment experiment instrument supplement during spring morning evening string king ring thing "
        "ceiling sibling wedding clothing pudding red bed need feed speed seed weed bleed breed hundred "
        "sacred series species always bus gas lens news this is was has its us yes less plus across "
        "address access process express glass grass class mass pass loss boss cross dress press stress "
        "mission passion condition tradition motivation july belly"
    ).split()
)
_IZE = re.compile(r"(\w{3,}[^aeiou])is(e|es|ed|ing|er|ers|ation|ations)$")
_NOT_IZE = (
    "exerc",
    "prom",
    "adv",
    "rev",
    "superv",
    "telev",
    "surpr",
    "comprom",
    "enterpr",
    "prec",
    "merchand",
)
_ACTS = frozenset(("@how", "@can", "@should", "@must"))
_ASKING = frozenset(("what", "how", "which", "who", "when", "where"))
_PAST = frozenset(("was", "were", "did"))
_PRESENT = frozenset(("is", "are", "do", "does"))
_SPEAKER = frozenset(("i", "we", "me", "us"))
_LISTED = tuple("adjectives antonyms dates irregular light measures money names units verbs".split())  # noqa: SIM905
"""Parts of the data whose words are known."""
_VOWELS = frozenset("aeiouy")


class Lexicon(Struct, frozen=True):
    """What the guard knows of a language, by the one form of each word (`fold`)."""

    phrases: dict[str, dict[tuple[str, ...], tuple[str, ...]]]
    """By their first word: the words of a phrase, and what stands for them."""
    longest: dict[str, int]
    """By their first word: how many words the longest phrase has."""
    groups: dict[str, str]
    irregular: dict[str, str]
    spellings: dict[str, str]
    adjectives: frozenset[str]
    negated: dict[str, str]
    stop: frozenset[str]
    light: frozenset[str]
    generic: frozenset[str]
    money: frozenset[str]
    agents: frozenset[str]
    symmetric: frozenset[str]
    roles: dict[str, str]
    negations: dict[str, str]
    quantifiers: dict[str, str]
    small: frozenset[str]
    """Words without content: stop words, and those that bind, negate, count or join."""
    verbs: frozenset[str]
    qualities: frozenset[str]
    measures: frozenset[str]
    generative: frozenset[str]
    names: frozenset[str]
    dates: frozenset[str]
    units: frozenset[str]
    antonyms: dict[str, frozenset[str]]
    akin: dict[str, frozenset[str]]
    """What may stand for a word as one of its senses: this is not so of all that are akin to one."""
    families: dict[str, str]
    """The word that stands for all that are akin to one another by any way."""
    known: frozenset[str]
    """Stems that an unknown word may be a slip of the pen for."""
    plain: frozenset[str]
    """Stems that are no slip, though they look like one."""


@lru_cache(maxsize=1)
def rules_version() -> str:
    """Return what the guard's verdicts depend on: the version of its code, and a digest of its data.

    What was judged or put into canonical form by another version is not to be trusted.
    """
    return f"{_CODE}-{sha256(_data()).hexdigest()[:16]}"


def _data() -> bytes:
    return resources.files(__package__).joinpath("guard_en.toml").read_bytes()


@lru_cache(maxsize=1)
def english() -> Lexicon:
    """Return the English lexicon, read when first asked for: about 35 ms of CPU, 9 MB."""
    data = tomllib.loads(_data().decode())
    lines = {name: [line.split() for line in text.splitlines() if line] for name, text in data.items()}
    irregular = {form: base for base, *forms in lines["irregular"] for form in forms}
    adjectives = frozenset(data["adjectives"].split())
    spellings = {words[0]: words[1] for words in lines["spellings"]}
    known = _Forms(irregular, adjectives, spellings)
    groups = {known.stem(word): known.stem(group[0]) for group in reversed(lines["groups"]) for word in group}

    def folded(name: str) -> frozenset[str]:
        stems = [known.stem(word) for word in data[name].split()]
        return frozenset([groups.get(stem, stem) for stem in stems])

    bound = {
        name: {words[0]: words[1] for words in lines[name]} for name in ("roles", "negations", "quantifiers")
    }
    stop, symmetric = frozenset(data["stop"].split()), frozenset(data["symmetric"].split())
    phrases, longest = _phrases(data["phrases"])
    akin = _linked(lines["akin"], known, groups)
    return Lexicon(
        phrases=phrases,
        longest=longest,
        groups=groups,
        irregular=irregular,
        spellings=spellings,
        adjectives=adjectives,
        negated={words[0]: words[1] for words in lines["negated"]},
        stop=stop,
        light=folded("light"),
        generic=folded("generic"),
        money=folded("money"),
        agents=folded("agents") - folded("verbs"),
        symmetric=symmetric,
        **bound,
        small=frozenset().union(stop, symmetric, *bound.values()),
        verbs=folded("verbs"),
        qualities=folded("qualities") | folded("adjectives"),
        measures=folded("measures"),
        generative=folded("generative"),
        names=folded("names"),
        dates=folded("dates"),
        units=folded("units"),
        antonyms=_linked(lines["antonyms"], known, groups),
        akin=akin,
        families=_families(akin),
        known=_known(data, known, groups, akin),
        plain=frozenset(map(known.stem, data["plain"].split())),
    )


@lru_cache(maxsize=_CACHED)
def fold(word: str) -> str:
    """Return the one form of a lower-case word: its stem, or the word that stands for its group.

    Comparatives and superlatives are the adjective with ``+er`` and ``+est``.
    """
    lexicon = english()
    stem = _Forms(lexicon.irregular, lexicon.adjectives, lexicon.spellings).stem(word)
    return _grouped(stem, lexicon.groups)


class _Forms:
    """Brings the forms of a word to one stem, which need not be a word."""

    def __init__(
        self, irregular: dict[str, str], adjectives: frozenset[str], spellings: dict[str, str]
    ) -> None:
        self._irregular = irregular
        self._adjectives = adjectives
        self._spellings = spellings

    def stem(self, word: str) -> str:
        """Return the stem of a lower-case word."""
        word = self._spelled(word)
        word = self._irregular.get(word, word)
        if len(word) < 4 or word in _KEPT or not word.isalpha():
            return word
        return self._degree(word) or _bare(_derived(self._inflected(word)))

    def _spelled(self, word: str) -> str:
        """Return the American spelling."""
        word = self._spellings.get(word, word)
        for length in (len(word) - 1, len(word) - 2, len(word) - 3):  # colours, coloured, colouring
            if length > 3 and word[:length] in self._spellings and word[length:] in ("s", "ed", "ing"):
                return self._spellings[word[:length]] + word[length:]
        match = _IZE.match(word)
        if match and not match[1].startswith(_NOT_IZE):
            return f"{match[1]}iz{match[2]}"
        return word

    def _degree(self, word: str) -> str:
        """Return the adjective of a comparative or superlative with its degree, or nothing."""
        for ending in ("er", "est"):
            if word.endswith(ending):
                rest = word.removesuffix(ending)
                for base in (rest, rest + "e", rest[:-1], rest[:-1] + "y"):
                    if base in self._adjectives and (base != rest[:-1] or rest[-1:] == rest[-2:-1]):
                        return f"{_bare(base)}+{ending}"
        return ""

    def _inflected(self, word: str) -> str:
        """Return a word without the ending of its plural, tense or person."""
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
            word = word[:-2]
        elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
            word = word[:-1]
        if word in _KEPT:
            return word
        for ending in ("ing", "ed"):
            rest = word.removesuffix(ending)
            if rest != word and len(rest) > 1 + (ending == "ed") and _VOWELS & set(rest):
                rest = self._irregular.get(rest, rest)
                if ending == "ed" and rest.endswith("i"):
                    return rest[:-1] + "y"
                return rest + "e" if _is_short(rest) or (rest.endswith("at") and len(rest) > 5) else rest
        return self._irregular.get(word, word)


def _is_short(rest: str) -> bool:
    """Return whether an e was lost before the ending: bak-ing, but fix-ing and eat-ing (Porter's ``*o``)."""
    return (
        len(rest) == 3
        and rest[0] not in _VOWELS
        and rest[1] in _VOWELS
        and rest[2] not in _VOWELS
        and rest[2] not in "wx"
    )


def _derived(word: str) -> str:
    """Return what a noun or adverb was made from, where its ending tells."""
    if word in _KEPT:
        return word
    for ending, instead, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return word[: len(word) - len(ending)] + instead
    return word


_ENDINGS = (
    ("ization", "ize", 3),
    ("isation", "ize", 3),
    ("ation", "", 4),
    ("ate", "", 4),
    ("tion", "t", 3),
    ("ssion", "ss", 3),
    ("ment", "", 4),
    ("iness", "y", 3),
    ("ness", "", 3),
    ("ily", "y", 3),
    ("bly", "ble", 3),
    ("ly", "", 4),
)
"""Of nouns and adverbs: the ending, what stands for it, and the letters that must be left."""


def _bare(word: str) -> str:
    """Return a word without its last e, and with one last letter instead of two."""
    if len(word) > 4 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouys":
        word = word[:-1]
    return word


def _linked(lines: list[list[str]], known: _Forms, groups: dict[str, str]) -> dict[str, frozenset[str]]:
    """Return what stands beside each word on any of its lines."""
    found: dict[str, set[str]] = {}
    for line in lines:
        stems = [_grouped(known.stem(word), groups) for word in line]
        for stem in stems:
            found.setdefault(stem, set()).update(set(stems) - {stem})
    return {stem: frozenset(others) for stem, others in found.items()}


def _grouped(stem: str, groups: dict[str, str]) -> str:
    base, plus, degree = stem.partition("+")
    return groups.get(stem) or groups.get(base, base) + plus + degree


def _families(akin: dict[str, frozenset[str]]) -> dict[str, str]:
    """Return the first word of all that can be reached from each."""
    found: dict[str, str] = {}
    for first in sorted(akin):
        waiting = [first]
        while waiting:
            word = waiting.pop()
            if word not in found:
                found[word] = first
                waiting += akin[word]
    return found


def _known(
    data: dict[str, str], known: _Forms, groups: dict[str, str], akin: dict[str, frozenset[str]]
) -> frozenset[str]:
    words = {word for name in _LISTED for word in data[name].split()}
    return frozenset([*groups, *groups.values(), *akin, *map(known.stem, words)])


def _phrases(
    text: str,
) -> tuple[dict[str, dict[tuple[str, ...], tuple[str, ...]]], dict[str, int]]:
    """Return phrases by their first word, and the length of the longest of each."""
    phrases: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {}
    longest: dict[str, int] = {}
    for line in filter(None, text.splitlines()):
        pattern, _, meaning = line.partition(" =")
        for chosen in _expanded(pattern):
            words = tuple(" ".join(chosen).split())
            if not words:
                continue
            instead = [chosen[int(word[1:]) - 1] if word[0] == "$" else word for word in meaning.split()]
            instead = [*_kept(words, instead), *instead]
            phrases.setdefault(words[0], {}).setdefault(words, tuple(" ".join(instead).split()))
            longest[words[0]] = max(longest.get(words[0], 0), len(words))
    return phrases, longest


def _kept(words: tuple[str, ...], instead: list[str]) -> Iterator[str]:
    """Yield the marks of what a phrase says besides its meaning: who speaks, and of when."""
    if _ACTS.intersection(instead):
        yield "@i" if _SPEAKER.intersection(words) else "@you"
    elif words[0] in _ASKING and instead:
        if _PAST.intersection(words):
            yield "@past"
        elif _PRESENT.intersection(words) and "@why" not in instead:
            yield "@present"


def _expanded(pattern: str) -> Iterator[tuple[str, ...]]:
    """Yield every choice of words of a pattern: one for each of its words and of its ``(a|b)``."""
    parts = re.findall(r"\([^)]*\)|\S+", pattern)
    return product(*[part[1:-1].split("|") if part[0] == "(" else (part,) for part in parts])
