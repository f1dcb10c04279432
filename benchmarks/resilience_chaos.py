"""Rows that are scenarios of ``firsttoken chaos``: real processes, real connections, open-loop load."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec.structs import asdict, replace

from benchmarks.resilience_row import Row
from benchmarks.resilience_stores import Dynamodb, Tables
from firsttoken.bench import chaos, scenario
from firsttoken.bench.fleet import SqliteStore, StoreUnderTest, merged
from firsttoken.bench.report import LEAST, Report
from firsttoken.bench.scenario import Expect, Fault, Scenario, Target

_QUICK: dict[str, Any] = {
    "timeouts": {"first_chunk": 0.8, "whole": 1.0, "gap": 0.3, "idle": 0.3},
    "breaker": {"open": 0.3, "max_open": 0.5, "probe_timeout": 0.3, "slow_floor": 0.2},
    "hedge": {"floor": 0.1},
}
"""Settings that let a few seconds show what the defaults show in a minute."""
_COUNTED = ("availability", "wrong", "untyped", "unnamed", "upstream_calls", "rung_share")
"""Expectations that do not depend on the machine's speed; the short variants have these alone."""


def run(
    name: str,
    *,
    short: bool = False,
    gateway: Mapping[str, Any] | None = None,
    under_test: StoreUnderTest | None = None,
    **changes: Any,
) -> Row:
    """Run a scenario of the package, changed, and shortened to a few seconds where asked to."""
    chosen = replace(scenario.read(name), **changes)
    if short:
        chosen = shortened(chosen)
    if gateway:
        chosen = replace(chosen, gateway=merged(chosen.gateway, gateway))
    return _row(asyncio.run(chaos.run(chosen, store=under_test)))


def shortened(chosen: Scenario) -> Scenario:
    """Return a scenario of two seconds, with faster breakers and only the expectations that are counts."""
    expect = Expect(**{name: value for name, value in asdict(chosen.expect).items() if name in _COUNTED})
    quick = replace(chosen, expect=expect, gateway=merged(chosen.gateway, _QUICK), without={}, settle=0.3)
    return quick.lasting(2.0)


def _row(report: Report) -> Row:
    counts = ("requests", "answered", "availability", "errors", "upstream_calls", "amplification", "hedges")
    also = {name: getattr(report, name) for name in (*counts, "resumed", "rungs", "wrong", "back_within_s")}
    also["added_ms"] = report.added
    also["ttft_p99_ms"] = {name: phase.ttft_p99 for name, phase in report.phases.items()}
    also["while_down"] = {
        name: calls.while_down for name, calls in report.targets.items() if calls.while_down is not None
    }
    return Row(
        measured={check.name: check.measured for check in report.checks},
        bars={check.name: check.expected for check in report.checks},
        least=LEAST,
        also={name: value for name, value in also.items() if value not in (None, {}, [])},
        timeline=report.timeline,
    )


region_refused = partial(run, "region-refused")
region_503 = partial(run, "region-503")
region_hang = partial(run, "region-hang")
region_slow = partial(run, "region-slow")
stragglers = partial(run, "stragglers")
silent = partial(run, "stream-silent")
default_500 = partial(run, "default-500")
default_503 = partial(run, "default-503")
default_refused = partial(run, "default-refused")
default_reset = partial(run, "default-reset")
default_silent = partial(run, "default-silent")
default_slow = partial(run, "default-slow")
redis_killed = partial(run, "store-down")


def silent_not_resumed(*, short: bool = False) -> Row:
    """End a silent answer that nothing goes on with: an error, and no end marker."""
    return run(
        "stream-silent",
        short=short,
        gateway={"resume": {"enabled": False}},
        expect=Expect(wrong=0, untyped=0),
    )


def identical(*, short: bool = False) -> Row:
    """Answer identical requests in flight from one call upstream; those who leave harm nobody."""
    if not short:
        return run("identical")
    target = Target(profile="ttft_ms=500,itl_ms=2,tokens=40")
    return run("identical", short=True, burst=100, leave_after=0.3, targets={"near": target})


def sqlite_removed(*, short: bool = False) -> Row:
    """Remove the file under traffic, with its directory."""
    return _store_down("remove", SqliteStore(), short=short)


def sqlite_locked(*, short: bool = False) -> Row:
    """Hold the file's lock in another process."""
    return _store_down("lock", SqliteStore(), short=short)


def dynamodb_killed(*, short: bool = False) -> Row:
    """Kill moto under traffic."""
    return _store_down("kill", Dynamodb(), short=short)


def tables_killed(*, short: bool = False) -> Row:
    """Kill Azurite under traffic."""
    return _store_down("kill", Tables(), short=short)


def _store_down(how: str, store: StoreUnderTest, *, short: bool) -> Row:
    old = scenario.read("store-down")
    faults = [Fault(at=fault.at, until=fault.until, store=how) for fault in old.faults]
    return run("store-down", short=short, under_test=store, store=None, faults=faults)
