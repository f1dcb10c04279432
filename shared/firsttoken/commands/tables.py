"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Return lines with columns of equal width; those named in ``right`` are flush right, as numbers are."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    flush = [name in right for name in head]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, flush, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
