"""A job has one effect: with copies of its message, crashes, and several workers."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from jobs.world import TENANT, Fault, KilledError, World
from policies.models import END, say
from virtual_time import run

from firsttoken.errors import (
    QueueError,
    StoreError,
    UpstreamConnectError,
)

SLOW = [say("Hel"), 100.0, say("lo"), END]
CUT = [UpstreamConnectError("no")]


def end_of(work: Any) -> Any:
    return run(work(), 1e6)


@pytest.mark.parametrize("copies", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_a_message_that_comes_several_times_has_one_effect(copies: int, seed: int) -> None:
    """However the copies of several messages are mixed, each job is answered by one call."""

    async def test() -> None:
        world, rng = World(), random.Random(seed)
        jobs = [await world.submit() for _ in range(3)]
        copied = (await world.receive(3)) * copies
        rng.shuffle(copied)
        script = [say("Hel"), rng.choice([0.0, 1.0, 40.0]), say("lo"), END]
        workers = [world.process(script=script) for _ in copied]
        async with asyncio.TaskGroup() as group:
            for process, delivery in zip(workers, copied, strict=True):
                group.create_task(process.answer(delivery))
                await asyncio.sleep(rng.choice([0.0, 0.5, 10.0]))
        assert world.calls == 3
        for job in jobs:
            found = await world.find(job.id)
            assert found is not None
            assert (found.state, found.attempts, await world.text(found)) == ("done", 1, "Hello")

    end_of(test)


def test_a_crash_between_answer_and_end_costs_no_second_call() -> None:
    """The next worker ends the job with the answer that the first one wrote."""

    async def test() -> None:
        counted = Fault(10**9, "kill")
        world = World()
        await world.submit()
        [delivery] = await world.receive()
        await world.process(counted).answer(delivery)
        outcomes = []
        for at in range(1, counted.seen + 1):
            world = World()
            job = await world.submit()
            [delivery] = await world.receive()
            with pytest.raises(KilledError):
                await world.process(Fault(at, "kill")).answer(delivery)
            [again] = await world.receive(wait=100.0)
            outcomes.append(((await world.process().answer(again))["status"], world.calls))
            found = await world.find(job.id)
            assert found is not None
            assert found.state == "done"
        assert ("done", 1) in outcomes, "adopted"
        assert ("duplicate", 1) in outcomes, "not acknowledged"
        assert {status for status, _ in outcomes} == {"done", "duplicate"}

    end_of(test)


def test_a_job_that_kills_its_workers_is_given_up() -> None:
    """A worker that vanished counts as an attempt, so poison does not go round for ever."""

    async def test() -> None:
        world = World(max_attempts=3, expires=1e5)
        job = await world.submit()
        for _ in range(9):
            for delivery in await world.receive(wait=1e4):
                with pytest.raises(KilledError):
                    await world.process(script=[KilledError()]).answer(delivery)
            found = await world.find(job.id)
            assert found is not None
            if found.is_final:
                break
            await asyncio.sleep(100)
            if found.attempts == 2:
                [delivery] = await world.receive(wait=1e4)
                row = await world.process().answer(delivery)
        found = await world.find(job.id)
        assert found is not None
        assert found.error is not None
        assert (row["status"], found.error.code, world.calls) == ("failed", "worker_lost", 3)
        assert (await world.queue.depth()).dead == 1

    end_of(test)


def test_a_cancelled_job_stops_its_upstream() -> None:
    """At the next sign of life, a third of a lease away."""

    async def test() -> None:
        world = World(lease=30.0)
        job = await world.submit()
        process = world.process(script=SLOW)
        answering = asyncio.create_task(process.answer((await world.receive())[0]))
        await asyncio.sleep(15)
        await world.process().jobs.cancel(TENANT, job.id)
        row = await answering
        assert (row["status"], process.stopped) == ("cancelled", 1)
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.1)
        assert not world.messages(job.id)

    end_of(test)


def test_a_stopped_worker_hands_its_job_back() -> None:
    """No attempt is used up, and the next one begins at once."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        [delivery] = await world.receive(hidden=60.0)
        answering = asyncio.create_task(world.process(script=SLOW).answer(delivery))
        await asyncio.sleep(15)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        found = await world.find(job.id)
        assert found is not None
        assert (found.state, found.attempts) == ("queued", 0)
        assert (await world.process().answer(delivery))["status"] == "done"

    end_of(test)


def test_a_worker_that_is_stopped_with_its_answer_written_costs_no_second_call() -> None:
    """The job ends with the answer, which is not thrown away."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        process = world.process()
        change, slow = process.jobs.book.change, [0.0, 100.0]

        async def slow_at_the_end(*args: Any) -> Any:
            await asyncio.sleep(slow.pop(0) if slow else 0.0)
            return await change(*args)

        process.jobs.book.change = slow_at_the_end  # type: ignore[method-assign]
        [delivery] = await world.receive()
        task = asyncio.create_task(process.answer(delivery))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = await world.find(job.id)
        assert found is not None
        assert (found.state, await world.text(found), world.calls) == ("done", "answer 1", 1)
        assert (await world.process().answer(delivery))["status"] == "duplicate"

    end_of(test)


def test_the_message_stays_hidden_while_its_job_is_answered() -> None:
    """From the start on, three times a lease, for a lease."""

    async def test() -> None:
        world, seen = World(lease=30.0), []

        async def extend(seconds: float) -> None:
            seen.append((asyncio.get_running_loop().time(), seconds))

        await world.submit()
        await world.process(script=SLOW).answer((await world.receive())[0], extend=extend)
        assert [round(at) for at, _ in seen] == list(range(0, 100, 10))
        assert {seconds for _, seconds in seen} == {30.0}

    end_of(test)


def test_of_two_workers_one_comes_again() -> None:
    """While another one has the job its message is sent again, for when the lease could be over."""

    async def test() -> None:
        world = World(lease=30.0)
        job = await world.submit()
        [delivery] = await world.receive()
        first = asyncio.create_task(world.process(script=SLOW).answer(delivery))
        await asyncio.sleep(1)
        row = await world.process().answer(delivery.body)
        assert row["status"] == "later"
        assert 30.0 <= row["delay"] <= 45.0
        assert (await first)["status"] == "done"
        assert world.calls == 1
        assert len(world.messages(job.id)) == 1

    end_of(test)


@pytest.mark.parametrize("at", [4, 5, 6])
def test_a_worker_that_was_frozen_changes_nothing(at: int) -> None:
    """Another one took the job over: the first one's answer does not count, and its message stays."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        [delivery] = await world.receive(hidden=60.0)
        frozen = world.process(Fault(at, "freeze"), script=[say("old"), END])
        first = asyncio.create_task(frozen.answer(delivery))
        [again] = await world.receive(hidden=1000.0, wait=100.0)
        script = [say("new"), 180.0, END]
        second = asyncio.create_task(world.process(script=script).answer(again))
        row = await first
        assert not second.done()
        assert row["status"] == "later"
        assert len(world.messages(job.id)) == 2
        assert (await second)["status"] == "done"
        found = await world.find(job.id)
        assert found is not None
        assert (found.epoch, await world.text(found)) == (2, "new")

    end_of(test)


@pytest.mark.parametrize(("what", "error"), [("down", StoreError), ("error", QueueError)])
def test_without_store_or_queue_the_message_comes_again(what: str, error: type[Exception]) -> None:
    """The error is raised, and nothing was changed that a second delivery could not mend."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        [delivery] = await world.receive()
        process = world.process(Fault(1, "down") if what == "down" else None)
        if what == "error":
            process.unavailable = 5.0
            process.queue._fault = Fault(1, "error")
        with pytest.raises(error):
            await process.answer(delivery)
        assert len(world.messages(job.id)) == 1
        [delivery] = await world.receive(wait=100.0)
        assert (await world.process().answer(delivery))["status"] == "done"

    end_of(test)


def test_a_store_that_is_down_for_a_moment_costs_no_answer() -> None:
    """An answer is money: its worker asks for a lease's time whether it can be written now."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        process = world.process(script=[say("Hello"), 5.0, END])
        answering = asyncio.create_task(process.answer((await world.receive())[0]))
        await asyncio.sleep(4)
        process.store._fault = Fault(1, "down")
        await asyncio.sleep(10)
        process.store._fault = Fault(10**9, "down")
        assert (await answering)["status"] == "done"
        found = await world.find(job.id)
        assert found is not None
        assert (await world.text(found), world.calls) == ("Hello", 1)

    end_of(test)
