"""``firsttoken check``: hold a project against the checklist, with evidence or what is missing."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsttoken.commands.tables import table

if TYPE_CHECKING:
    from firsttoken.commands.check_result import Result, Status

_DAY = 86_400.0
_SHOWN: tuple[Status, ...] = ("pass", "warn", "fail", "not checked", "not applicable")


def register(commands: Any) -> None:
    """Add ``check`` to the commands."""
    parser = commands.add_parser("check", help="hold a project against the checklist")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: this one")
    parser.add_argument("--strict", action="store_true", help="warnings fail, too")
    parser.add_argument(
        "--max-age", type=_days, default=90.0, metavar="DAYS", help="of a load test (default %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def _days(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def run(parsed: argparse.Namespace) -> int:
    """Print what came of each rule; 1 where one fails. Raises ConfigError where there is no such folder."""
    from firsttoken.commands.check_project import read
    from firsttoken.commands.check_rules import audit

    results = audit(read(parsed.folder, time.time(), parsed.max_age * _DAY))
    if parsed.json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(results), indent=2).decode() + "\n")
    else:
        sys.stdout.write("\n".join(shown(results)) + "\n")
    bad = {"fail", "warn"} if parsed.strict else {"fail"}
    return int(any(result.status in bad for result in results))


def shown(results: Sequence[Result]) -> list[str]:
    """Return the results as lines for people: a table, and how many there are of each status."""
    rows = [row for result in results for row in _rows(result)]
    counts = Counter(result.status for result in results)
    total = ", ".join(f"{counts[status]} {status}" for status in _SHOWN if counts[status])
    return [*table(("status", "rule", "what", "evidence"), rows), "", total]


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield a row for each piece of evidence, and below them what to do."""
    first, *more = (*result.evidence, *(f"-> {fix}" for fix in result.fix))
    yield result.status, result.rule, result.title, _plain(first)
    yield from (("", "", "", _plain(line)) for line in more)


def _plain(text: str) -> str:
    return "".join([character if character.isprintable() else "?" for character in text])
