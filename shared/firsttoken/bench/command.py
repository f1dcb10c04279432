"""``firsttoken chaos``: run a scenario on this machine and say whether what it expects holds."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import msgspec
from msgspec.structs import replace

from firsttoken.bench import chaos, scenario
from firsttoken.bench.table import render
from firsttoken.errors import ConfigError

_PLAIN_EVERY = 10


def run(parsed: argparse.Namespace) -> int:
    """Run the command; the exit status is 1 when an expectation is not met. Raises ConfigError."""
    if parsed.list:
        for name in scenario.names():
            _say(f"{name:<18} {scenario.read(name).description}")
        return 0
    if not parsed.scenario:
        raise ConfigError(f"SCENARIO: expected a file or one of {', '.join(scenario.names())}")
    chosen = changed(scenario.read(parsed.scenario), parsed.seed, parsed.rate, parsed.duration)
    # Whoever ends the command does not want its processes to stay.
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        report = asyncio.run(chaos.run(chosen, url=parsed.url.rstrip("/"), progress=_Line(chosen.name)))
    finally:
        signal.signal(signal.SIGTERM, previous)
    _say(render(report))
    if parsed.json:
        parsed.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0 if report.passed else 1


def changed(
    chosen: scenario.Scenario, seed: int | None, rate: float | None, duration: float | None
) -> scenario.Scenario:
    """Return the scenario with what the command line says otherwise."""
    chosen = chosen if duration is None else chosen.lasting(duration)
    return replace(
        chosen, seed=chosen.seed if seed is None else seed, rate=chosen.rate if rate is None else rate
    )


class _Line:
    """The progress: one line that is written anew on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._told = 0

    def __call__(self, progress: chaos.Progress) -> None:
        self._told += 1
        said = f"{self._name}: {progress.elapsed:.0f} of {progress.duration:g} s, {progress.ended} ended,"
        said += f" {progress.failed} failed"
        if progress.broken:
            said += f"; broken: {', '.join(progress.broken)}"
        if self._terminal:
            sys.stderr.write(f"\r\033[K{said}" + "\n" * (progress.elapsed >= progress.duration))
        elif self._told % _PLAIN_EVERY == 0:
            sys.stderr.write(said + "\n")
        sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
