"""When requests arrive: processes, rates that change, and traces."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from firsttoken.bench import arrivals_trace
from firsttoken.bench.arrivals import Arrivals, Diurnal, Surge
from firsttoken.bench.arrivals_trace import Entry
from firsttoken.errors import ConfigError

SECONDS = 400.0


def times(arrivals: Arrivals, seed: int = 1, seconds: float = SECONDS) -> list[float]:
    return list(arrivals.times(seconds, random.Random(seed)))


def spread(found: list[float]) -> float:
    """The coefficient of variation of the gaps."""
    gaps = [later - earlier for earlier, later in pairwise(found)]
    return statistics.stdev(gaps) / statistics.fmean(gaps)


@pytest.mark.parametrize(
    ("arrivals", "variation"),
    [
        (Arrivals(process="constant", rate=50), 0.0),
        (Arrivals(process="poisson", rate=50), 1.0),
        (Arrivals(process="gamma", shape=1, rate=50), 1.0),
        (Arrivals(process="gamma", shape=0.25, rate=50), 2.0),
        (Arrivals(process="gamma", shape=4, rate=50), 0.5),
    ],
)
def test_gaps_vary_as_the_process_says(arrivals: Arrivals, variation: float) -> None:
    """The rate is kept, and gaps vary by 1/sqrt(shape) of their mean: 1 for Poisson, 0 for constant."""
    found = times(arrivals)
    assert found == sorted(found)
    assert len(found) == pytest.approx(50 * SECONDS, rel=0.05)
    assert spread(found) == pytest.approx(variation, abs=0.1)
    assert found == times(arrivals)


def test_constant_arrivals_are_even() -> None:
    """The first one comes after one gap, the last one before the end."""
    assert times(Arrivals(process="constant", rate=4), seconds=1.0) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("process", ["poisson", "gamma", "constant"])
def test_a_day(process: str) -> None:
    """The mean is the rate, the night has a fifth of it, and noon the rest."""
    arrivals = Arrivals(process=process, rate=100, shape=4, diurnal=Diurnal(period=SECONDS, swing=0.8))
    found = times(arrivals)
    night = sum(at < SECONDS * 0.05 for at in found) / (SECONDS * 0.05)
    noon = sum(abs(at - SECONDS / 2) < SECONDS * 0.025 for at in found) / (SECONDS * 0.05)
    assert len(found) == pytest.approx(100 * SECONDS, rel=0.05)
    assert night == pytest.approx(20, rel=0.3)
    assert noon == pytest.approx(180, rel=0.1)
    assert arrivals.mean(SECONDS) == pytest.approx(100)


def test_a_surge() -> None:
    """The rate is multiplied in between and the same outside; surges that overlap add up."""
    surges = [Surge(at=100, until=200, factor=5), Surge(at=150, until=200, factor=2)]
    found = times(Arrivals(rate=20, surges=surges))
    counts = [sum(low <= at < low + 50 for at in found) / 50 for low in range(0, 400, 50)]
    assert counts == pytest.approx([20, 20, 100, 120, 20, 20, 20, 20], rel=0.15)


def test_another_length() -> None:
    """Surges and days keep their share of the duration, the rate stays."""
    arrivals = Arrivals(rate=3, surges=[Surge(at=10, until=20)], diurnal=Diurnal(period=60))
    shorter = arrivals.scaled(0.5)
    assert (shorter.surges[0].at, shorter.surges[0].until) == (5, 10)
    assert shorter.diurnal.period == 30
    assert shorter.rate == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at,prompt_tokens,answer_tokens\n5,10,3\n5.5,20,4\n", [Entry(0, 10, 3), Entry(0.5, 20, 4)]),
        ("time\n3\n1\n", [Entry(0.0), Entry(2.0)]),
        (
            (
                "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.6805900,396,109\n"
            ),
            [Entry(0, 374, 44), Entry(1, 396, 109)],
        ),
        (
            (
                "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                "5,ChatGPT,472,18,490,Conversation log\n\n45,GPT-4,1087,230,1317,API log\n"
            ),
            [Entry(0, 472, 18), Entry(40, 1087, 230)],
        ),
    ],
)
def test_traces(tmp_path: Path, text: str, expected: list[Entry]) -> None:
    """Our columns, Azure's and BurstGPT's are known; rows are put in order, the first one is at 0."""
    path = tmp_path / "trace.csv"
    path.write_text(text, "utf-8")
    found = arrivals_trace.read(path)
    assert [entry.at for entry in found] == pytest.approx([entry.at for entry in expected], abs=1e-5)
    assert [(e.prompt_tokens, e.answer_tokens) for e in found] == [
        (e.prompt_tokens, e.answer_tokens) for e in expected
    ]
    assert arrivals_trace.read(path, speed=2.0)[1].at == pytest.approx(expected[1].at / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: expected a column at"),
        ("a,b\n1,2\n", ":1: expected a column at, time or timestamp, got a, b"),
        ("at\n", "expected at least one row"),
        ("at,prompt_tokens\n1,2\nsoon,3\n", ":3: expected a time"),
        ("at,prompt_tokens\n1\n", ":2: expected a time"),
        ("at,prompt_tokens\n1,-2\n", ":2: .*whole numbers"),
        ("at,prompt_tokens\n1,2.5\n", ":2: .*whole numbers"),
        ("at,prompt_tokens\n1,inf\n", ":2: .*whole numbers"),
        ("at\nnan\n", ":2: expected a time"),
    ],
)
def test_mistakes_in_traces(tmp_path: Path, text: str, said: str) -> None:
    """The message has the file, the line and what was expected."""
    path = tmp_path / "trace.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"trace.csv:? ?{said}"):
        arrivals_trace.read(path)


def test_no_trace(tmp_path: Path) -> None:
    """A file that is not there, or too long, is a mistake of whoever named it."""
    with pytest.raises(ConfigError, match=r"nowhere\.csv: not readable"):
        arrivals_trace.read(tmp_path / "nowhere.csv")


def test_a_trace_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory is refused."""
    monkeypatch.setattr(arrivals_trace, "MAX_ROWS", 2)
    path = tmp_path / "trace.csv"
    path.write_text("at\n1\n2\n3\n", "utf-8")
    with pytest.raises(ConfigError, match="expected at most 2 rows"):
        arrivals_trace.read(path)
