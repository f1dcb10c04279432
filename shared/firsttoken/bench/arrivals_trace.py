"""Traces: when requests came and how long they were, from a CSV file.

The columns of published traces (Azure's LLM inference traces, BurstGPT) are known by their names, beside our
own: ``at,prompt_tokens,answer_tokens``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from firsttoken.errors import ConfigError

MAX_ROWS = 1_000_000
_COLUMNS = {
    "at": ("at", "timestamp", "time"),
    "prompt": ("prompttokens", "contexttokens", "requesttokens", "inputlength", "inputtokens"),
    "answer": ("answertokens", "generatedtokens", "responsetokens", "outputlength", "outputtokens"),
}


class Entry(Struct, frozen=True):
    """One request of a trace: seconds since its first one, and tokens (0: not said)."""

    at: float
    prompt_tokens: int = 0
    answer_tokens: int = 0


def read(path: Path, speed: float = 1.0) -> list[Entry]:
    """Return the requests of a trace by their time, the first one at 0.

    Memory: about 100 bytes a row, at most `MAX_ROWS` rows. Raises ConfigError naming the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            columns = _columns(next(rows, []), path.name)
            found: list[Entry] = []
            for row in rows:
                if row:
                    found.append(_entry(row, columns, f"{path.name}:{rows.line_num}"))
                if len(found) > MAX_ROWS:
                    raise ConfigError(f"{path.name}: expected at most {MAX_ROWS:,} rows")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name}: not readable as CSV: {error}") from error
    if not found:
        raise ConfigError(f"{path.name}: expected at least one row below the names of the columns")
    found.sort(key=lambda entry: entry.at)
    start = found[0].at
    return [Entry((e.at - start) / speed, e.prompt_tokens, e.answer_tokens) for e in found]


def _columns(head: Sequence[str], name: str) -> dict[str, int]:
    plain = ["".join(filter(str.isalnum, title.lower())) for title in head]
    found = {
        what: plain.index(title) for what, titles in _COLUMNS.items() for title in titles if title in plain
    }
    if "at" not in found:
        raise ConfigError(
            f"{name}:1: expected a column at, time or timestamp, got {', '.join(head) or 'none'}"
        )
    return found


def _entry(row: Sequence[str], columns: dict[str, int], where: str) -> Entry:
    try:
        cells = {what: row[column].strip() for what, column in columns.items()}
        at = _seconds(cells["at"])
        prompt, answer = (_count(cells.get(what, "")) for what in ("prompt", "answer"))
    except (ValueError, IndexError, OverflowError) as error:
        raise ConfigError(
            f"{where}: expected a time (seconds, or 2026-01-31 12:00:00) and whole numbers of tokens,"
            f" got {','.join(row)[:100]}"
        ) from error
    return Entry(at, prompt, answer)


def _seconds(text: str) -> float:
    try:
        at = float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        at = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(at):
        raise ValueError(text)
    return at


def _count(text: str) -> int:
    tokens = float(text or 0)
    if tokens < 0 or tokens != int(tokens):
        raise ValueError(text)
    return int(tokens)
