"""The benchmark page says what the committed results say, and the results reach their bars."""

from __future__ import annotations

import json

import pytest

from benchmarks import page

RESULTS = page.ROOT / "benchmarks" / "results"


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def test_the_page_is_current() -> None:
    """``python -m benchmarks.page`` writes it."""
    assert page.PAGE.read_text("utf-8") == page.page()


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_a_result_names_its_command_and_its_upstream(file) -> None:
    """A figure can be made again, and one from a simulated upstream says so."""
    result = json.loads(file.read_text("utf-8"))
    assert result["command"].startswith("make bench")
    without = ("cold_start", "caching_similar", "package_sizes", "telemetry", "regression")  # ask none
    assert file.stem in without or "simulated upstream" in result["upstream"]


def test_the_committed_results_reach_their_bars() -> None:
    """What was promised was measured."""
    cold, through = load("cold_start"), load("passthrough")
    assert cold["beyond_bare_python_ms"]["firsttoken, Lambda entrypoint ready"] <= cold["bar_ms"]
    assert all(through["medians"]["firsttoken"][key] <= bar for key, bar in through["bars"].items())
    fidelity, transcoding = load("fidelity"), load("transcoding")
    low, high = fidelity["bars"]["median_gap_ms"]
    assert all(low <= gap <= high for gap in fidelity["median_gap_ms"].values())
    assert fidelity["added_ttft_ms"]["local"] < fidelity["bars"]["added_ttft_ms"]
    rates = transcoding["slowest_pair_chunks_per_second"].values()
    assert min(rates) >= transcoding["bars"]["codec_chunks_per_second"]
    assert transcoding["slowest_pair_http_chunk_us"] <= transcoding["bars"]["http_chunk_us"]
    for name in ("resilience", "caching_exact", "caching_prefix"):
        assert not [row for row, result in load(name)["rows"].items() if not result["passed"]], name
    for name in ("jobs_outage", "jobs_recovery", "batching_embeddings", "load_generator", "regression"):
        assert load(name)["passed"], name
    assert load("package_sizes")["clouds"]["aws"]["mb"] <= load("package_sizes")["bars"]["aws_mb"]
    similar = load("caching_similar")
    assert all(similar["cpu_ms"][what] <= bar for what, bar in similar["bars_ms"].items())
