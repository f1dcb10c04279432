"""Jobs as those see them who submit, fetch and cancel."""

from __future__ import annotations

import asyncio
import base64
import os
from types import SimpleNamespace
from typing import Any

import pytest
from jobs.world import BODY, TENANT, Fault, World
from msgspec.structs import replace
from policies.models import END, make_call, say
from virtual_time import run

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.errors import ConfigError, QueueError, StoreError
from firsttoken.jobs import kept
from firsttoken.jobs.jobs import Busy, Run
from firsttoken.model import Call, Chunk, Later, Source
from firsttoken.settings import Jobs as JobSettings
from firsttoken.settings import S3Objects, Settings

KEY = base64.b64encode(bytes(32)).decode()
LARGE = "".join(map(chr, os.urandom(400_000)))


class Bucket:
    """An object storage."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, name: str, data: bytes, _ttl: float) -> None:
        self.objects[name] = data

    async def get(self, name: str, _limit: int) -> bytes | None:
        return self.objects.get(name)


def end_of(work: Any) -> Any:
    return run(work(), 1e6)


async def answered(world: World, text: str = "Hello") -> Any:
    job = await world.submit()
    script: list[Any] = [say(text), END]
    assert (await world.process(script=script).answer((await world.receive())[0]))["status"] == "done"
    return await world.find(job.id)


@pytest.mark.parametrize(
    ("wire", "package", "model", "stream"),
    [
        ("openai-chat", "openai_chat", "", None),
        ("openai-responses", "openai_responses", "", None),
        ("anthropic", "anthropic", "", None),
        ("gemini", "gemini", "m", True),
        ("bedrock-converse", "bedrock", "m", True),
    ],
)
def test_what_was_asked_is_kept(wire: str, package: str, model: str, stream: bool | None) -> None:
    """Body, what only the path said, and of the headers those that targets may see."""

    async def test() -> None:
        jobs = World().process().jobs
        call = replace(
            make_call(tenant=TENANT), source=Source(wire, b"{}"), headers={"x-a": "1", "x-secret": "2"}
        )
        job = await jobs.submit(call, Later(webhook="https://e.com", background=True), headers=["x-a", "x-b"])
        request = await jobs.request(job)
        assert request is not None
        assert (request.wire, request.body, request.model) == (package, b"{}", model)
        assert (request.stream, request.headers) == (stream, {"x-a": "1"})
        assert (job.state, job.model, job.wire, job.tenant) == ("queued", "m", package, TENANT)
        assert (job.background, job.webhook, job.expires - job.created) == (True, "https://e.com", 3600.0)

    end_of(test)


@pytest.mark.parametrize(("at", "error"), [(1, StoreError), (2, StoreError), (3, None), (4, None), (5, None)])
@pytest.mark.parametrize("after", [False, True])
def test_a_call_that_cannot_be_queued_leaves_no_job(at: int, error: Any, after: bool) -> None:
    """The error is raised, and there is no job that nobody will ever answer; being listed is no condition."""

    async def test() -> None:
        world = World()
        fault = Fault(at, "error", after=after)
        if error is None:
            job = await world.submit(fault)
            assert len(world.messages(job.id)) == 1 + (at == 3 and after)  # the message is sent once more
            return
        with pytest.raises(error):
            await world.submit(fault)
        records = [key for kind, key in world.store._entries if kind == "value" and key.startswith("job:")]
        assert records == [] or (at, after) == (2, True)

    end_of(test)


@pytest.mark.parametrize("arrives", [False, True])
def test_a_queue_that_stays_away_leaves_no_job(arrives: bool) -> None:
    """It is tried for a while; messages that came all the same are about a job that was taken back."""

    async def test() -> None:
        world, tries = World(), 0
        jobs = world.process().jobs

        async def send(body: bytes, delay: float = 0.0) -> None:
            nonlocal tries
            tries += 1
            if arrives:
                await world.queue.send(body, delay)
            raise QueueError("down")

        jobs.queue = SimpleNamespace(send=send)  # type: ignore[assignment]
        request = ChatRequest(model="m", messages=(Message("user", (Text("hi"),)),))
        with pytest.raises(QueueError):
            await jobs.submit(Call(request, Source("openai-chat", b"{}"), "r", 1e9, tenant=TENANT), Later())
        assert tries > 3
        assert [key for kind, key in world.store._entries if kind == "value" and key.startswith("job:")] == []
        assert [key for _, key in world.store._entries if key.startswith("job-request:")] == []
        found = await world.receive(9)
        assert len(found) == (tries if arrives else 0)
        for delivery in found:
            assert (await world.process().answer(delivery))["status"] == "duplicate"

    end_of(test)


def test_a_job_that_was_begun_is_not_taken_back() -> None:
    """The queue's answer was lost, but a worker has the message already: it is a job."""

    async def test() -> None:
        world = World()
        process = world.process()

        async def sent_all_the_same(body: bytes, delay: float) -> None:
            await world.process().answer(body)
            raise QueueError("lost")

        process.jobs.queue = type("Queue", (), {"send": staticmethod(sent_all_the_same)})()
        call = replace(make_call(tenant=TENANT), source=Source("openai-chat", str(BODY).encode()))
        job = await process.jobs.submit(call, Later())
        found = await world.find(job.id)
        assert found is not None
        assert found.is_final

    end_of(test)


@pytest.mark.parametrize("name", ["", "x" * 129, "a:b", "ä", "job_1/..", "job_none"])
def test_there_is_no_job_of_another_name(name: str) -> None:
    """Whatever the name: no error, no job."""

    async def test() -> None:
        jobs = World().process().jobs
        assert await jobs.get(TENANT, name) is None
        assert await jobs.cancel(TENANT, name) is None
        assert [item async for item in jobs.follow(TENANT, name, 10.0)] == []

    end_of(test)


def test_tenants_do_not_see_each_others_jobs() -> None:
    """The same id under another tenant is no job."""

    async def test() -> None:
        world = World()
        job = await answered(world)
        jobs = world.process().jobs
        assert await jobs.get("other", job.id) is None
        assert await jobs.cancel("other", job.id) is None
        assert await jobs.answer(replace(job, tenant="other")) is None
        assert await jobs.request(replace(job, tenant="other")) is None
        assert await jobs.recent("other", 10) == []

    end_of(test)


def test_the_latest_jobs_are_listed() -> None:
    """Newest first, and no more than was asked for."""

    async def test() -> None:
        world = World()
        jobs = [await world.submit() for _ in range(4)]
        assert await world.process().jobs.recent(TENANT, 3) == jobs[:0:-1]
        assert await world.process().jobs.recent(TENANT, 9) == jobs[::-1]

    end_of(test)


def test_a_job_can_be_cancelled_until_it_ends() -> None:
    """Twice is once; an answer that is there stays."""

    async def test() -> None:
        world = World()
        job, jobs = await world.submit(), world.process().jobs
        first, again = await jobs.cancel(TENANT, job.id), await jobs.cancel(TENANT, job.id)
        assert first is not None
        assert (first.state, again) == ("cancelled", first)
        assert (await world.process().answer((await world.receive())[0]))["status"] == "duplicate"
        done = await answered(world)
        assert await jobs.cancel(TENANT, done.id) == done
        assert world.calls == 1

    end_of(test)


def test_a_job_expires_for_those_who_ask_too() -> None:
    """Its worker, while it has one, has a lease's time to say so itself."""

    async def test() -> None:
        world = World(expires=100.0, lease=30.0)
        waiting, running = await world.submit(), await world.submit()
        jobs = world.process().jobs
        assert isinstance(await jobs.begin(TENANT, running.id), Run)
        await asyncio.sleep(100)
        states = [(await jobs.get(TENANT, job.id)).state for job in (waiting, running)]
        assert states == ["expired", "running"]
        await asyncio.sleep(30)
        assert (await jobs.get(TENANT, running.id)).state == "expired"

    end_of(test)


def test_answers_are_kept_for_as_long_as_is_set() -> None:
    """Job, answer and request are gone then."""

    async def test() -> None:
        world = World(keep=1000.0)
        job = await answered(world)
        await asyncio.sleep(990)
        assert await world.text(job) == "Hello"
        assert await world.find(job.id) == job
        await asyncio.sleep(20)
        assert await world.find(job.id) is None

    end_of(test)


def test_what_is_kept_is_sealed() -> None:
    """With a key nothing of question and answer is readable in the store, and no other key opens it."""

    async def test() -> None:
        world = World(encryption_key=KEY)
        job = await answered(world, "A secret.")
        assert await world.text(job) == "A secret."
        stored = b"".join(entry.value for entry in world.store._entries.values())
        assert b"secret" not in stored
        assert b"messages" not in stored
        world.settings = replace(world.settings, jobs=JobSettings())
        assert await world.text(job) is None
        assert await world.process().jobs.request(job) is None

    end_of(test)


def test_a_wrong_key_is_told() -> None:
    """Where the jobs are built."""
    world = World(encryption_key="short")
    with pytest.raises(ConfigError):
        run(asyncio.sleep(0, world.process))()


@pytest.mark.parametrize("apart", [False, True])
def test_a_large_answer_is_kept(apart: bool) -> None:
    """In parts in the store, or in the object storage where there is one."""

    async def test() -> None:
        bucket = Bucket() if apart else None
        world = World(bucket)
        if apart:
            world.settings = Settings(
                **{**{f: getattr(world.settings, f) for f in ("queue", "jobs", "timeouts")}, "providers": {}},
                models={},
                objects=S3Objects(bucket="jobs"),
            )
        small, large = await answered(world), await answered(world, LARGE)
        assert await world.text(large) == LARGE
        assert await world.text(small) == "Hello"
        if bucket is not None:
            assert list(bucket.objects) == [f"job-answer:1:{TENANT}:{large.id}"]

    asyncio.run(test())  # in real time: what is large is packed in a thread


@pytest.mark.parametrize(
    "chunks", [[say("x" * 3000)] * 3, [say("\ud800")], [say("x" * 5000), say("y" * 5000)]]
)
def test_an_answer_that_cannot_be_kept_fails_its_job(
    monkeypatch: pytest.MonkeyPatch, chunks: list[Chunk]
) -> None:
    """One that is too large, or no text at all: its client is told."""
    monkeypatch.setattr(kept, "MAX_BYTES", 8192)

    async def test() -> None:
        world = World()
        job = await world.submit()
        row = await world.process(script=[*chunks, END]).answer((await world.receive())[0])
        found = await world.find(job.id)
        assert found is not None
        assert found.error is not None
        assert (row["status"], found.error.code) == ("failed", "answer_not_kept")

    end_of(test)


def test_an_answer_of_an_earlier_worker_does_not_count_after_the_end() -> None:
    """Written late, it stands under its own epoch; a job that was cancelled meanwhile stays cancelled."""

    async def test() -> None:
        world = World()
        job, jobs = await world.submit(), world.process().jobs
        first = await jobs.begin(TENANT, job.id)
        assert isinstance(first, Run)
        assert isinstance(await jobs.begin(TENANT, job.id), Busy)
        await asyncio.sleep(31)
        second = await jobs.begin(TENANT, job.id)
        assert isinstance(second, Run)
        assert not await first.is_mine()
        assert (await second.done([say("new"), END], "p/m", 1)).state == "done"
        after = await first.done([say("old"), END], "p/m", 1)
        assert (after.epoch, await world.text(after)) == (2, "new")
        other = await world.submit()
        run_ = await jobs.begin(TENANT, other.id)
        assert isinstance(run_, Run)
        await jobs.kept.put_answer(run_.job, "p/m", [say("late")], 100.0)
        await jobs.cancel(TENANT, other.id)
        assert (
            (await jobs.begin(TENANT, other.id)).state == "cancelled" if await run_.leave() is None else None
        )

    end_of(test)


def test_the_epoch_grows_where_the_store_forgot_the_lease() -> None:
    """A job may wait longer than a store remembers who had it."""

    async def test() -> None:
        world = World(expires=1e5)
        job, jobs = await world.submit(), world.process().jobs
        for epoch in (1, 2, 3):
            held = await jobs.begin(TENANT, job.id)
            assert isinstance(held, Run)
            assert held.job.epoch == epoch
            await held.hand_back(0)
            await held.leave()
            await asyncio.sleep(10_000)

    end_of(test)
