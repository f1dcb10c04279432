"""Numbers in words as numbers in digits: twenty-one is 21, five hundred 500, the third #3."""

from __future__ import annotations

NUMBER_WORDS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "  # noqa: SIM905
        "seventeen eighteen nineteen".split()
    )
} | {
    word: 10 * value
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),  # noqa: SIM905
        2,
    )
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(),  # noqa: SIM905
        1,
    )
} | {"twentieth": 20, "hundredth": 100}
_NUMBER = 4
_LONGEST = 30


def digits(number: str, suffix: str = "") -> str:
    """Return a number one way: without commas, scaled by ``k`` or ``bn``, a fraction as a decimal."""
    number = number.replace(",", "")[:_LONGEST]
    if suffix in ("st", "nd", "rd", "th"):
        return f"#{number}"
    if "/" in number:
        above, _, below = number.partition("/")
        return f"{float(above) / float(below):g}" if float(below) else number
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
        if word in NUMBER_WORDS or (
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
    return before not in ("no", "this", "that", "which", "the", "each", "every", "any") and following in (
        "hour", "minute", "day", "week", "month", "year", "mile", "kilometer", "km", "cup", "teaspoon", "tablespoon",
        "pound", "dollar", "euro", "kg", "kilogram", "liter", "gallon", "person", "million", "egg", "time", "inch",
        "foot", "meter", "gram", "percent",
    )  # fmt: skip


def _compound(found: list[tuple[str, int]], start: int) -> tuple[float, int]:
    """Return the value of the number words from ``start`` on, and how many words they are."""
    total = current = 0.0
    index = start
    previous = -1
    while index < len(found):
        word = found[index][0]
        if word in NUMBER_WORDS:
            value = NUMBER_WORDS[word]
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
    return found[index - 1][0] in _SCALES and after in NUMBER_WORDS
