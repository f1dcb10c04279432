"""Cuts an English question into tokens: contractions written out, numbers as digits, phrases folded.

A token is its text and what is known of how it was written (`CAPITAL`, `LITERAL`, `NUMBER`).
"""

from __future__ import annotations

import re
from unicodedata import normalize

from firsttoken.cache.lexical_numbers import digits, spelled_out
from firsttoken.cache.words import english

Token = tuple[str, int]
CAPITAL, LITERAL, NUMBER = 1, 2, 4
MAX_CHARACTERS = 2000
"""Of a longer text the guard knows only whether another is equal."""

_QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2044": "/", "\u00d7": "*"}
)
_MARKS = ".,;:!?\"'()\u00a1\u00bf\u3001\u3002"
_TOKEN = re.compile(
    r"""
    (?P<literal>`[^`]+`|"[^"]+"|(?<!\w)'[^']{3,}'(?!\w)|https?://\S+|[\w.+-]+@[\w-]+\.[\w.]+|(?<!\w)~?/[\w./-]+\w
        |\d+[/-]\d+[/-]\d+|\d+\.\d+\.\d[\d.]*|(?<!\w)--?[a-z][\w-]*=?(?=\s|$))
    |(?P<clock>\d{1,2}(?::\d\d)?\s?(?:a\.?m\.?|p\.?m\.?)(?!\w)|\d{1,2}:\d\d)
    |(?P<number>\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?P<suffix>(?:st|nd|rd|th|k|K|bn)(?!\w))?
    |(?P<initials>(?:[A-Z]\.){2,})
    |(?P<word>\.?[^\W\d_](?:[\w]|[.](?=\w)|['](?=[a-z]))*(?:\+\+|\#)?)
    |(?P<other>_\w+|[$\u20ac\u00a3\u00a5%<>=+*/&?,;:!()\u00b0-]|\.(?=\s|$))
    """,
    re.VERBOSE,
)
_SIGNS = {
    "$": "dollar",
    "\u20ac": "euro",
    "\u00a3": "gbp",
    "\u00a5": "yen",
    "%": "percent",
    "\u00b0": "degree",
}
_IS = frozenset(("what", "who", "where", "when", "how", "why", "it", "that", "there", "he", "she", "here"))
_SHORT = {"m": "am", "re": "are", "ve": "have", "ll": "will", "d": "would", "em": "them"}
_ROMAN = {
    "II": 2,
    "III": 3,
    "IV": 4,
    "VI": 6,
    "VII": 7,
    "VIII": 8,
    "IX": 9,
    "XI": 11,
    "XII": 12,
    "XIV": 14,
    "XVI": 16,
}
_INITIALS = {"US": "usa", "IT": "it-", "WHO": "who-", "A": "a-", "May": "may-", "OR": "or-"}
"""What is no pronoun or article, written so inside a sentence."""
_UNITS = {
    "min": "minute",
    "h": "hour",
    "s": "second",
    "m": "meter",
    "in": "inch",
    "c": "celsius",
    "f": "fahrenheit",
}
"""Words that are units behind a number."""
_SWITCHED = {"on": "turnon", "off": "turnoff"}
_FASTER = {"faster": "accelerate", "quicker": "accelerate"}
_CHANGED = {**_FASTER, "smaller": "decrease", "bigger": "increase", "larger": "increase"}
_GOT = {**_FASTER, "out": "remove", "off": "remove", "back": "recover"}
_HELD = {"from": "prevent"}
_SEPARABLE = {
    "stop": _HELD,
    "stopping": _HELD,
    "keep": _HELD,
    "prevent": _HELD,
    "preventing": _HELD,
    "turn": _SWITCHED,
    "turning": _SWITCHED,
    "turned": _SWITCHED,
    "switch": _SWITCHED,
    "switching": _SWITCHED,
    "switched": _SWITCHED,
    "make": _CHANGED,
    "making": _CHANGED,
    "get": _GOT,
    "getting": _GOT,
}
"""Verbs whose second half may stand behind their object, and what the two are together."""
_GETTING = frozenset(("get", "getting"))
_OFF = frozenset(("of", "a", "an", "the", "my", "your", "his", "her", "our", "their"))
_SENTENCE = frozenset((".", "?", "!", ":"))
_AFTER_PARTICLE = frozenset(
    (
        "?",
        ",",
        ".",
        "!",
        ";",
        "in",
        "at",
        "when",
        "if",
        "after",
        "before",
        "by",
        "for",
        "and",
        "or",
        "with",
        "while",
    )
)


def folded(text: str) -> str:
    """Return a text without what no reader cares for: size of letters, spaces, marks around words."""
    words = normalize("NFKC", text).translate(_QUOTES).casefold().split()
    return " ".join(filter(None, [word.strip(_MARKS) for word in words]))


def tokens(text: str) -> list[Token]:
    """Return the tokens of an English text, its phrases replaced by what stands for them."""
    plain = normalize("NFKC", text).translate(_QUOTES)
    found = _cut(plain.lower() if plain.isupper() else plain)
    return _with_phrases(_with_particles(spelled_out(found)))


def _cut(text: str) -> list[Token]:
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if kind == "literal":
            found.append((token.strip("`\"'").casefold(), LITERAL))
        elif kind == "clock":
            found.append((_clock(token), NUMBER))
        elif kind in ("number", "suffix"):
            found.append((digits(match["number"], match["suffix"] or ""), NUMBER))
        elif kind == "initials":
            found.append((token.replace(".", "").casefold(), CAPITAL))
        elif kind == "word":
            _add_word(found, token, joined=text[match.start() - 1 : match.start()] == "-")
        elif token in _SIGNS:
            found.append((_SIGNS[token], 0))
        elif token != "-" or text[match.start() - 1 : match.start()] == " ":  # noqa: S105 - a sign
            found.append((token, 0))
    return _amounts(found)


def _add_word(found: list[Token], token: str, *, joined: bool) -> None:
    """Add a word, what it means where it stands, or the words that its contraction stands for."""
    lower = token.casefold()
    if joined and lower == "free" and found:
        found.insert(len(found) - 1, ("@without", 0))
    elif found and found[-1][1] & NUMBER and lower in _UNITS:
        found.append((_UNITS[lower], 0))
    elif token in _INITIALS and found and found[-1][0] not in _SENTENCE:
        found.append((_INITIALS[token], CAPITAL))
    elif token in _ROMAN and found:
        found.append((str(_ROMAN[token]), NUMBER))
    else:
        flags = CAPITAL if token[0].isupper() or not token.islower() else 0
        found += _written_out(lower, flags) if "'" in lower else [(lower, flags)]


def _written_out(word: str, flags: int) -> list[Token]:
    """Return the words of a contraction, or an owner and a mark."""
    head, _, tail = word.rpartition("'")
    if word in ("can't", "couldn't"):
        return [("can", 0), ("not", 0)]
    if word in ("won't", "shan't"):
        return [("not", 0)]
    if word.endswith("n't"):
        return [(word[:-3], 0), ("not", 0)]
    if tail == "s":
        return [(head, flags), ("us" if head == "let" else "is" if head in _IS else "'s", 0)]
    if tail in _SHORT:
        return [(head, flags), (_SHORT[tail], 0)]
    return [(word.replace("'", ""), flags)]


def _amounts(found: list[Token]) -> list[Token]:
    """Put a currency that stands before its number after it."""
    signs = {"dollar", "euro", "gbp", "yen"}
    for index in range(len(found) - 1):
        if found[index][0] in signs and found[index + 1][1] & NUMBER:
            found[index], found[index + 1] = found[index + 1], found[index]
    return found


def _clock(token: str) -> str:
    """Return a time of day as minutes after midnight; without am or pm as it is written."""
    bare = token.casefold().replace(".", "").replace(" ", "")
    hours, _, minutes = bare.rstrip("apm").partition(":")
    past = int(hours) * 60 + int(minutes or 0)
    if bare.endswith("pm") and int(hours) < 12:
        past += 720
    elif bare.endswith("am") and hours == "12":
        past -= 720
    return f"t{past}"


def _with_particles(found: list[Token]) -> list[Token]:
    """Return the tokens with what belongs to a verb beside it: "turn the light on" as "turnon the light"."""
    for index, (word, _) in enumerate(found):
        for later in range(index + 2, min(index + 7, len(found))) if word in _SEPARABLE else ():
            particle = found[later][0]
            following = found[later + 1][0] if later + 1 < len(found) else "?"
            meaning = _SEPARABLE[word].get(particle)
            is_phrase = particle == "back" and found[later - 1][0] == "money"
            if meaning and not is_phrase and _ends(word, particle, following):
                found[index] = (meaning, 0)
                if meaning == "remove":
                    found[later : later + 1 + (following == "of")] = [("from", 0)]
                elif meaning in ("increase", "decrease"):
                    found[later] = ("size", 0)
                else:
                    del found[later]
                return found
    return found


def _ends(verb: str, particle: str, following: str) -> bool:
    """Return whether a particle belongs to the verb, not to what follows."""
    if particle == "from":
        return following.endswith("ing")
    if particle == "out":
        return following == "of"
    if particle == "off" and verb in _GETTING:
        return following in _OFF
    return following in _AFTER_PARTICLE


def _with_phrases(found: list[Token]) -> list[Token]:
    """Return the tokens with each longest phrase replaced."""
    lexicon = english()
    phrases, longest, spellings = lexicon.phrases, lexicon.longest, lexicon.spellings
    words = [spellings.get(word, word) for word, _ in found]
    result: list[Token] = []
    index = 0
    while index < len(words):
        choices = phrases.get(words[index])
        if choices is not None and not found[index][1] & LITERAL:
            for length in range(min(longest[words[index]], len(words) - index), 0, -1):
                instead = choices.get(tuple(words[index : index + length]))
                if instead is not None:
                    result += [(word, NUMBER if word.isdecimal() else 0) for word in instead]
                    index += length
                    break
            else:
                result.append((words[index], found[index][1]))
                index += 1
        else:
            result.append((words[index], found[index][1]))
            index += 1
    return result
