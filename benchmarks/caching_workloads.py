"""Workloads for the benchmark of prompt caching and its tests, and a provider that only counts tokens.

The provider keeps what a call marks, for so long from the beginning of each call that reads or writes it, and
bills reads, writes and the rest at their own prices. No call is answered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.prefix_planner import Planner
from firsttoken.cache.prices import Prices
from firsttoken.model import Call, Chunk, Source, Usage
from firsttoken.providers.simulated import Simulated
from firsttoken.settings import SimulatedProvider

KEPT = {"5m": 300.0, "1h": 3600.0}
CLAUDE = Prices(input=3, read=0.1, write=1.25, write_1h=2.0, minimum=1024)
CHEAP_READS = Prices(input=10, read=0.025, write=1.25, write_1h=2.0, minimum=512)
FREE_WRITES = Prices(input=0.3, read=0.25, minimum=1024)


class MarkedOnly:
    """The simulated provider as one that caches by marker, whatever format the client speaks."""

    def __init__(self) -> None:
        profile = "ttft_ms=0,itl_ms=0,context_window=200000,tokens=40,cache_minimum=512"
        self._model = Simulated(SimulatedProvider(profile=profile))
        self.calls: list[Call] = []

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer, with a bill as Anthropic writes it."""
        self.calls.append(call)
        return self._model.stream(replace(call, source=Source("anthropic", b"")))


class Sent(Struct, frozen=True):
    """A call: its prefixes (key and tokens from the start, shortest first) and all of its tokens.

    ``before`` is what the prompt was called in the calls before.
    """

    at: float
    prefixes: tuple[tuple[bytes, int], ...]
    tokens: int
    key: bytes = b""
    """What the whole prompt is called, where it may be gone on with."""
    before: tuple[bytes, ...] = ()


class Workload(Struct, frozen=True):
    """What a process has to do in its life."""

    prices: Prices
    ttl: str
    calls: tuple[Sent, ...]
    kind: str = ""


def workloads(seed: int, count: int) -> Iterator[Workload]:
    """Yield random workloads: prefixes that come at random, in bursts, once, twice, or just too late."""
    for number in range(count):
        rng = Random(f"{seed}-{number}")  # noqa: S311 - workloads, not secrets
        prices = rng.choice([CLAUDE, CLAUDE, CHEAP_READS, FREE_WRITES])
        ttl = "1h" if prices.write_1h and rng.random() < 0.25 else "5m"
        kind = rng.choice(sorted(_KINDS))
        calls: list[Sent] = []
        for name in range(rng.randint(1, 12)):
            calls.extend(_KINDS[kind](rng, f"{number}.{name}", KEPT[ttl]))
        yield Workload(prices, ttl, tuple(sorted(calls, key=lambda call: call.at)[:400]), kind)


def _at(times: list[float], rng: Random, name: str) -> Iterator[Sent]:
    tokens = rng.choice([600, 2_000, 8_000, 40_000])
    for at in times:
        yield Sent(at, ((name.encode(), tokens),), tokens + rng.randint(20, 2_000))


def _random(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    gap, at, times = kept * 10 ** rng.uniform(-2, 1), rng.uniform(0, 4 * kept), []
    for _ in range(rng.randint(1, 60)):
        times.append(at)
        at += rng.expovariate(1 / gap)
    return _at(times, rng, name)


def _bursts(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    size, at, times = rng.randint(1, 6), rng.uniform(0, 4 * kept), []
    for _ in range(rng.randint(1, 12)):
        for _ in range(size):
            times.append(at)
            at += rng.uniform(0, kept / 4)
        at += kept * rng.uniform(1.1, 5)
    return _at(times, rng, name)


def _periodic(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    period = kept * rng.choice([0.1, 0.5, 0.95, 1.01, 1.5])
    return _at([number * period for number in range(rng.randint(1, 60))], rng, name)


def _once(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    return _at([rng.uniform(0, 20 * kept)], rng, name)


def _twice(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    at = rng.uniform(0, 20 * kept)
    return _at([at, at + rng.uniform(0, kept)], rng, name)


def _few(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    """Yield what is over just when it seems to pay."""
    at, step = rng.uniform(0, 20 * kept), rng.uniform(0, kept)
    return _at([at + number * step for number in range(rng.randint(2, 4))], rng, name)


def _talks(rng: Random, name: str, kept: float) -> Iterator[Sent]:
    """Yield a conversation over shared instructions, with a person who thinks between the turns."""
    known = tokens = head = 2_000
    at = rng.uniform(0, 4 * kept)
    before: tuple[bytes, ...] = ()
    for turn in range(rng.choice([1, 2, 3, 8, 20])):
        said = rng.randint(50, 800)
        key = f"{name}/{turn}".encode()
        parts = ((b"instructions", head), (key, known), (key, tokens))
        yield Sent(at, parts[: 1 + 2 * bool(turn)], tokens + said, key, before)
        before, known, tokens = (key,), tokens, tokens + said + rng.randint(50, 600)
        at += rng.expovariate(1 / (kept / 4))


_KINDS = {
    "at random": _random,
    "bursts": _bursts,
    "conversations": _talks,
    "few": _few,
    "once": _once,
    "periodic": _periodic,
    "twice": _twice,
}


def bill(workload: Workload, planner: Planner | None = None) -> tuple[float, float]:
    """Return what the prompts of a workload cost, with a planner's decisions and without any caching.

    In tokens at the price of input.
    """
    cost = plain = 0.0
    for with_caching, without in bills(workload, planner or Planner(workload.prices, workload.ttl)):
        cost, plain = cost + with_caching, plain + without
    return cost, plain


def bills(workload: Workload, planner: Planner) -> Iterator[tuple[float, float]]:
    """Yield what each prompt of a workload costs; see `bill`."""
    prices, kept = workload.prices, KEPT[workload.ttl]
    held: dict[bytes, tuple[float, int]] = {}
    for call in workload.calls:
        names = dict.fromkeys([*(key for key, _ in call.prefixes), *([call.key] if call.key else [])])
        seen = {key: planner.sight(key, call.at, call.before if key == call.key else ()) for key in names}
        plan = planner.plan([(seen[key], size) for key, size in call.prefixes], call.at)
        marked = [call.prefixes[at] for at in plan.marks if call.prefixes[at][1] >= prices.minimum]
        # A marker finds what was written a little before it, too.
        near = [key for key in (*names, *call.before) if marked and held.get(key, (0.0, 0))[0] > call.at]
        cached = max([held[key][1] for key in near], default=0)
        written = max(0, max([size for _, size in marked], default=0) - cached)
        held |= {key: (call.at + kept, held[key][1]) for key in near}
        held |= {key: (call.at + kept, size) for key, size in sorted(marked, key=_size)}
        planner.began(plan)
        planner.ended(plan, Usage(input=call.tokens, cached=cached, cache_write=written))
        share = prices.write_for(workload.ttl)
        yield call.tokens - cached - written + cached * prices.read + written * share, call.tokens


def _size(prefix: tuple[bytes, int]) -> int:
    return prefix[1]
