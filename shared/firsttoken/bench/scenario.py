"""A scenario of `firsttoken chaos`: who serves, how much is asked, what breaks when, and what must hold.

Scenarios are TOML files; those in the package are in the folder `scenarios` beside this module. Every key is
described here and in docs/chaos.md.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field
from msgspec.structs import replace

from firsttoken.bench import load
from firsttoken.errors import ConfigError, RequestError
from firsttoken.settings.base import NotNegative, Positive, Section, Share
from firsttoken.simulator.profile import Profile

FOLDER = Path(__file__).parent / "scenarios"
_WORDS = ("what", "how", "why", "region", "token", "stream", "cache", "model", "Zürich", "naïve", "東京", "λ")


class Target(Section, frozen=True):
    """A simulated provider: a process of the run's own, or one that answers at ``control``."""

    profile: str = "ttft_ms=40,itl_ms=2,tokens=40"
    control: Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")] = ""


class Store(Section, frozen=True):
    """The shared state of the gateway."""

    kind: Literal["redis", "sqlite"]


class Fault(Section, frozen=True):
    """What breaks, from ``at`` to ``until`` (seconds since the start)."""

    at: NotNegative
    until: Positive
    target: str = ""
    profile: str = ""
    """Of the target meanwhile, as in ``firsttoken sim --profile``."""
    kind: Literal["profile", "kill", "freeze"] = "profile"
    """``kill``: connections are refused; ``freeze``: connections are accepted and nothing follows."""
    store: Literal["", "kill", "remove", "lock"] = ""
    """Instead of a target: ``kill`` Redis; ``remove`` or ``lock`` the file of SQLite."""


class Expect(Section, frozen=True):
    """Bars. A missing one is not checked; what cannot be measured fails."""

    availability: Share | None = None
    p99_added_ms: NotNegative | None = None
    p50_added_ms: NotNegative | None = None
    ttft_p99_ms: NotNegative | None = None
    """Of all streamed answers."""
    ttft_p99_gain: NotNegative | None = None
    """How many times smaller than in the run ``without``."""
    back_within_s: NotNegative | None = None
    amplification: NotNegative | None = None
    """Calls to targets for each request."""
    hedge_share: Share | None = None
    calls_while_down: NotNegative | None = None
    """Calls to a faulty target, without the first ``settle`` seconds."""
    calls_in_cooldown: NotNegative | None = None
    """Calls to a target after it asked to wait, before that time was over."""
    upstream_calls: NotNegative | None = None
    rung_share: Share | None = None
    """Answers with a fixed text of the ladder, at least."""
    wrong: NotNegative | None = None
    """Answers whose text is not the expected one."""
    untyped: NotNegative | None = None
    """Answers that ended without a proper end and without an error."""
    unnamed: NotNegative | None = None
    """Answers that do not name their model, or lack their usage."""
    idle_within_s: NotNegative | None = None
    """Until no target works any more, after the last client is gone."""


class Scenario(Section, frozen=True):
    """One scenario. Times in seconds."""

    name: str = ""
    description: str = ""
    duration: Positive = 60.0
    rate: Positive = 20.0
    """Requests a second; they arrive independently of each other (Poisson) and of the answers."""
    burst: Annotated[int, Meta(ge=0)] = 0
    """Instead of ``rate``: so many requests at once."""
    seed: int = 1
    streamed: Share = 0.8
    """Share of the requests that are streamed."""
    model: str = "chat"
    words: Annotated[int, Meta(ge=1, le=2000)] = 30
    """Of a prompt, at most."""
    same: bool = False
    """Whether all prompts are the same."""
    fields: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it for each value
    """What else each request says, for example ``{ temperature = 0 }``."""
    leave: Share = 0.0
    """Share of the clients that go away early ..."""
    leave_after: Positive = 0.5
    """... at a random time up to this."""
    deadline: Positive = 60.0
    settle: NotNegative = 2.0
    """The first seconds of a fault, in which breakers learn of it; not part of what was added by it."""
    targets: dict[str, Target] = {}  # noqa: RUF012
    """Preferred one first."""
    store: Store | None = None
    gateway: dict[str, Any] = {}  # noqa: RUF012
    """Part of a ``firsttoken.toml``; addresses of the targets are filled in."""
    without: dict[str, Any] = {}  # noqa: RUF012
    """The same, laid over ``gateway`` for a run before, to compare with."""
    faults: list[Fault] = field(name="fault", default_factory=list)
    expect: Expect = Expect()

    def lasting(self, seconds: float) -> Scenario:
        """Return this scenario in another length; its faults keep their share of it."""
        scale = seconds / self.duration
        faults = [replace(fault, at=fault.at * scale, until=fault.until * scale) for fault in self.faults]
        return replace(self, duration=seconds, faults=faults)

    def arrivals(self) -> list[load.Arrival]:
        """Return the requests, the same ones for the same seed."""
        rng = random.Random(self.seed)  # noqa: S311 - load, not secrets
        times = [0.0] * self.burst or load.poisson(self.rate, self.duration, rng)
        return [self._arrival(number, at, rng) for number, at in enumerate(times)]

    def _arrival(self, number: int, at: float, rng: random.Random) -> load.Arrival:
        words = rng.choices(_WORDS, k=rng.randint(1, self.words))
        prompt = "the same for all" if self.same else f"{number}: {' '.join(words)}"
        stream = rng.random() < self.streamed
        leaves = rng.random() < self.leave
        return load.Arrival(
            at=at,
            prompt=prompt,
            body=load.body(self.model, prompt, stream=stream, **self.fields),
            stream=stream,
            leave_after=rng.uniform(0.001, self.leave_after) if leaves else None,
        )


def names() -> list[str]:
    """Return the names of the scenarios in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Scenario:
    """Read a scenario: a file, or one of the package by its name. Raises ConfigError."""
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"{name}: there is no such scenario; expected a file or one of {', '.join(names())}"
        )
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path.name}: not readable as TOML: {error}") from error
    return parse({"name": path.stem, **tree}, path.name)


def parse(tree: dict[str, Any], file: str) -> Scenario:
    """Return the scenario in a TOML file's tree. Raises ConfigError naming file and key."""
    try:
        scenario = msgspec.convert(tree, Scenario)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {_explained(str(error))}") from error
    _check(scenario, file)
    return scenario


def _explained(message: str) -> str:
    what, _, path = message.partition(" - at `$")
    key = path.strip("`.")
    if "unknown field" not in what:
        return f"{key or 'top level'}: {what}"
    unknown = what.split("`")[1]
    section = key.split("[")[0].split(".")[0]
    kinds = {"": Scenario, "targets": Target, "store": Store, "fault": Fault, "expect": Expect}
    expected = ", ".join(kinds[section].__struct_encode_fields__)
    return f"{f'{key}.' if key else ''}{unknown}: unknown key; expected one of {expected}"


def _check(scenario: Scenario, file: str) -> None:
    if not scenario.targets:
        raise ConfigError(f"{file}: there is no [targets.NAME] section; expected one with a profile")
    for name, target in scenario.targets.items():
        _check_profile(target.profile, f"{file}: targets.{name}.profile")
    for number, fault in enumerate(scenario.faults):
        where = f"{file}: fault[{number}]"
        if bool(fault.target) == bool(fault.store):
            raise ConfigError(f"{where}: expected either target or store")
        if fault.target and fault.target not in scenario.targets:
            known = ", ".join(scenario.targets)
            raise ConfigError(f"{where}.target: there is no {fault.target!r}; expected one of {known}")
        if fault.store:
            _check_store(scenario, fault, where)
        if not fault.at < fault.until <= scenario.duration:
            raise ConfigError(
                f"{where}: expected at < until <= duration, got {fault.at:g}, {fault.until:g} and"
                f" {scenario.duration:g}"
            )
        _check_profile(fault.profile, f"{where}.profile")
        if fault.target and bool(fault.profile) != (fault.kind == "profile"):
            raise ConfigError(f"{where}: expected either a profile or another kind (kill, freeze)")


def _check_store(scenario: Scenario, fault: Fault, where: str) -> None:
    kind = scenario.store.kind if scenario.store else ""
    possible = {"redis": ("kill",), "sqlite": ("remove", "lock")}.get(kind, ())
    if fault.store not in possible:
        expected = " or ".join(possible) or "a [store] section"
        raise ConfigError(f"{where}.store: not possible here; expected {expected}")


def _check_profile(spec: str, where: str) -> None:
    try:
        Profile().changed(spec)
    except RequestError as error:
        raise ConfigError(f"{where}: {error}") from error
