"""Many calls at once: bounds, partial results, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from virtual_time import run

from firsttoken.batch.parallel import Node, SkippedError, as_done, first, gather, graph, quorum
from firsttoken.errors import DeadlineError

Work = Callable[[], Awaitable[Any]]


class Probe:
    """Counts how much runs at once, and what was cancelled."""

    def __init__(self) -> None:
        self.running = self.most = self.started = self.cancelled = 0

    async def sleep(self, seconds: float, value: Any = None) -> Any:
        """Take so long, and return the value or raise it."""
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(value, Exception):
            raise value
        return value

    def work(self, seconds: float, value: Any = None) -> Work:
        """Return that as a call without arguments."""
        return lambda: self.sleep(seconds, value)


def test_no_more_run_at_once_than_allowed_and_all_are_done() -> None:
    """Twenty items of a second each, five at a time, take four seconds."""
    probe = Probe()

    async def scenario() -> float:
        outcomes = await gather(range(20), lambda n: probe.sleep(1, n * n), limit=5)
        assert [outcome.result() for outcome in outcomes] == [n * n for n in range(20)]
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(4)
    assert probe.most == 5


def test_what_fails_is_a_result_among_the_others() -> None:
    """Its error stands in its place."""
    probe = Probe()

    async def scenario() -> None:
        values = [1, ValueError("two"), 3]
        outcomes = await gather(values, lambda value: probe.sleep(1, value))
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
        with pytest.raises(ValueError, match="two"):
            outcomes[1].result()

    run(scenario())


def test_the_first_error_can_stop_everything() -> None:
    """The rest is cancelled and the error raised."""
    probe = Probe()

    async def scenario() -> None:
        with pytest.raises(ValueError, match="no"):
            await gather(
                [9, 1, 9], lambda n: probe.sleep(n, ValueError("no") if n == 1 else n), fail_fast=True
            )

    run(scenario())
    assert (probe.cancelled, probe.running) == (2, 0)


def test_when_time_is_up_what_is_there_is_returned() -> None:
    """What ran is cancelled, what waited is not started; both say why they have no value."""
    probe = Probe()

    async def scenario() -> None:
        outcomes = await gather([1, 5, 5, 1], lambda n: probe.sleep(n, n), limit=2, seconds=2)
        assert [outcome.value for outcome in outcomes] == [1, None, None, None]
        assert all(isinstance(outcome.error, DeadlineError) for outcome in outcomes[1:])
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    run(scenario())
    assert (probe.started, probe.running) == (3, 0)


def test_outcomes_come_as_they_are_done_and_items_as_they_are_needed() -> None:
    """A stream of any length is worked through without being read ahead."""
    probe, taken = Probe(), 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def scenario() -> list[int]:
        found: list[int] = []
        outcomes = as_done(items(), lambda n: probe.sleep(3 if n == 1 else 1, n), limit=2)
        async for outcome in outcomes:
            found.append(outcome.result())
            if len(found) == 4:
                break
        await outcomes.aclose()
        return found

    assert run(scenario())[:2] == [2, 3]
    assert taken <= 6
    assert probe.running == 0


def test_the_first_success_wins_and_the_rest_is_cancelled() -> None:
    """A failure before it is forgotten."""
    probe = Probe()
    calls = [probe.work(1, ValueError("a")), probe.work(2, "b"), probe.work(3, "c")]
    assert run(first(calls)) == "b"
    assert (probe.cancelled, probe.running) == (1, 0)


def test_when_none_succeeds_all_errors_are_told() -> None:
    """As one group."""
    probe = Probe()
    with pytest.raises(ExceptionGroup) as caught:
        run(first([probe.work(1, ValueError("a")), probe.work(1, TypeError("b"))]))
    assert {type(error) for error in caught.value.exceptions} == {ValueError, TypeError}


@pytest.mark.parametrize(("seconds", "started"), [(1, 1), (3, 2), (5, 3)])
def test_the_next_starts_when_the_one_before_takes_too_long(seconds: float, started: int) -> None:
    """With a stagger of two seconds a quick first call is the only one."""
    probe = Probe()
    assert run(first([probe.work(seconds, "a"), probe.work(9), probe.work(9)], stagger=2)) == "a"
    assert probe.started == started


def test_a_failure_starts_the_next_at_once() -> None:
    """Nobody waits for a stagger that has no purpose any more."""
    probe = Probe()

    async def scenario() -> float:
        await first([probe.work(1, ValueError()), probe.work(1, "b")], stagger=60)
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(2)


def test_a_quorum_is_the_value_that_enough_agree_on() -> None:
    """The slowest is not waited for."""
    probe = Probe()
    calls = [probe.work(1, "x"), probe.work(2, "y"), probe.work(3, "x"), probe.work(60, "x")]
    assert run(quorum(calls, 2)) == "x"
    assert (probe.cancelled, probe.running) == (1, 0)


def test_values_may_agree_in_part() -> None:
    """What counts is the key."""
    probe = Probe()
    assert run(quorum([probe.work(1, "Yes."), probe.work(2, "yes")], 2, key=lambda s: s.lower()[:3])) == "yes"


def test_a_quorum_that_cannot_be_reached_ends_at_once() -> None:
    """Two of three differ: the third is not waited for."""
    probe = Probe()

    async def scenario() -> float:
        with pytest.raises(ExceptionGroup, match="no quorum") as caught:
            await quorum([probe.work(1, "x"), probe.work(2, "y"), probe.work(60, "z")], 3)
        assert "1 of 3 calls agree; expected 3" in str(caught.value.exceptions[-1])
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(2)


def node(probe: Probe, seconds: float, *needs: str, value: Any = None) -> Node[Any]:
    async def do(given: Mapping[str, Any]) -> Any:
        assert set(given) == set(needs)
        if value is None:
            return await probe.sleep(seconds, sum(given.values()) + 1)
        return await probe.sleep(seconds, value)

    return Node(do, needs)


def test_a_graph_takes_as_long_as_its_longest_path() -> None:
    """Each node starts as soon as what it needs is done, and gets those values."""
    probe = Probe()
    nodes = {
        "a": node(probe, 1),
        "b": node(probe, 5),
        "c": node(probe, 2, "a"),
        "d": node(probe, 1, "b", "c"),
        "e": node(probe, 1),
    }

    async def scenario() -> float:
        found = await graph(nodes)
        assert {name: outcome.value for name, outcome in found.items()} == {
            "a": 1, "b": 1, "c": 2, "d": 4, "e": 1,
        }  # fmt: skip
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(6)


def test_a_graph_keeps_its_bound() -> None:
    """Never more nodes at once than allowed."""
    probe = Probe()
    run(graph({str(n): node(probe, 1) for n in range(10)}, limit=3))
    assert (probe.most, probe.started) == (3, 10)


def test_what_needs_a_failed_node_is_skipped_and_the_rest_is_done() -> None:
    """However far behind it; the error names the reason."""
    probe = Probe()
    nodes = {
        "bad": node(probe, 1, value=ValueError("no")),
        "behind": node(probe, 1, "bad"),
        "further": node(probe, 1, "behind"),
        "good": node(probe, 2),
    }
    found = run(graph(nodes, limit=1))
    assert found["good"].value == 1
    assert isinstance(found["further"].error, SkippedError)
    assert "behind was not started: it needs bad, which failed" in str(found["behind"].error)
    assert probe.started == 2


def test_a_graph_stops_when_its_time_is_up() -> None:
    """What is done stays."""
    probe = Probe()
    found = run(graph({"a": node(probe, 1), "b": node(probe, 9, "a"), "c": node(probe, 1, "b")}, seconds=3))
    assert found["a"].value == 1
    assert isinstance(found["b"].error, DeadlineError)
    assert isinstance(found["c"].error, DeadlineError)
    assert probe.running == 0


@pytest.mark.parametrize(
    ("needs", "said"), [({"a": ["x"]}, "a needs 'x'"), ({"a": ["b"], "b": ["a"]}, "in a circle: ")]
)
def test_a_graph_that_makes_no_sense_is_refused(needs: dict[str, list[str]], said: str) -> None:
    """Before anything is started."""
    probe = Probe()
    with pytest.raises(ValueError, match=said):
        run(graph({name: node(probe, 1, *listed) for name, listed in needs.items()}))
    assert probe.started == 0


WRONG = {
    "first": lambda: first([]),
    "quorum": lambda: quorum([], 1),
    "quorum of too few": lambda: quorum([Probe().work(1)], 2),
    "gather": lambda: gather([1], Probe().sleep, limit=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_that_make_no_sense_are_refused(name: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="expected"):
        run(WRONG[name]())
