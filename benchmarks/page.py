"""Write docs/benchmarks.md from the committed results: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

`make bench` runs them all (forty minutes, most of them for resilience), `make bench ARGS=NAME` one; the
results are committed in `benchmarks/results` and this page is written from them
(`python -m benchmarks.page`). Figures are CPU time where they can be, and medians; machines differ, so look
at the ratios. **Every upstream here is simulated.**
"""


def _load(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
    return result


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _section(title: str, result: dict[str, Any], text: str, table: str) -> str:
    return f"## {title}\n\n`{result['command']}`, {result['machine']}. {text}\n\n{table}\n"


def _cold_start() -> str:
    result = _load("cold_start")
    text = (
        f"CPU beyond bare Python ({result['bare_python_ms']} ms), median of {result['runs']} processes."
        f" Ours is until the entrypoint asks for its first request (bar: {result['bar_ms']} ms),"
        f" {result['resident_mb']} MB"
        " resident; the others are their import, and their client where named."
    )
    rows: list[tuple[object, ...]] = list(result["beyond_bare_python_ms"].items())
    return _section("Cold start", result, text, _table(("what", "CPU ms"), rows))


def _passthrough() -> str:
    result = _load("passthrough")
    text = (
        f"CPU of the serving process, {result['concurrency']} connections; a chunk is one of 500 tokens"
        " that the simulated upstream writes one by one as fast as it can."
    )
    rows: list[tuple[object, ...]] = [
        (name, row["request_us"], row["chunk_us"]) for name, row in result["medians"].items()
    ]
    rows.append(("bar", result["bars"]["request_us"], result["bars"]["chunk_us"]))
    return _section("Pass-through", result, text, _table(("server", "us a request", "us a chunk"), rows))


def _fidelity() -> str:
    result = _load("fidelity")
    low, high = result["bars"]["median_gap_ms"]
    text = (
        "The simulated upstream sends a token each 20 ms; what a client sees through each runtime, and what"
        f" the first token takes longer than from the upstream itself"
        f" ({result['ttft_calls']} pairs of calls)."
        f" Bars: {low} to {high} ms, and {result['bars']['added_ttft_ms']} ms for the local server."
    )
    added = result["added_ttft_ms"]
    rows: list[tuple[object, ...]] = [
        (name, gap, added[name]) for name, gap in result["median_gap_ms"].items()
    ]
    return _section(
        "Stream fidelity", result, text, _table(("runtime", "median gap ms", "added TTFT ms"), rows)
    )


def _transcoding() -> str:
    result = _load("transcoding")
    peers = ", ".join(f"{name} {rate:,}" for name, rate in result["peers_chunks_read_per_second"].items())
    text = (
        "From one wire format to another: chunks a second and core, codecs alone, with one event a read and"
        " with 16; CPU of a serving process for a chunk over HTTP, one read a chunk, the request included."
        f" Bars: {result['bars']['codec_chunks_per_second']:,} chunks a second and"
        f" {result['bars']['http_chunk_us']} us. Peers, reading only: {peers}."
    )
    alone, many = (result["codec_chunks_per_second"][key] for key in ("one event a read", "16 events a read"))
    http = result["http_chunk_us"]
    rows: list[tuple[object, ...]] = [
        (pair, f"{rate:,}", f"{many[pair]:,}", http.get(pair, "")) for pair, rate in alone.items()
    ]
    return _section(
        "Transcoding", result, text, _table(("pair", "1 event", "16 events", "us over HTTP"), rows)
    )


def _resilience() -> str:
    result = _load("resilience")
    text = (
        "What clients notice when targets, streams and stores break, in front of a simulated upstream: load"
        " that does not wait for answers, real processes that are killed or frozen. Times count from when a"
        " request was due. [chaos.md](chaos.md) says how to run one of them.\n\n"
        "![Time to first token while a region hangs](figures/region-hang.svg)"
    )
    rows: list[tuple[object, ...]] = [(name, _bars(row)) for name, row in result["rows"].items()]
    return "\n" + _section("Resilience", result, text, _table(("what breaks", "measured (bar)"), rows))


def _caching() -> str:
    exact, similar, prefix = _load("caching_exact"), _load("caching_similar"), _load("caching_prefix")
    bars = similar["bars_ms"]
    near: list[tuple[object, ...]] = [(n, ms, bars.get(n, "")) for n, ms in similar["cpu_ms"].items()]
    text = "A look-up among questions of one scope, 384 dimensions, CPU of one core; no store, no network."
    parts = (
        _section("Answers given again", exact, "Simulated upstream.", _rows(exact)),
        _section("Similar questions", similar, text, _table(("what", "CPU ms", "bar"), near)),
        _section("Prompt caching", prefix, f"Prices {prefix['prices']}; simulated upstream.", _rows(prefix)),
    )
    return "\n" + "\n".join(parts)


def _rows(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [(name, _bars(row)) for name, row in result["rows"].items()]
    return _table(("what", "measured (bar)"), rows)


def _bars(row: dict[str, Any]) -> str:
    def said(bar: dict[str, float]) -> str:
        word = "at least" if "at least" in bar else "at most"
        return f"{bar['measured']:g} ({word} {bar[word]:g})"

    return "; ".join(f"{name.replace('_', ' ')} {said(bar)}" for name, bar in row["bars"].items())


def _jobs() -> str:
    outage, recovery, batching = _load("jobs_outage"), _load("jobs_recovery"), _load("batching_embeddings")
    plan = outage["plan"]
    lost: tuple[str, ...] = ("jobs", "lost", "answered twice", "changed after the end", "wrong answers")
    head = ("queue", "answered at once", *lost, "dead letters")
    rows: list[tuple[object, ...]] = [
        (*(row[name] for name in head), row["kills"], sum(row["refused"].values())) for row in outage["rows"]
    ]
    text = (
        f"{plan['requests']:,} requests at {plan['rate']:g} a second, the simulated upstream gone for"
        f" {plan['outage']:g} s in the middle, workers killed at random; every job ended done or is among the"
        " dead letters with its reason. Refused: a 503, neither answered nor taken;"
        " Azurite stood still for some 25 s in these runs."
    )
    drained, bars = recovery["rows"], recovery["bars"]
    steps: list[tuple[object, ...]] = [(name, drained[name], bars[name]) for name in drained]
    slow = "900 jobs behind a simulated upstream that allows 1,800 requests a minute, half of them to jobs."
    keys = tuple(batching["rows"][0])
    texts: list[tuple[object, ...]] = [tuple(row.values()) for row in batching["rows"]]
    parts = (
        _section("Jobs: nothing is lost", outage, text, _table((*head, "SIGKILLs", "refused"), rows)),
        _section("Jobs: recovery", recovery, slow, _table(("what", "measured", "bar"), steps)),
        _section(
            "Micro-batches of embeddings", batching, f"{batching['callers']} callers.", _table(keys, texts)
        ),
    )
    return "\n" + "\n".join(parts)


def _sizes() -> str:
    result = _load("package_sizes")
    start, bars = result["aws_start"], result["bars"]
    text = (
        f"As `firsttoken stage` builds them for Python {result['python']}, unpacked with bytecode (bar on"
        f" AWS: {bars['aws_mb']} MB). Without it AWS's entrypoints take {start['ratio']} times as long to"
        " import."
    )
    rows: list[tuple[object, ...]] = [
        (name, row["arch"], row["mb"], row["bytecode_mb"], row["archive_mb"] or "")
        for name, row in result["clouds"].items()
    ]
    table = _table(("cloud", "processor", "MB", "of it bytecode", "zip"), rows)
    return "\n" + _section("Packages", result, text, table)


def page() -> str:
    """Return the page."""
    parts = (
        _cold_start(),
        _passthrough(),
        _fidelity(),
        f"{_transcoding()}{_caching()}{_resilience()}{_jobs()}{_sizes()}",
    )
    return "\n".join((HEAD, *parts))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
