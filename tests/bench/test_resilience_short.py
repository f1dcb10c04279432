"""Every row of the resilience benchmark, shortened to seconds: what is counted holds, whatever the speed.

Full rows and their times are in benchmarks/results/resilience.json.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from benchmarks.resilience import ROWS
from benchmarks.resilience_figure import svg
from benchmarks.resilience_row import Row
from firsttoken.bench.report import Second

ALONE = {"policies, all on"}
"""Measures CPU time, which others would spoil, and has no bar that depends on counts."""


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, Future[Row]]]:
    """All rows, some at a time: most of a row is waiting."""
    with ThreadPoolExecutor(4) as pool:
        yield {name: pool.submit(row, short=True) for name, row in ROWS.items() if name not in ALONE}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ALONE])
def test_row(rows: dict[str, Future[Row]], name: str) -> None:
    """No request fails that could be answered, none is answered wrongly, no target is called in vain."""
    row = rows[name].result(60)
    assert row.bars
    assert not row.failed(), row


def test_what_policies_cost_is_measured() -> None:
    """The figures are there; their bars are for a quiet machine."""
    row = ROWS["policies, all on"](short=True)
    assert row.measured.keys() == row.bars.keys()


def test_a_row_says_what_it_missed() -> None:
    """Largest, smallest and missing values."""
    row = Row(
        {"a": 1.0, "b": 2.0, "c": None, "d": 5.0}, {"a": 2, "b": 3, "c": 1, "d": 4}, frozenset({"a", "d"})
    )
    assert row.failed() == ["a", "c"]
    plain = row.plain()
    assert not plain["passed"]
    assert plain["bars"]["d"] == {"measured": 5.0, "at least": 4}
    assert plain["bars"]["b"] == {"measured": 2.0, "at most": 3}


def test_the_figure() -> None:
    """It is well-formed and has a line for each quantile."""
    timeline = [Second(at, 50, 50, 60.0, 70.0 + at, {}, {}) for at in range(80)]
    root = ET.fromstring(svg(timeline))  # noqa: S314 - our own text
    strokes = [path.get("stroke") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len([stroke for stroke in strokes if stroke != "#ddd"]) == 2
