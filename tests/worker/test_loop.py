"""The loop that takes messages from a queue and answers their jobs."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from jobs.world import Fault, KilledError, Process, World
from policies.models import END, say
from virtual_time import run

from firsttoken.errors import ConfigError, QueueError
from firsttoken.worker import loop as module
from firsttoken.worker.loop import work

SLOW = [say("Hel"), 10.0, say("lo"), END]


class Working:
    """A loop at work; leaving the context stops it."""

    def __init__(self, process: Process, drain: float = 60.0) -> None:
        self.rows: list[dict[str, Any]] = []
        self._stop = asyncio.Event()
        gateway: Any = process
        self.task = asyncio.create_task(work(gateway, stop=self._stop, log=self.rows.append, drain=drain))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self.task


def end_of(test: Any) -> Any:
    return run(test(), 1e6)


@pytest.mark.parametrize(("concurrency", "seconds"), [(1, 40), (2, 20), (4, 10), (16, 10)])
def test_several_jobs_are_answered_at_once(concurrency: int, seconds: float) -> None:
    """As many as is set; each leaves a row."""

    async def test() -> None:
        world = World(concurrency=concurrency)
        jobs = [await world.submit() for _ in range(4)]
        async with Working(world.process(script=SLOW)) as working:
            await asyncio.sleep(seconds + 1)
            assert [row["status"] for row in working.rows] == ["done"] * 4
            assert {row["id"] for row in working.rows} == {job.id for job in jobs}
        depth = await world.queue.depth()
        assert (depth.waiting, depth.running) == (0, 0)

    end_of(test)


def test_a_long_answer_keeps_its_message() -> None:
    """It is not handed out again while its worker lives."""

    async def test() -> None:
        world = World(lease=10.0)
        await world.submit()
        process = world.process(script=[say("a"), 200.0, END])
        async with Working(process), Working(world.process()) as other:
            await asyncio.sleep(250)
            assert other.rows == []
        assert len(process.calls) == 1

    end_of(test)


def test_a_queue_that_is_down_is_asked_again() -> None:
    """Ever more seldom, and at once what it has when it is back."""

    async def test() -> None:
        world = World()
        await world.submit()
        process = world.process()
        process.queue._fault = Fault(1, "down")
        async with Working(process) as working:
            await asyncio.sleep(200)
            assert 5 < len(working.rows) < 20
            assert {row["error"] for row in working.rows} == {"queue_unavailable"}
            process.queue._fault = Fault(10**9, "down")
            await asyncio.sleep(module.MAX_PAUSE + 1)
            assert working.rows[-1]["status"] == "done"

    end_of(test)


def test_a_store_that_is_down_costs_no_job() -> None:
    """Its message comes again soon, ever later."""

    async def test() -> None:
        world = World(lease=300.0)
        await world.submit()
        process = world.process()
        process.store._fault = Fault(1, "down")
        async with Working(process) as working:
            await asyncio.sleep(60)
            assert 3 < len(working.rows) < 20
            process.store._fault = Fault(10**9, "down")
            await asyncio.sleep(module.MAX_PAUSE)
            assert working.rows[-1]["status"] == "done"

    end_of(test)


def test_an_outage_of_the_store_uses_up_no_delivery() -> None:
    """However long it takes: queues give up what they handed out too often."""

    async def test() -> None:
        world = World(lease=300.0)
        await world.submit()
        process = world.process()
        process.store._fault = Fault(1, "down")
        async with Working(process) as working:
            await asyncio.sleep(2000)
            process.store._fault = Fault(10**9, "down")
            await asyncio.sleep(module.MAX_PAUSE)
            assert (working.rows[-1]["status"], working.rows[-1]["delivered"]) == ("done", 1)

    end_of(test)


def test_a_defect_ends_no_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported, and other jobs are answered."""

    async def test() -> None:
        world = World(concurrency=1)
        await world.submit()
        process = world.process(script=[KilledError("a defect")])
        async with Working(process) as working:
            await asyncio.sleep(1)
            process.script = None
            await world.submit()
            await asyncio.sleep(2)
            assert [row["status"] for row in working.rows] == ["done"]
        assert "a defect" in capsys.readouterr().err

    end_of(test)


@pytest.mark.parametrize(("drain", "state"), [(60.0, "done"), (2.0, "queued")])
def test_stopping_leaves_nothing_half_done(drain: float, state: str) -> None:
    """Jobs have some time to end; then they are handed back, and another worker takes them at once."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        async with Working(world.process(script=SLOW), drain):
            await asyncio.sleep(1)
        found = await world.find(job.id)
        assert found is not None
        assert (found.state, found.attempts) == (state, int(state == "done"))
        assert len(await world.receive()) == int(state == "queued")

    end_of(test)


def test_a_cancelled_loop_hands_its_jobs_back() -> None:
    """At once."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        working = Working(world.process(script=SLOW))
        await asyncio.sleep(1)
        working.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working.task
        found = await world.find(job.id)
        assert found is not None
        assert found.state == "queued"

    end_of(test)


def test_messages_that_come_while_stopping_are_given_back() -> None:
    """They are there for others at once."""

    async def test() -> None:
        world = World()
        async with Working(world.process()) as working:
            await asyncio.sleep(0.5)
            working._stop.set()
            await asyncio.sleep(0.1)
            await world.submit()
        assert working.rows == []
        assert len(await world.receive()) == 1

    end_of(test)


@pytest.mark.parametrize("pulls", [False, None])
def test_a_queue_that_pushes_has_no_loop(pulls: bool | None) -> None:
    """The configuration is wrong then."""
    process: Any = World().process
    process = run(asyncio.sleep(0, process()))
    process.queue = None if pulls is None else type("Push", (), {"pulls": False})()
    with pytest.raises(ConfigError):
        run(work(process, stop=asyncio.Event()))


def test_the_error_names_what_is_down() -> None:
    """In the row that is logged."""

    async def test() -> None:
        world = World()
        process = world.process()
        process.queue._fault = Fault(1, "down")
        async with Working(process) as working:
            await asyncio.sleep(0.1)
        assert working.rows[0] == {
            "status": "error",
            "error": QueueError.code,
            "message": "down",
        }

    end_of(test)
