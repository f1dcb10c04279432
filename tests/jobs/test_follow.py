"""A job is followed while a worker answers it, through the store alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jobs.world import TENANT, Fault, World
from policies.models import END, say
from virtual_time import run

from firsttoken.errors import StoreError, UpstreamClosedError
from firsttoken.jobs.job import Job
from firsttoken.jobs.jobs import Run
from firsttoken.jobs.progress import joined
from firsttoken.model import Chunk, ToolCall


def end_of(work: Any) -> Any:
    return run(work(), 1e6)


async def follow(world: World, job: Job, until: float = 1e5, fault: Fault | None = None) -> list[Any]:
    """Return states and texts, each with its second."""
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    try:
        async for item in world.process(fault).jobs.follow(TENANT, job.id, until):
            said = item.state if isinstance(item, Job) else item.text
            seen.append((round(loop.time()), said))
    except (UpstreamClosedError, StoreError) as error:
        seen.append((round(loop.time()), error.code))
    return seen


def test_an_answer_is_seen_as_it_comes() -> None:
    """Each part within a second of its words, nothing twice, and the job at the end."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        following = asyncio.create_task(follow(world, job))
        await asyncio.sleep(10)
        script = [say("a"), 5.0, say("b"), 0.05, say("c"), 5.0, say("d"), END]
        await world.process(script=script).answer((await world.receive())[0])
        seen = await following
        assert [said for _, said in seen] == ["queued", "running", "a", "bc", "d", "", "done"]
        assert all(at <= due + 1 for (at, _), due in zip(seen, [0, 10, 10, 15, 20, 20, 20], strict=True))
        assert [said for _, said in await follow(world, job)] == ["a", "bc", "d", "", "done"]

    end_of(test)


@pytest.mark.parametrize("end", ["cancelled", "failed", "expired"])
def test_following_ends_with_the_job(end: str) -> None:
    """Whatever its end is."""

    async def test() -> None:
        world = World(expires=60.0)
        job = await world.submit()
        following = asyncio.create_task(follow(world, job))
        await asyncio.sleep(1)
        jobs = world.process().jobs
        if end == "cancelled":
            await jobs.cancel(TENANT, job.id)
        elif end == "expired":
            await asyncio.sleep(60)
            await jobs.get(TENANT, job.id)
        else:
            held = await jobs.begin(TENANT, job.id)
            await held.fail(None, 1)
        assert [said for _, said in await following if said != "running"] == ["queued", end]

    end_of(test)


def test_following_ends_when_its_time_is_over() -> None:
    """At that second, and with no end of the job."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        assert await follow(world, job, until=7.3) == [(0, "queued")]
        assert asyncio.get_running_loop().time() == pytest.approx(7.3)

    end_of(test)


@pytest.mark.parametrize("said", [True, False])
def test_two_answers_are_never_mixed(said: bool) -> None:
    """Where another worker begins anew, those who have read something are told; the others read on."""

    async def test() -> None:
        world = World(lease=30.0)
        job, jobs = await world.submit(), world.process().jobs
        following = asyncio.create_task(follow(world, job))
        first = await jobs.begin(TENANT, job.id)
        assert isinstance(first, Run)
        if said:
            await jobs.kept.put_part(first.job, 0, [say("old")], 100.0)
        await asyncio.sleep(31)
        second = await jobs.begin(TENANT, job.id)
        assert isinstance(second, Run)
        await jobs.kept.put_part(second.job, 0, [say("new")], 100.0)
        await asyncio.sleep(5)
        await second.done([say("new"), END], "p/m", 1)
        seen = [text for _, text in await following]
        assert seen[-1 if said else -2 :] == (["job_restarted"] if said else ["", "done"])
        assert seen.count("new") == (0 if said else 1)

    end_of(test)


@pytest.mark.parametrize(("seconds", "last"), [(2.0, "done"), (30.0, "store_unavailable")])
def test_a_store_that_is_down_for_a_moment_is_waited_for(seconds: float, last: str) -> None:
    """For some seconds; then the reader is told."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        await world.process().answer((await world.receive())[0])
        fault = Fault(1, "down")
        asyncio.get_running_loop().call_later(seconds, setattr, fault, "at", 10**9)
        assert (await follow(world, job, fault=fault))[-1][1] == last

    end_of(test)


def tool(index: int, arguments: str, **fields: Any) -> Chunk:
    return Chunk(tool_calls=(ToolCall(index, arguments=arguments, **fields),))


@pytest.mark.parametrize(
    ("chunks", "fewer"),
    [
        ([], []),
        ([say("a"), say("b"), END, say("c")], [say("ab"), END, say("c")]),
        ([Chunk(reasoning="a"), Chunk(reasoning="b"), say("c")], [Chunk(reasoning="ab"), say("c")]),
        ([say("a"), say("b", finish="stop")], [say("a"), say("b", finish="stop")]),
        ([tool(0, "{", id="c", name="f"), tool(0, "}")], [tool(0, "{}", id="c", name="f")]),
        (
            [tool(0, "{", id="c", name="f"), tool(1, "{", id="d", name="f"), tool(0, "}"), tool(0, "")],
            [tool(0, "{", id="c", name="f"), tool(1, "{", id="d", name="f"), tool(0, "}")],
        ),
        ([say("a"), tool(0, "{"), tool(0, "}"), say("b")], [say("a"), tool(0, "{}"), say("b")]),
    ],
)
def test_an_answer_is_kept_in_fewer_chunks(chunks: list[Chunk], fewer: list[Chunk]) -> None:
    """What goes on is joined; what is apart stays apart, in order."""
    assert joined(chunks) == fewer
