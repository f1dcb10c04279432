"""Hedging under load: how much the tail loses, and what that costs."""

import asyncio

from firsttoken.policies.balance import Order
from firsttoken.policies.failover import Failover
from firsttoken.policies.hedge import Hedge
from firsttoken.settings import Breaker
from firsttoken.settings import Hedge as Limits
from tests.policies.models import Scripted, make_call, open_model, say, text_of
from tests.policies.targets import learned, saying, seeded, targets
from tests.virtual_time import run


def test_brownout() -> None:
    """When all calls are late at once the load grows by the budget, and not more."""

    async def work() -> None:
        a, b = saying("a", 2.0), saying("b", 2.0)
        listed = targets(a=a, b=b)
        learned(listed[0], 0.8)
        limits = Limits(quantile=0.05)  # what is learned in the brown-out must not make up for it
        by_name = {t.name: t for t in listed}
        model = Hedge(Failover(listed, Order()), limits, by_name, Breaker(), calm=lambda: True)
        for _ in range(400):
            await text_of(model, make_call())
        assert 400 < len(a.calls) + len(b.calls) <= 400 * 1.05

    run(work())


def _simulate(enabled: bool, calls: int = 2000) -> tuple[list[float], int]:
    """Times to first token of calls to targets with 3 % stragglers, and how many were doubled."""

    async def work() -> tuple[list[float], int]:
        rng = seeded()

        def script(_call):
            straggles = rng.random() < 0.03
            first = rng.uniform(8, 20) if straggles else rng.lognormvariate(-0.5, 0.35)
            return (first, say("x", finish="stop"))

        a, b = Scripted(script), Scripted(script)
        listed = targets(a=a, b=b)
        model = Failover(listed, Order())
        if enabled:
            # Stragglers are the breaker's business as well: here only the budgeted hedge may act.
            breaker = Breaker(slow=60, slow_factor=0)
            model = Hedge(model, Limits(), {t.name: t for t in listed}, breaker, calm=lambda: True)
        times = []
        for _ in range(calls):
            start = asyncio.get_running_loop().time()
            opened = await open_model(model, make_call())
            times.append(asyncio.get_running_loop().time() - start)
            async for _chunk in opened.chunks():
                pass
        assert a.active == b.active == 0
        return sorted(times), len(a.calls) + len(b.calls) - calls

    return run(work())


def test_tail() -> None:
    """With 3 % stragglers hedging divides the P99 by three or more, for 6 % more calls at most."""
    calls = 2000
    plain, none = _simulate(enabled=False)
    hedged, extra = _simulate(enabled=True)
    p99 = int(0.99 * calls)
    assert none == 0
    assert extra <= 0.06 * calls
    assert plain[p99] >= 3 * hedged[p99]
