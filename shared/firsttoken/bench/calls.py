"""Calls to targets as the gateway's log tells them: one JSON line a request, with its attempts in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from firsttoken.bench.load import Sample
from firsttoken.bench.scenario import Scenario
from firsttoken.simulator.profile import Profile


class Attempt(NamedTuple):
    """One call to a target, see `firsttoken.telemetry.record.Attempt`."""

    kind: str
    target: str
    """The name of the provider, which in a scenario is the target's."""
    outcome: str


class Logged(Struct):
    """A line of the gateway's log, and the request that it is about, if its client saw the request's id."""

    request_id: str = ""
    target: str = ""
    attempts: list[str] = []
    resumed: int = 0
    coalesced: bool = False
    replayed: bool = False
    sample: Sample | None = None

    def calls(self) -> list[Attempt]:
        """Return its attempts; those behind an answer that was shared are told by who asked first."""
        if self.coalesced or self.replayed:
            return []
        split = (attempt.split(":", 1) for attempt in self.attempts)
        parts = ((kind, *rest.rsplit(":", 1)) for kind, rest in split)
        return [Attempt(kind, target.partition("/")[0], outcome) for kind, target, outcome in parts]


def read(log: bytes, samples: Iterable[Sample], left_out: set[str]) -> list[Logged]:
    """Return the lines of a log, without those of the request ids ``left_out``."""
    ours = {sample.request_id: sample for sample in samples if sample.request_id}
    found: list[Logged] = []
    for line in log.splitlines():
        try:
            entry = msgspec.json.decode(line, type=Logged)
        except msgspec.DecodeError:
            continue  # a traceback or a warning
        entry.sample = ours.get(entry.request_id)
        if entry.request_id not in left_out:
            found.append(entry)
    return found


def attribute(scenario: Scenario, samples: Iterable[Sample], logged: Iterable[Logged]) -> None:
    """Say which target answered: its header, else the gateway's log, else the name of the model."""
    for line in logged:
        if line.sample is not None:
            line.sample.target = line.sample.target or line.target
    for sample in samples:
        name = (sample.target or sample.model).partition("/")[0]
        sample.target = name if name in scenario.targets else ""


def count(logged: Iterable[Logged], kind: str) -> int:
    """Count the attempts of one kind."""
    return sum(attempt.kind == kind for line in logged for attempt in line.calls())


def while_down(scenario: Scenario, logged: Iterable[Logged]) -> dict[str, int]:
    """Count the calls to each faulty target for requests sent ``settle`` seconds into its fault, or later."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for fault in scenario.faults:
        if fault.target:
            spans.setdefault(fault.target, []).append((fault.at + scenario.settle, fault.until))
    counts = dict.fromkeys(spans, 0)
    for line in logged:
        at = line.sample.sent if line.sample is not None else -1.0
        for attempt in line.calls():
            if any(start <= at < end for start, end in spans.get(attempt.target, ())):
                counts[attempt.target] += 1
    return counts


def in_cooldown(scenario: Scenario, logged: Sequence[Logged]) -> int:
    """Count requests that were sent to a target although an answer before had asked to wait longer."""
    waits = {
        name: Profile().changed(target.profile).retry_after or 0.0
        for name, target in scenario.targets.items()
    }
    asked: dict[str, list[float]] = {name: [] for name in waits}
    sent: list[tuple[str, float]] = []
    for line in logged:
        for target, outcome in {(attempt.target, attempt.outcome) for attempt in line.calls()}:
            if line.sample is None or line.sample.done is None or target not in asked:
                continue
            sent.append((target, line.sample.sent))
            if outcome == "rate_limit_exceeded":
                asked[target].append(line.sample.done)
    return sum(any(0 < at - said < waits[target] for said in asked[target]) for target, at in sent)
