"""``firsttoken cache eval``: how often the semantic cache is right about pairs of questions."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from firsttoken.cache.guard import prepare, verdict
from firsttoken.cache.lexical import THRESHOLD, nearness
from firsttoken.errors import ConfigError

_STEPS = tuple([step / 20 for step in range(21)])
_BAR = 24
_TELL_EVERY = 200
_EXPECTED = 'expected {"a": TEXT, "b": TEXT, "same": true or false, "kind": TEXT (may be left out)}'


class Pair(Struct, frozen=True):
    """Two questions, and whether one answer is right for both."""

    a: str
    b: str
    same: bool
    kind: str = "other"


class Judged(Struct, frozen=True):
    """A pair and what the cache makes of it."""

    pair: Pair
    near: float
    """Cosine of the two canonical forms; 1 where they are equal."""
    passed: bool
    reason: str

    def hits(self, threshold: float) -> bool:
        """Return whether the cache would answer both alike at this threshold."""
        return self.passed and self.near >= threshold


class Point(Struct, frozen=True):
    """The cache at one threshold, with the guard and without it."""

    threshold: float
    recall: float
    false_hit_rate: float
    precision: float | None
    unguarded_recall: float
    unguarded_false_hit_rate: float


class Kind(Struct):
    """The counts of one kind of pairs."""

    pairs: int = 0
    hits: int = 0
    false_hits: int = 0


class Result(Struct, frozen=True):
    """What ``--json`` writes: counts, and shares of paraphrases, of near-misses, and of all hits."""

    pairs: int
    paraphrases: int
    near_misses: int
    hits: int
    """Paraphrases that the cache answers alike."""
    false_hits: int
    """Near-misses that the cache answers alike."""
    recall: float
    false_hit_rate: float
    precision: float | None
    threshold: float
    language: str
    kinds: dict[str, Kind] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """What decided against a hit, and how often."""
    curve: list[Point] = field(default_factory=list)


def register(subparsers: Any) -> None:
    """Add the command to a group of subparsers."""
    parser = subparsers.add_parser(
        "eval", help="run pairs of questions through the semantic cache's decision"
    )
    parser.add_argument("pairs", type=Path, metavar="PAIRS.jsonl", help=f"a line for each pair: {_EXPECTED}")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    parser.add_argument(
        "--threshold", type=_share, default=THRESHOLD, metavar="X", help="from 0 to 1 (default %(default)s)"
    )
    parser.add_argument("--language", choices=("en", "other"), default="en", help="(default %(default)s)")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command. Raises ConfigError for a file that is not what was expected."""
    pairs = list(read(parsed.pairs))
    judged = []
    for number, pair in enumerate(pairs, 1):
        judged.append(judge(pair, parsed.language))
        _progress(number, len(pairs))
    result = evaluate(judged, parsed.threshold, parsed.language)
    text = msgspec.json.encode(result).decode() if parsed.json else render(result)
    sys.stdout.write(text + "\n")
    return 0


def read(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file. Raises ConfigError that names the file, the line and what was expected."""
    decode = msgspec.json.Decoder(Pair).decode
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: expected a file of pairs: {error.strerror}") from error
    if not any(line.strip() for line in lines):
        raise ConfigError(f"{path}: no pair in it; {_EXPECTED} on each line")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}, line {number}: {error}; {_EXPECTED}") from error


def judge(pair: Pair, language: str = "en") -> Judged:
    """Return what the guard and the embedded embedder say of a pair."""
    a, b = prepare(pair.a, language=language), prepare(pair.b, language=language)
    found = verdict(a, b, language=language)
    near = 1.0 if found.reason == "equal" else nearness(a, b)
    return Judged(pair, near, found.same, found.reason)


def evaluate(judged: Sequence[Judged], threshold: float = THRESHOLD, language: str = "en") -> Result:
    """Return the figures of judged pairs at a threshold, and the curve over all thresholds."""
    same = [one for one in judged if one.pair.same]
    other = [one for one in judged if not one.pair.same]
    hits = sum(one.hits(threshold) for one in same)
    false_hits = sum(one.hits(threshold) for one in other)
    kinds: dict[str, Kind] = {}
    for one in judged:
        kind = kinds.setdefault(one.pair.kind, Kind())
        kind.pairs += 1
        if one.hits(threshold):
            kind.hits += one.pair.same
            kind.false_hits += not one.pair.same
    missed = [one for one in judged if not one.hits(threshold)]
    reasons = Counter("threshold" if one.passed else one.reason for one in missed)
    return Result(
        pairs=len(judged),
        paraphrases=len(same),
        near_misses=len(other),
        hits=hits,
        false_hits=false_hits,
        recall=_of(hits, len(same)),
        false_hit_rate=_of(false_hits, len(other)),
        precision=_precision(hits, false_hits),
        threshold=threshold,
        language=language,
        kinds=dict(sorted(kinds.items())),
        reasons=dict(reasons.most_common()),
        curve=[_point(same, other, step) for step in _STEPS],
    )


def render(result: Result) -> str:
    """Return the figures for a terminal."""
    precision = "-" if result.precision is None else f"{result.precision:.1%}"
    lines = [
        f"pairs       {result.pairs}: {result.paraphrases} paraphrases, {result.near_misses} near-misses",
        f"hits        {result.hits} of {result.paraphrases} paraphrases (recall {result.recall:.1%})",
        f"false hits  {result.false_hits} of {result.near_misses} near-misses ({result.false_hit_rate:.1%})",
        f"precision   {precision} of all hits",
        f"decided by  threshold {result.threshold:g}, language {result.language}",
        "",
    ]
    width = max(4, *map(len, result.kinds)) if result.kinds else 4
    lines.append(f"{'kind':<{width}}  pairs   hits  false hits")
    lines += [
        f"{name:<{width}}  {kind.pairs:>5}  {kind.hits:>5}  {kind.false_hits:>10}"
        for name, kind in result.kinds.items()
    ]
    lines += [
        "",
        "threshold  recall (#) and false hits (!) with the guard        without it: recall  false hits",
    ]
    return "\n".join([*lines, *map(_drawn, result.curve)])


def _drawn(point: Point) -> str:
    """Return a threshold's line of the plot."""
    return (
        f"{point.threshold:>9.2f}  {_bar('#', point.recall)} {point.recall:>5.0%}"
        f"  {_bar('!', point.false_hit_rate)} {point.false_hit_rate:>5.1%}"
        f"  {point.unguarded_recall:>6.0%}  {point.unguarded_false_hit_rate:>6.0%}"
    ).rstrip()


def _bar(mark: str, share: float) -> str:
    return (mark * round(share * _BAR)).ljust(_BAR)


def _point(same: Sequence[Judged], other: Sequence[Judged], threshold: float) -> Point:
    hits = sum(one.hits(threshold) for one in same)
    false_hits = sum(one.hits(threshold) for one in other)
    return Point(
        threshold,
        _of(hits, len(same)),
        _of(false_hits, len(other)),
        _precision(hits, false_hits),
        _of(sum(one.near >= threshold for one in same), len(same)),
        _of(sum(one.near >= threshold for one in other), len(other)),
    )


def _of(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _precision(hits: int, false_hits: int) -> float | None:
    return _of(hits, hits + false_hits) if hits + false_hits else None


def _progress(number: int, pairs: int) -> None:
    """Draw a bar, on a terminal only and where there is something to wait for."""
    if pairs < _TELL_EVERY * 5 or not sys.stderr.isatty():
        return
    if number == pairs:
        sys.stderr.write("\r\033[K")
    elif number % _TELL_EVERY == 0:
        sys.stderr.write(f"\r[{_bar('#', number / pairs)}] {number} of {pairs} pairs")
        sys.stderr.flush()


def _share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {value}")
    return number
