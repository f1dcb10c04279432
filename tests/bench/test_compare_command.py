"""``firsttoken bench`` from its files to its exit status."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from firsttoken.bench import samples, samples_convert
from firsttoken.bench.load import Sample
from firsttoken.bench.report import Measured, build
from firsttoken.bench.samples import Samples, Series
from firsttoken.bench.scenario import Scenario, Target
from firsttoken.cli import _parser, main
from firsttoken.errors import ConfigError
from firsttoken.telemetry.record import Record

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.findall(
    r"^firsttoken bench .*$", (ROOT / "docs" / "regression.md").read_text("utf-8"), re.MULTILINE
)


def numbers(seed: int, factor: float = 1.0, count: int = 1_000) -> list[float]:
    rng = random.Random(seed)
    return [round(factor * 80 * math.exp(rng.gauss(0, 0.2)), 3) for _ in range(count)]


def listed(path: Path, **metrics: list[float]) -> str:
    path.write_text(json.dumps(metrics), "utf-8")
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the baseline ``main``."""
    file = listed(tmp_path / "before.json", ttft=numbers(1))
    arguments = ["--folder", str(tmp_path / "kept"), "--machine", "here"]
    assert main(["bench", "save", "main", file, "--command", "make load", *arguments]) == 0
    return tmp_path / "kept"


def answers(count: int, seconds: float) -> list[Sample]:
    return [
        Sample(
            at / 10, "hi", at % 2 == 0, first=at / 10 + seconds, done=at / 10 + 1, status=200, finish="stop"
        )
        for at in range(count)
    ]


def test_a_baseline_reads_well(folder: Path) -> None:
    """A file says where it is from, in lines that a review can read, and is read back as it was."""
    text = (folder / "main.json").read_text("utf-8")
    assert len(text.splitlines()) < 12
    kept = samples.decode(text.encode(), "main")
    assert (kept.name, kept.command, kept.machine) == ("main", "make load", "here")
    assert kept.date[:2] == "20"
    assert kept.series == {"ttft": Series(tuple(numbers(1)))}
    assert samples.encode(kept) == text.encode()


def test_an_empty_set_is_written_as_json() -> None:
    """Nothing measured is still a file that can be read."""
    assert samples.decode(samples.encode(Samples("a", {})), "a") == Samples("a", {})


@pytest.mark.parametrize(
    ("factor", "status", "said"), [(1.0, 0, "2 same"), (1.15, 1, "slower"), (0.85, 0, "faster")]
)
def test_a_comparison(
    folder: Path, capsys: pytest.CaptureFixture[str], factor: float, status: int, said: str
) -> None:
    """The exit status follows the verdict, and the table has it."""
    run = listed(folder / "run.json", ttft=numbers(2, factor))
    assert main(["bench", "compare", "main", run, "--folder", str(folder)]) == status
    shown = capsys.readouterr().out
    assert said in shown
    assert "before: main, 20" in shown
    assert "location" in shown
    assert "1000/1000" in shown


def test_too_few(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 3, and the number that is wanted is said."""
    run = listed(folder / "run.json", ttft=numbers(2, count=60))
    assert main(["bench", "compare", "main", run, "--folder", str(folder)]) == 3
    assert "not enough samples (about 500 a side)" in capsys.readouterr().out


def test_runs_are_put_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several runs count as one, and a baseline of another machine is pointed out."""
    runs = [listed(folder / f"{seed}.json", ttft=numbers(seed, count=500)) for seed in (2, 3)]
    saved = ["bench", "save", "other", *runs, "--machine", "there", "--folder", str(folder)]
    assert main(saved) == 0
    assert main(["bench", "compare", "main", "other", "--folder", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "1000/1000" in shown
    assert "machines differ" in shown
    assert main(["bench", "compare", "main", *runs, "--folder", str(folder), "--tail", "off"]) == 0
    shown = capsys.readouterr().out
    assert "1000/1000" in shown
    assert "tail" not in shown


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the runs, the rules and every figure; --metric leaves the others out."""
    both = listed(folder / "both.json", ttft=numbers(2), total=numbers(3))
    arguments = ["--json", "--metric", "ttft", "--margin", "8%", "--tail", "p95", "--folder", str(folder)]
    capsys.readouterr()
    assert main(["bench", "compare", both, "main", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == 0
    assert found["after"]["command"] == "make load"
    assert (found["rules"]["margin"], found["rules"]["tail"]) == (0.08, 0.95)
    assert [(one["metric"], one["statistic"]) for one in found["findings"]] == [
        ("ttft", "location"),
        ("ttft", "tail"),
    ]
    assert found["findings"][0]["low"] < found["findings"][0]["change"]


def test_a_baseline_is_not_replaced_by_accident(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes --force."""
    again = ["bench", "save", "main", str(folder / "main.json"), "--folder", str(folder)]
    assert main(again) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*again, "--force"]) == 0
    kept = samples.decode((folder / "main.json").read_bytes(), "main")
    assert (kept.command, kept.machine) == ("make load", "here")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "expected samples"),
        ('{"ttft": ["fast"]}', "expected samples"),
        ('{"ttft": [1, 0]}', "numbers from 1e-12 to 1e+15, got 0"),
        ('{"ttft": []}', "at least one value"),
        ('{"series": 3}', "expected a file of firsttoken bench save"),
        ('{"timeline": []}', "chaos"),
        ("nothing", "expected samples"),
        ("\xff", "expected samples"),
    ],
)
def test_files_that_are_none(
    folder: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    """What is wrong with the file is said, in one line, with its name."""
    (folder / "run.json").write_bytes(content.encode("latin-1"))
    assert main(["bench", "compare", "main", str(folder / "run.json"), "--folder", str(folder)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "run.json" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "main", "absent"], "absent.json: No such file"),
        (["compare", "main", "../main"], "expected a name"),
        (["compare", "main", "main", "--metric", "cost"], "expected one of ttft, got cost"),
        (["save", "a/b", "main.json"], "expected a name"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """A wrong argument exits with 2 and one line."""
    assert main(["bench", *arguments, "--folder", str(folder)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [("--margin", "5"), ("--margin", "0%"), ("--tail", "p50"), ("--tail", "99"), ("--confidence", "100%")],
)
def test_shares_and_percentiles(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A share has its sign, so that 5 and 0.05 cannot be mixed up."""
    with pytest.raises(SystemExit):
        main(["bench", "compare", "a", "b", *option])
    assert option[0] in capsys.readouterr().err


def test_a_log_of_the_gateway() -> None:
    """Times of answered calls count; failed calls, left ones and lines that are no calls do not."""
    told = [
        Record(id="1", status=200, started=1.0, first_chunk=1.05, finished=2.0),
        Record(id="2", status=200, started=1.0, first_chunk=1.07, finished=1.5),
        Record(id="3", status=503, error="model_overloaded", started=1.0, finished=1.1),
        Record(id="4", status=200, started=1.0, first_chunk=1.01, disconnected=True),
    ]
    lines = [b"Traceback", *(msgspec.json.encode(record.summary()) for record in told), b""]
    found = samples_convert.read(b"\n".join(lines), "gateway")
    assert {metric: one.values for metric, one in found.series.items()} == {
        "ttft": (50, 70),
        "total": (1000, 500),
    }
    assert samples_convert.read(lines[1], "one call").series["ttft"].values == (50,)


def test_a_load() -> None:
    """Requests count in the order in which they were due; only streamed ones have a time to first token."""
    ended = [*reversed(answers(4, 0.25)), Sample(9, "hi", stream=True, status=503, error="503 x")]
    found = samples_convert.of_load("mine", ended)
    assert found.series["ttft"].values == (250, 250)
    assert found.series["total"].values == (1000,) * 4


def test_requests_of_a_load_as_csv(tmp_path: Path) -> None:
    """Columns are known by their names, and lines count as the requests of a load do."""
    lines = ["at,sent,first,done,error,complete,stream", "2.0,2.0,2.07,3.5,,1,1", "1.0,1.0,1.05,2.0,,1,1"]
    text = "\r\n".join([*lines, "3.0,3.0,,,deadline,0,1", "4.0,4.0,4.5,4.5,,1,0", ""])
    found = samples_convert.read(text.encode(), "load.csv")
    assert found.series["ttft"].values == (50, 70)
    assert found.series["total"].values == (1000, 1500, 500)
    with pytest.raises(ConfigError, match="a line a request"):
        samples_convert.read(f"{lines[0]}\r\nsoon,,,,,1,1".encode(), "load.csv")


def test_a_chaos_report() -> None:
    """The median of each second is a value; the command can be run again."""
    scenario = Scenario(name="mine", targets={"near": Target(profile="tokens=1")}, seed=7)
    ended = answers(30, 0.25)
    report = build(scenario, Measured(samples=ended))
    for second in report.timeline:
        second.ttft_p50 = 250.0 + second.at
    report.timeline[1].ttft_p50 = None
    found = samples_convert.read(msgspec.json.encode(report), "report.json")
    assert found.series == {"ttft_p50_of_a_second": Series((250.0, 252.0))}
    assert found.command == "firsttoken chaos mine --seed 7"


def test_the_page_has_the_figures_that_were_measured() -> None:
    """Every row of the committed result stands in the docs, and reaches its bars."""
    result = json.loads((ROOT / "benchmarks" / "results" / "regression.json").read_text("utf-8"))
    page = (ROOT / "docs" / "regression.md").read_text("utf-8")
    assert result["passed"]
    for name, row in result["rows"].items():
        alarms, power = (row["bars"][bar]["measured"] for bar in ("false_alarms", "found"))
        assert f"| {name} | {alarms:.2%} | {power:.1%} |" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page(command: str) -> None:
    """They are taken as they stand."""
    assert _parser().parse_args(shlex.split(command, comments=True)[1:]).run


def test_runs_of_two_units() -> None:
    """They are not put together."""
    parts = [Samples("a", {"ttft": Series((1.0,), unit)}) for unit in ("ms", "s")]
    with pytest.raises(ConfigError, match="one unit"):
        samples.joined(parts, "both")


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a series is of any size."""
    (tmp_path / "big.json").write_bytes(b" " * 101)
    monkeypatch.setattr(samples, "MAX_FILE", 100)
    monkeypatch.setattr(samples, "MAX_VALUES", 2)
    with pytest.raises(ConfigError, match="at most 100 bytes"):
        samples.contents(tmp_path / "big.json")
    with pytest.raises(ConfigError, match="at most 2 values"):
        Samples("a", {"ttft": Series((1.0, 2.0, 3.0))}).checked()
