"""When caching a prompt pays: the sums, the guesses, and the bound on what can be lost."""

from __future__ import annotations

from datetime import date
from random import Random

import pytest

from benchmarks.caching_workloads import CHEAP_READS, CLAUDE, FREE_WRITES, Sent, Workload, bill, workloads
from firsttoken.cache.break_even import (
    PROOF,
    SHARE,
    Arrivals,
    Ledger,
    Odds,
    decide,
    reuses,
    storing,
    surcharge,
)
from firsttoken.cache.prefix_planner import Planner
from firsttoken.cache.prices import TABLE, Prices, prices_of

FLASH = Prices(input=0.75, read=0.1, storage=0.5, minimum=4096)
SEEDS = 200


@pytest.mark.parametrize(
    ("prices", "expected", "ttl", "decision"),
    [
        (CLAUDE, 0.27, "5m", "nothing"),
        (CLAUDE, 0.28, "5m", "mark"),
        (CLAUDE, 1.1, "1h", "nothing"),
        (CLAUDE, 1.12, "1h", "mark"),
        (CHEAP_READS, 0.26, "5m", "mark"),
        (FREE_WRITES, 0.0, "5m", "mark"),
    ],
)
def test_a_write_pays_from_the_expected_reads_on(
    prices: Prices, expected: float, ttl: str, decision: str
) -> None:
    """A quarter more for five minutes, or twice the price for an hour, is earned by reads at a tenth."""
    assert decide(prices, 10_000, expected, ttl=ttl) == decision


@pytest.mark.parametrize(
    ("expected", "hits", "seconds", "decision"),
    [
        (1.1, 0.0, 300.0, "nothing"),
        (1.3, 0.0, 300.0, "explicit"),
        (1.3, 0.5, 300.0, "nothing"),
        (100.0, 1.0, 300.0, "nothing"),
        (1.3, 0.0, 3600.0, "nothing"),
        (2.0, 0.0, 3600.0, "explicit"),
    ],
)
def test_an_explicit_cache_pays_for_itself_and_its_storage(
    expected: float, hits: float, seconds: float, decision: str
) -> None:
    """What the provider caches by itself is no gain, and storage costs by the hour."""
    assert decide(FLASH, 10_000, expected, hits=hits, seconds=seconds, marks=False) == decision


def test_short_prefixes_are_left_alone() -> None:
    """A provider does not cache less than its minimum."""
    assert decide(CLAUDE, 1_023, 50.0) == "nothing"
    assert decide(FLASH, 4_095, 50.0, marks=False) == "nothing"


def test_sums() -> None:
    """Amounts are tokens at the price of input."""
    assert surcharge(CLAUDE, 1_000, "5m") == pytest.approx(250)
    assert surcharge(CLAUDE, 1_000, "1h") == pytest.approx(1_000)
    assert surcharge(FREE_WRITES, 1_000, "1h") == 0
    assert storing(FLASH, 3_600_000, 3600.0) == pytest.approx(3_600_000 * (1 + 0.5 / 0.75))
    assert reuses(0.5) == pytest.approx(1)
    assert reuses(1.0) == reuses(0.999) == 50


def test_the_guess_follows_the_gaps() -> None:
    """Close calls make the next one likely, a long gap makes it less so; one call says nothing."""
    arrivals = Arrivals(last=0.0)
    assert arrivals.chance(300) == 0
    arrivals.note(30, 300)
    assert arrivals.chance(300) == pytest.approx(300 / 330)
    assert arrivals.in_time
    before = arrivals.chance(300)
    arrivals.note(10_000, 300)
    assert not arrivals.in_time
    assert arrivals.chance(300) < before / 2


def test_the_guess_is_right_for_random_arrivals() -> None:
    """Of calls that come at random, as many come in time as is guessed."""
    rng = Random(7)
    guessed = came = 0.0
    for _ in range(3_000):
        gap = 10 ** rng.uniform(1, 4)
        arrivals = Arrivals()
        at = 0.0
        for _ in range(20):
            at += rng.expovariate(1 / gap)
            arrivals.note(at, 300)
        guessed += arrivals.chance(300)
        came += rng.expovariate(1 / gap) < 300
    assert guessed == pytest.approx(came, rel=0.1)


def test_outcomes_correct_the_guess() -> None:
    """A prefix that always comes twice and then no more is soon believed to do so."""
    odds = Odds()
    assert odds.given(0.75) == 0.75
    for _ in range(4):
        odds.note(won=False)
    assert odds.given(0.75) < 0.2


def test_a_run_that_goes_on_is_sure() -> None:
    """After six calls in time, or in the first half of a run as short as any before, the next one is sure."""
    arrivals, sure = Arrivals(), []
    for gap in [10.0] * 8 + [900.0] + [10.0] * 13:
        arrivals.note(arrivals.last + gap, 300)
        sure.append(arrivals.sure(0.95))
    assert sure == [False] * 5 + [True] * 3 + [False] + [True] * 3 + [False] * 8 + [True] * 2
    assert not arrivals.sure(0.5)


def test_the_ledger_spends_only_what_was_saved() -> None:
    """What reads have brought can be spent once."""
    ledger = Ledger()
    assert not ledger.grant(1)
    ledger.settle(0, 150)
    assert ledger.grant(50)
    assert ledger.grant(100)
    assert not ledger.grant(1)  # what is reserved cannot be spent again
    ledger.cancel(100)
    assert ledger.grant(1)


def test_the_first_write_needs_proof_on_paper() -> None:
    """It is made on a loan, when it is sure to be read and ten times its amount was saved on paper."""
    ledger = Ledger()
    ledger.note(99 * PROOF)
    assert not ledger.grant(100, sure=True)
    ledger.note(PROOF)
    assert not ledger.grant(100)
    assert ledger.grant(100, sure=True)
    assert ledger.first == 100


def test_a_loan_that_was_lost_takes_long_to_make_up_for() -> None:
    """The next one needs so much on paper that both are a small share of it."""
    ledger = Ledger()
    ledger.note(100 * PROOF)
    assert ledger.grant(100, sure=True)
    ledger.settle(100, -100)
    assert not ledger.grant(100, sure=True)
    ledger.note(200 / SHARE - ledger.paper)
    assert ledger.grant(100, sure=True)
    assert not ledger.grant(1, sure=True)


def test_random_workloads_never_cost_more_than_the_bound() -> None:
    """Together they cost much less; hardly one costs more than without, and none more than the bound.

    No rule that does not know the future can do without a bound: whenever it first pays for a write, that may
    have been the last call.
    """
    cost = plain = losing = 0.0
    for workload in workloads(1, SEEDS):
        planner = Planner(workload.prices, workload.ttl)
        with_caching, without = bill(workload, planner)
        cost, plain = cost + with_caching, plain + without
        losing += with_caching > without + 1e-6
        assert with_caching <= without + max(planner.ledger.first, SHARE * without) + 1e-6, workload.kind
        if workload.prices.write == 1:
            assert with_caching <= without
    assert losing <= 2
    assert cost < 0.7 * plain


def test_with_money_in_the_ledger_there_is_no_probation() -> None:
    """A prefix is written at its second sighting, and what the ledger held is never exceeded."""
    calls = (Sent(0.0, ((b"x", 8_000),), 8_100), Sent(30.0, ((b"x", 8_000),), 8_100))
    ledger = Ledger(surcharge(CLAUDE, 8_000, "5m"))
    with_caching, without = bill(Workload(CLAUDE, "5m", calls), Planner(CLAUDE, "5m", ledger))
    assert with_caching - without == pytest.approx(2_000)
    assert ledger.balance == 0


def test_nothing_is_paid_for_prompts_that_come_once() -> None:
    """Without a second sighting in time there is no write: the loss is exactly 0."""
    seen = 0
    for workload in workloads(2, SEEDS):
        if workload.kind == "once" and workload.prices.write > 1:
            with_caching, without = bill(workload)
            assert with_caching == without
            seen += 1
    assert seen > 10


def test_once_the_first_write_is_read_nothing_is_lost_any_more() -> None:
    """A prefix that pays funds all experiments after it: the workload ends below its cost without caching."""
    steady = [Sent(at * 30.0, ((b"steady", 8_000),), 8_100) for at in range(20)]
    hostile = [
        Sent(1_000.0 + pair * 900.0 + late, ((f"pair {pair}".encode(), 40_000),), 40_100)
        for pair in range(50)
        for late in (0.0, 200.0)
    ]
    with_caching, without = bill(Workload(CLAUDE, "5m", (*steady, *hostile)))
    assert with_caching < without


def test_pairs_are_learned() -> None:
    """Prefixes that come in pairs, again and again, are written a few times and then no more."""
    calls = [
        Sent(pair * 2_000.0 + late, ((b"pair", 8_000),), 8_100) for pair in range(40) for late in (0.0, 60.0)
    ]
    planner = Planner(CLAUDE, "5m", Ledger(1e9))  # nothing but the learning holds it back
    with_caching, without = bill(Workload(CLAUDE, "5m", tuple(calls)), planner)
    assert with_caching - without <= 4 * surcharge(CLAUDE, 8_000, "5m")


def test_a_conversation_of_twenty_turns() -> None:
    """Nearly all of a long conversation is read from the cache."""
    calls, tokens, before = [], 4_000, ()
    for turn in range(20):
        key = f"turn {turn}".encode()
        prefixes = ((b"instructions", 4_000), (key, tokens - 300), (key, tokens))
        calls.append(Sent(turn * 40.0, prefixes[: 1 + 2 * bool(turn)], tokens + 100, key, before))
        before, tokens = (key,), tokens + 300
    planner = Planner(CLAUDE, "5m", Ledger(1e5))
    with_caching, without = bill(Workload(CLAUDE, "5m", tuple(calls)), planner)
    assert with_caching < 0.3 * without


def test_prices_are_dated() -> None:
    """The newest row that holds on the day counts, of the longest name that fits."""
    assert prices_of("claude-sonnet-5-5", date(2026, 10, 6)).read == 0.1
    assert prices_of("claude-sonnet-5-5", date(2026, 10, 7)).read == 0.05
    assert prices_of("gemini-3.8-flash", date(2026, 12, 31)).input == 0.75
    assert prices_of("gemini-3.8-flash", date(2027, 1, 1)).storage == 1.0
    assert prices_of("us.anthropic.claude-opus-4-5-20251101-v1:0").minimum == 4096
    assert prices_of("claude-something-new").minimum == 4096
    assert prices_of("unheard-of") is None


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.model} {row.since}")
def test_every_row_has_a_source_and_makes_sense(row: Prices) -> None:
    """A read never costs more than the prompt, a write never less, and somebody said so."""
    assert row.source
    assert 0 < row.read < 1 <= row.write
    assert row.write_1h == 0 or row.write_1h >= row.write
