"""A scenario of `firsttoken load`: how requests arrive, what they ask, what is good enough, what must hold.

Scenarios are TOML files; those in the package are in the folder `scenarios/load` beside this module. Every
key is described here and in docs/load.md.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field
from msgspec.structs import replace

from firsttoken.bench import arrivals_trace
from firsttoken.bench.arrivals import Arrivals
from firsttoken.bench.arrivals_trace import Entry
from firsttoken.bench.mix import Mix
from firsttoken.bench.scenario import Fault, Target
from firsttoken.errors import ConfigError, RequestError
from firsttoken.settings.base import NotNegative, Positive, Section, Share
from firsttoken.simulator.profile import Profile

FOLDER = Path(__file__).parent / "scenarios" / "load"


class Slo(Section, frozen=True):
    """What an answer must keep to be a good one, in milliseconds from when it was due; None: not asked."""

    ttft_ms: Positive | None = None
    """Of streamed answers."""
    e2e_ms: Positive | None = None


class Expect(Section, frozen=True):
    """Bars. A missing one is not checked; what cannot be measured fails."""

    availability: Share | None = None
    good_share: Share | None = None
    """Answers within the SLO, of all requests, at least."""
    ttft_p50_ms: NotNegative | None = None
    ttft_p99_ms: NotNegative | None = None
    e2e_p99_ms: NotNegative | None = None
    recovered_within_s: NotNegative | None = None
    """From the end of the last surge or fault until answers come as before."""


class LoadScenario(Section, frozen=True):
    """One scenario. Times in seconds."""

    name: str = ""
    description: str = ""
    duration: Positive = 60.0
    seed: int = 1
    model: str = "chat"
    deadline: Positive = 60.0
    """Until a client gives up, from when its request was due."""
    fields: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it for each value
    """What else each request says, for example ``{ temperature = 0 }``."""
    arrivals: Arrivals = Arrivals()
    mix: Mix = Mix()
    slo: Slo = Slo()
    expect: Expect = Expect()
    targets: dict[str, Target] = {}  # noqa: RUF012
    """Simulated providers behind the gateway that the run starts where it is given no URL."""
    gateway: dict[str, Any] = {}  # noqa: RUF012
    """Part of that gateway's ``firsttoken.toml``."""
    faults: list[Fault] = field(name="fault", default_factory=list)
    """Of those targets; left out where the load goes to a URL."""

    def lasting(self, seconds: float) -> LoadScenario:
        """Return this scenario in another length; surges, days and faults keep their share of it."""
        scale = seconds / self.duration
        faults = [replace(fault, at=fault.at * scale, until=fault.until * scale) for fault in self.faults]
        return replace(self, duration=seconds, faults=faults, arrivals=self.arrivals.scaled(scale))

    def entries(self) -> Iterator[Entry]:
        """Yield when requests are due, the same for the same seed. Raises ConfigError for a wrong trace."""
        if self.arrivals.trace:
            recorded = arrivals_trace.read(Path(self.arrivals.trace), self.arrivals.speed)
            return (entry for entry in recorded if entry.at < self.duration)
        rng = random.Random(self.seed)  # noqa: S311 - load, not secrets
        return (Entry(at) for at in self.arrivals.times(self.duration, rng))

    def disturbed(self, *, faults: bool) -> tuple[float, float] | None:
        """Return when the first surge or fault begins and the last one ends; None without any."""
        spans = [(surge.at, surge.until) for surge in self.arrivals.surges if not self.arrivals.trace]
        spans += [(fault.at, fault.until) for fault in self.faults if faults]
        return (min(at for at, _ in spans), max(until for _, until in spans)) if spans else None


def names() -> list[str]:
    """Return the names of the scenarios in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> LoadScenario:
    """Read a scenario: a file, or one of the package by its name. Raises ConfigError."""
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"{name}: there is no such scenario; expected a URL, a file or one of {', '.join(names())}"
        )
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path.name}: not readable as TOML: {error}") from error
    scenario = parse({"name": path.stem, **tree}, path.name)
    if not scenario.arrivals.trace:
        return scenario
    trace = str(path.parent / scenario.arrivals.trace)
    return replace(scenario, arrivals=replace(scenario.arrivals, trace=trace))


def parse(tree: dict[str, Any], file: str) -> LoadScenario:
    """Return the scenario in a TOML file's tree. Raises ConfigError naming file and key."""
    try:
        scenario = msgspec.convert(tree, LoadScenario)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"{file}: {path.strip('`.') or 'top level'}: {what}") from error
    if not scenario.mix.prompts:
        raise ConfigError(f"{file}: mix.prompts: expected at least one kind of prompt")
    for number, surge in enumerate(scenario.arrivals.surges):
        _span(surge.at, surge.until, scenario.duration, f"{file}: arrivals.surges[{number}]")
    for name, target in scenario.targets.items():
        _profile(target.profile, f"{file}: targets.{name}.profile")
    for number, fault in enumerate(scenario.faults):
        where = f"{file}: fault[{number}]"
        _span(fault.at, fault.until, scenario.duration, where)
        _profile(fault.profile, f"{where}.profile")
        if fault.target not in scenario.targets:
            known = ", ".join(scenario.targets) or "a [targets.NAME] section"
            raise ConfigError(f"{where}.target: there is no {fault.target!r}; expected {known}")
        if bool(fault.profile) != (fault.kind == "profile") or fault.store:
            raise ConfigError(f"{where}: expected either a profile or another kind (kill, freeze)")
    return scenario


def _span(at: float, until: float, duration: float, where: str) -> None:
    if not at < until <= duration:
        raise ConfigError(f"{where}: expected at < until <= duration, got {at:g}, {until:g} and {duration:g}")


def _profile(spec: str, where: str) -> None:
    try:
        Profile().changed(spec)
    except RequestError as error:
        raise ConfigError(f"{where}: {error}") from error
