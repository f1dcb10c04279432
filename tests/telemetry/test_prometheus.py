"""``GET /metrics``: the format, the figures, who may read them, and that they are bounded."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import pytest
from support import ask, chat, make_app, simulate
from telemetry.records import attempt, labels, record

from firsttoken.errors import ConfigError
from firsttoken.settings import Auth, Telemetry
from firsttoken.telemetry.aggregate import Aggregate
from firsttoken.telemetry.prometheus import text
from firsttoken.telemetry.record import Record

_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\S+)')
_LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"')


def parse(body: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Read the exposition format strictly: metrics announced once, in one piece, no sample twice."""
    assert body.endswith("\n")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    kinds: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in kinds
        elif line.startswith("# TYPE "):
            assert line.split()[2] == name
            kinds[name] = line.split()[3]
        else:
            match = _LINE.fullmatch(line)
            assert match, line
            suffixes = ("_bucket", "_sum", "_count") if kinds[name] == "histogram" else ("",)
            assert match[1] in [name + suffix for suffix in suffixes]
            key = tuple(value for _, value in _LABEL.findall(match[2] or ""))
            assert key not in found.setdefault(match[1], {})
            found[match[1]][key] = float(match[3])
    return found


def aggregate(calls: list[Record], *, dimensions: Any = ("model", "target"), series: int = 200) -> Aggregate:
    own, names = Aggregate(dimensions, series), labels(series)
    for call in calls:
        own.add(call, names.figures(call))
    return own


def shown(*calls: Record, **options: Any) -> dict[str, dict[tuple[str, ...], float]]:
    return parse(text(aggregate(list(calls), **options)))


ONE = ("fast", "openai/gpt-4o-mini")


def test_counters() -> None:
    """Calls, tokens, costs, what the cache said, and attempts."""
    failed = record(error="upstream_timeout", status=504, attempts=[attempt(outcome="upstream_timeout")])
    found = shown(record(cached_tokens=7, cost=0.5, cache="miss"), record(cost=0.25), failed)
    assert found["firsttoken_calls_total"] == {(*ONE, "ok", ""): 2, (*ONE, "error", "upstream_timeout"): 1}
    assert found["firsttoken_tokens_total"] == {
        (*ONE, "input"): 3000,
        (*ONE, "output"): 303,
        (*ONE, "cached"): 7,
    }
    assert found["firsttoken_cost_total"] == {ONE: 0.75}
    assert found["firsttoken_cache_total"] == {(*ONE, "miss"): 1}
    assert found["firsttoken_attempts_total"] == {
        ("openai/gpt-4o-mini", "first", "ok"): 2,
        ("openai/gpt-4o-mini", "first", "upstream_timeout"): 1,
    }


def test_histograms_and_quantiles() -> None:
    """Buckets are cumulative and end with all; P50, P95 and P99 stand beside them."""
    calls = [record(first_chunk=100 + n / 100) for n in range(1, 101)]  # 10 ms to 1 s
    found = shown(*calls)
    buckets = found["firsttoken_ttft_seconds_bucket"]
    assert [buckets[*ONE, le] for le in ("0.01", "0.02", "0.64", "1.28", "+Inf")] == [1, 2, 64, 100, 100]
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["firsttoken_ttft_seconds_count"] == {ONE: 100}
    assert found["firsttoken_ttft_seconds_sum"][ONE] == pytest.approx(50.5)
    for share, seconds in (("0.5", 0.5), ("0.95", 0.95), ("0.99", 0.99)):
        value = found["firsttoken_ttft_seconds_quantile"][*ONE, share]
        assert value == pytest.approx(seconds, rel=0.01)


def test_labels_are_escaped() -> None:
    """Whatever a target is called."""
    found = shown(record(target='a/"\\\n', attempts=[]))
    assert ("fast", 'a/\\"\\\\\\n', "ok", "") in found["firsttoken_calls_total"]


def test_no_calls_no_lines() -> None:
    """A process that has answered nothing shows nothing."""
    assert text(Aggregate((), 5)) == ""


def test_without_dimensions() -> None:
    """Then there is one figure of each kind."""
    found = shown(record(cost=1.0), dimensions=())
    assert found["firsttoken_cost_total"] == {(): 1.0}
    assert found["firsttoken_ttlt_seconds_count"] == {(): 1}


def test_series_are_bounded() -> None:
    """Ten thousand targets, tenants and errors make as many series as are allowed, and lose no call."""
    calls = [
        record(
            target=f"p/{n}", tenant=f"t{n}", error=f"e{n}", status=500, attempts=[attempt(outcome=f"e{n}")]
        )
        for n in range(5000)
    ] + [record(target=f"p/{n}", tenant=f"t{n}", attempts=[]) for n in range(5000)]
    found = shown(*calls, dimensions=("model", "target", "tenant"), series=20)
    assert all(len(rows) <= 21 * 15 for rows in found.values())  # 15: the buckets
    assert sum(found["firsttoken_calls_total"].values()) == 10_000
    assert sum(found["firsttoken_ttlt_seconds_count"].values()) == 5000
    assert sum(found["firsttoken_attempts_total"].values()) == 5000


def test_a_shared_answer_is_counted_once_upstream() -> None:
    """Attempts of another call are not counted again."""
    assert "firsttoken_attempts_total" not in shown(record(coalesced=True))


def test_instances_are_merged_by_adding() -> None:
    """Two processes, merged, show what one would that had answered all calls."""
    calls = [record(first_chunk=100 + n / 50, cost=1.0, cache="hit") for n in range(1, 51)]
    half = aggregate(calls[:20])
    half.merge(aggregate(calls[20:]))
    merged, whole = parse(text(half)), shown(*calls)
    assert merged.keys() == whole.keys()
    for name, rows in whole.items():
        assert merged[name] == pytest.approx(rows), name


def get(app: Any, headers: dict[str, str] | None = None) -> Any:
    return asyncio.run(ask(app, method="GET", path="/metrics", headers=headers))


def test_the_endpoint() -> None:
    """It shows the calls of this process, and what its targets are doing now."""
    app = make_app()
    asyncio.run(ask(app, chat(stream=True)))
    asyncio.run(ask(app, chat(), headers=simulate("fault=status,status=503")))
    asyncio.run(ask(app, chat(), path="/v1/nowhere"))
    answer = get(app)
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    found = parse(answer.body.decode())
    assert found["firsttoken_calls_total"]["m", "simulated/m", "ok", ""] == 1
    assert sum(found["firsttoken_calls_total"].values()) == 3
    assert found["firsttoken_ttft_seconds_count"] == {("m", "simulated/m"): 1}
    assert found["firsttoken_in_flight"] == {("simulated/m",): 0}


KEYS = Auth(
    mode="auto",
    keys={name: [hashlib.sha256(name.encode()).hexdigest()] for name in ("acme", "ops")},
)


@pytest.mark.parametrize(
    ("telemetry", "key", "status"),
    [
        (Telemetry(), "acme", 404),
        (Telemetry(metrics="on"), "", 401),
        (Telemetry(metrics="on"), "wrong", 401),
        (Telemetry(metrics="on"), "acme", 200),
        (Telemetry(metrics="on", metrics_tenants=["ops"]), "acme", 401),
        (Telemetry(metrics="on", metrics_tenants=["ops"]), "ops", 200),
    ],
)
def test_who_may_read_deployed(telemetry: Telemetry, key: str, status: int) -> None:
    """Deployed there are no metrics unless they are asked for, and never without a key."""
    app = make_app(deployed=True, auth=KEYS, telemetry=telemetry)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    assert get(app, headers).status == status


def test_figures_of_tenants_need_readers() -> None:
    """One tenant does not get to see another's figures by default."""
    with pytest.raises(ConfigError, match="metrics_tenants"):
        make_app(deployed=True, auth=KEYS, telemetry=Telemetry(metrics="on", dimensions=("tenant",)))


def test_off_is_off() -> None:
    """Locally too."""
    assert get(make_app(telemetry=Telemetry(metrics="off"))).status == 404
