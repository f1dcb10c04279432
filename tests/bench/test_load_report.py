"""What is concluded from the samples of a load test, and how it is shown."""

from __future__ import annotations

import asyncio
import csv
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from firsttoken.bench import loadreport, loadreport_html, loadreport_svg, loadreport_text
from firsttoken.bench.arrivals import Arrivals, Surge
from firsttoken.bench.load import Sample
from firsttoken.bench.loadtest_scenario import Expect, LoadScenario, Slo
from firsttoken.bench.scenario import Fault

SURGE = Arrivals(surges=[Surge(at=10, until=15)])


def sample(at: float, first: float = 0.1, whole: float = 0.3, *, stream: bool = True, **said) -> Sample:
    given = {
        "sent": at,
        "first": at + first,
        "done": at + whole,
        "status": 200,
        "finish": "stop",
        "tokens": 11,
    }
    return Sample(at, "", stream, **{**given, **said})


def failed(at: float, error: str = "503 model_overloaded", **said) -> Sample:
    return sample(at, first=0, error=error, finish="", **said)


def built(samples: list[Sample], **given) -> loadreport.LoadReport:
    scenario = LoadScenario(name="mine", **{"duration": 30.0, **given})
    return loadreport.build(scenario, samples, seconds=30.0, simulated=True)


def test_failed_requests_are_apart() -> None:
    """They count for availability and by their kind, and are in no distribution."""
    samples = [*(sample(n * 0.1) for n in range(8)), failed(1), failed(2, "deadline", done=99.0)]
    report = built(samples)
    assert (report.requests, report.answered, report.availability) == (10, 8, 0.8)
    assert report.errors == {"503 model_overloaded": 1, "deadline": 1}
    assert report.e2e_ms.count == 8
    assert report.e2e_ms.largest == pytest.approx(300)
    assert report.tokens == 88


def test_goodput_is_under_the_slo() -> None:
    """Streamed answers must keep TTFT and E2E, whole ones E2E; failed ones are never good."""
    samples = [
        sample(0),
        sample(1, first=0.25),
        sample(2, whole=0.6),
        sample(3, first=0.4, whole=0.4, stream=False),
        failed(4),
    ]
    report = built(samples, slo=Slo(ttft_ms=200, e2e_ms=500))
    assert (report.good, report.good_share) == (2, 0.4)
    assert report.goodput == pytest.approx(2 / 30, abs=0.01)
    assert built(samples).good == 4


def test_percentiles() -> None:
    """Nearest rank; one with fewer than ten samples beyond it is not given."""
    found = loadreport.distribution(n / 1000 for n in range(1, 1001))
    assert (found.p50, found.p95, found.p99, found.p999, found.largest) == (500, 950, 990, None, 1000)
    few = loadreport.distribution([0.001, 0.003])
    assert (few.count, few.p50, few.p90, few.mean) == (2, 1, None, 2)
    assert loadreport.distribution([]).p50 is None


def test_tokens() -> None:
    """Time per token leaves out the first one; they belong to when they came; pieces stand in for counts."""
    report = built([sample(0.5, first=0.5, whole=2.5, tokens=5)])
    assert report.tpot_ms.p50 == 500
    assert [window.tokens_per_s for window in report.windows[:4]] == [0, 2.5, 2.5, 0]
    assert report.tokens_counted == "server"
    assert built([sample(0, tokens=0, chunks=4)]).tokens_counted == "pieces"


def test_kinds_are_apart() -> None:
    """Cache hits, whole answers and each tenant have a distribution of their own."""
    report = built([sample(0, tenant="acme", repeated=True), sample(1, stream=False, whole=0.7)])
    assert set(report.parts) == {"streamed", "whole", "repeated prompt", "new prompt", "tenant acme"}
    assert report.parts["whole"].p50 == pytest.approx(700)


def test_recovery() -> None:
    """It is over when, for three windows, nothing fails and the median is near what it was before."""
    before = [sample(at) for at in range(10)]
    during = [failed(at) for at in range(10, 15)]
    slow = [sample(at, whole=0.9) for at in range(15, 18)]
    after = [sample(at) for at in range(18, 25)]
    report = built([*before, *during, *slow, *after], arrivals=SURGE)
    assert report.disturbed == (10, 15)
    assert report.recovered_within_s == 3
    assert built([*before, *during, *slow], arrivals=SURGE).recovered_within_s is None
    assert built(before).recovered_within_s is None


def test_expectations() -> None:
    """A bar that is missed fails the run, and so does one that cannot be measured."""
    samples = [sample(n * 0.01) for n in range(1000)]
    report = built(samples, expect=Expect(availability=1, ttft_p99_ms=150, e2e_p99_ms=200))
    assert [(check.name, check.passed) for check in report.checks] == [
        ("availability", True),
        ("ttft_p99_ms", True),
        ("e2e_p99_ms", False),
    ]
    assert not report.passed
    assert not built(samples[:10], expect=Expect(ttft_p99_ms=150)).passed
    assert built(samples).passed


def test_warnings() -> None:
    """A generator that is behind, too few answers, and faults that were left out are said."""
    late = built([sample(n * 0.01, sent=n * 0.01 + 0.05) for n in range(1000)])
    assert [text.split(" late")[0] for text in late.warnings] == ["requests left up to 50 ms"]
    assert "too few for a P99" in built([sample(0)]).warnings[0]
    scenario = LoadScenario(faults=[Fault(at=1, until=2, target="near")])
    assert "left out" in loadreport.build(scenario, [sample(0)], seconds=1).warnings[-1]
    assert "no request was due" in built([]).warnings[-1]


def test_the_text() -> None:
    """It has the figures, the warnings and a line for each expectation."""
    report = built([sample(n * 0.01) for n in range(300)], slo=Slo(ttft_ms=50), expect=Expect(good_share=0.5))
    shown = loadreport_text.render(report)
    assert "mine (simulated upstream)" in shown
    assert "TTFT <= 50 ms" in shown
    assert "FAIL  good share (expected 0.5): 0" in shown


def test_the_csv(tmp_path: Path) -> None:
    """A line a request; a text that a spreadsheet would take for a formula is quoted."""
    path = tmp_path / "samples.csv"
    loadreport_text.write_csv(path, [sample(1.0), failed(2.0, "=1+1", done=None)], Slo(ttft_ms=150))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["at"], rows[0]["first"], rows[0]["good"], rows[0]["stream"]) == (
        "1.000000",
        "1.100000",
        "1",
        "1",
    )
    assert (rows[1]["error"], rows[1]["done"], rows[1]["complete"]) == ("'=1+1", "", "0")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.35, [0, 0.1, 0.2, 0.3]),
        (3, 61, [20, 40, 60]),
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    """They are round and lie inside."""
    assert loadreport_svg.ticks(low, high) == expected


def test_ticks_of_a_logarithmic_axis() -> None:
    """They are 1, 2 and 5 times powers of ten; of many decades the powers alone."""
    assert loadreport_svg.log_ticks(15, 600) == [20, 50, 100, 200, 500]
    assert loadreport_svg.log_ticks(0.01, 2e4) == [0.01, 0.1, 1, 10, 100, 1000, 10000]


@pytest.mark.parametrize("samples", [[], [sample(0)], [failed(0)]])
def test_a_page_of_little(samples: list[Sample]) -> None:
    """Nothing, one answer, or one error is a page too."""
    assert loadreport_html.page(built(samples), samples).endswith("</html>\n")


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Chromium draws tables and plots from the file alone; texts of a server never become markup."""
    chromium = shutil.which("chromium")
    assert chromium, "install it with: sudo apt-get install chromium"
    evil = "<img src=http://127.0.0.1:9/x onerror=document.title='bad'>"
    rng = random.Random(1)
    samples = [sample(n * 0.02, rng.uniform(0.05, 0.3), rng.uniform(0.3, 2)) for n in range(1200)]
    samples += [failed(n * 2.0, evil) for n in range(5)]
    report = built(sorted(samples, key=lambda s: s.at), arrivals=SURGE, expect=Expect(availability=1))
    path = tmp_path / "report.html"
    path.write_text(loadreport_html.page(replace(report, machine="m", command="c"), samples), "utf-8")
    text = path.read_text("utf-8")
    assert len(text) < 400_000
    assert "<script" not in text
    assert "src=" not in text.replace("&lt;img src=", "")

    async def shown() -> str:
        browser = await asyncio.create_subprocess_exec(
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'b'}"),
            *("--dump-dom", path.as_uri()),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            return (await browser.communicate())[0].decode()

    page = asyncio.run(shown())
    assert "<title>Load test: mine</title>" in page
    assert page.count("<svg ") == 4
    assert page.count("<polyline ") >= 8
    assert page.count('<rect class="band"') == 3
    assert "&lt;img src=http" in page
    assert "<img" not in page
    assert '<span class="bad">missed</span>' in page
