"""Numbers in words as numbers in digits: twenty-one is 21, five hundred 500, the third #3."""

from __future__ import annotations

from firsttoken.cache.words import english, fold

_SMALL = (
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: value for value, word in enumerate(_SMALL)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
    "twelfth": 12,
    "twentieth": 20,
    "hundredth": 100,
}
_COUNTED = frozenset(("million", "egg", "time", "person"))
_NUMBER = 4
_EXACT = 15
"""Digits of a float that are sure."""


def digits(number: str, suffix: str = "") -> str:
    """Return a number one way: without commas, scaled by ``k`` or ``bn``, a fraction as a decimal."""
    number = number.replace(",", "")
    if suffix in ("st", "nd", "rd", "th"):
        return f"#{number}"
    above, slash, below = number.partition("/")
    if len(number) > _EXACT or (slash and not float(below)):
        return number + suffix
    if slash:
        return f"{float(above) / float(below):g}"
    if suffix:
        return _plain(float(number) * {"k": 1e3, "bn": 1e9}[suffix.casefold()])
    whole, dot, part = number.partition(".")
    return (whole.lstrip("0") or "0") + (dot + part if part.strip("0") else "")


def _plain(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:g}"


def spelled_out(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return tokens with numbers in words replaced by digits.

    A lone "one" stays a word, since it mostly means somebody or something.
    """
    result: list[tuple[str, int]] = []
    index = 0
    while index < len(found):
        word, flags = found[index]
        if word in _VALUES or (
            word in _SCALES and result and (result[-1][0] in ("a", "an") or result[-1][1] & _NUMBER)
        ):
            value, length = _compound(found, index)
            if word in _SCALES:
                before = result.pop()
                value *= float(before[0]) if before[1] & _NUMBER and _is_number(before[0]) else 1
            if length == 1 and word == "one" and not _is_counted(found, index):
                result.append((word, flags))
            else:
                result.append((_plain(value), _NUMBER))
            index += length
        elif word in _ORDINALS and not (word == "second" and result and result[-1][1] & _NUMBER):
            result.append((f"#{_ORDINALS[word]}", _NUMBER))
            index += 1
        else:
            result.append((word, flags))
            index += 1
    return result


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _is_counted(found: list[tuple[str, int]], index: int) -> bool:
    """Return whether the "one" before a word counts it: one hour, one egg; not one of, one can."""
    following = found[index + 1][0] if index + 1 < len(found) else ""
    before = found[index - 1][0] if index else ""
    if before in ("no", "this", "that", "which", "the", "each", "every", "any"):
        return False
    return following in _COUNTED or fold(following) in english().units


def _compound(found: list[tuple[str, int]], start: int) -> tuple[float, int]:
    """Return the value of the number words from ``start`` on, and how many words they are."""
    total = current = 0.0
    index = start
    previous = -1
    while index < len(found):
        word = found[index][0]
        if word in _VALUES:
            value = _VALUES[word]
            if previous >= 0 and not (previous >= 20 and previous % 10 == 0 and 0 < value < 10):
                break
            current += value
            previous = value
        elif word in _SCALES:
            if word == "hundred":
                current = max(current, 1) * 100
            else:
                total += max(current, 1) * _SCALES[word]
                current = 0
            previous = -1
        elif not (word == "and" and index > start and _continues(found, index)):
            break
        index += 1
    if [word for word, _ in found[index : index + 3]] == ["and", "a", "half"]:
        return total + current + 0.5, index + 3 - start
    return total + current, index - start


def _continues(found: list[tuple[str, int]], index: int) -> bool:
    """Return whether the "and" of "two hundred and five" stands here."""
    after = found[index + 1][0] if index + 1 < len(found) else ""
    return found[index - 1][0] in _SCALES and after in _VALUES
