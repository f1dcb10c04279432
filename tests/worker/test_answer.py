"""One delivery of a message, whatever comes of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from jobs.world import BODY, TENANT, World
from policies.models import END, say
from virtual_time import run

from firsttoken.errors import (
    QueueError,
    RequestError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.worker import answer_message

SLOW = [say("Hel"), 100.0, say("lo"), END]
CUT = [UpstreamConnectError("no")]


def end_of(work: Any) -> Any:
    return run(work(), 1e6)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"{}",
        b'{"id":1,"tenant":"t"}',
        b'{"id":"a:b","tenant":"t"}',
        b'{"id":"","tenant":"t"}',
        b'{"id":"job_1","tenant":""}',
        b'{"id":"job_1","tenant":"acme","kind":"other"}',
        b'{"id":"job_1","tenant":"acme"}',
        b'{"id":"job_1","tenant":"acme","request":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=range(11),
)
def test_what_no_worker_can_ever_answer_is_buried(body: bytes) -> None:
    """With its reason, and it is finished with."""

    async def test() -> None:
        world = World()
        row = await world.process().answer(body)
        [dead] = await world.queue.dead(10)
        assert row["status"] == "dead"
        assert (dead.body, dead.reason) == (body, row["reason"])

    end_of(test)


@pytest.mark.parametrize("more", [{}, {"request": BODY}])
def test_what_its_client_has_deleted_is_no_dead_letter(more: Any) -> None:
    """Its message comes all the same; nobody has to look at it, and nothing is answered."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        assert await world.process().jobs.delete(TENANT, job.id)
        row = await world.process().answer(json.dumps({"id": job.id, "tenant": TENANT, **more}).encode())
        assert (row["status"], world.calls) == ("duplicate", 0)
        assert not await world.queue.dead(10)
        assert await world.find(job.id) is None

    end_of(test)


def test_what_is_deleted_while_it_is_answered_is_no_dead_letter() -> None:
    """Its worker stops, and leaves nothing behind."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        process = world.process(script=SLOW)
        task = asyncio.create_task(process.answer((await world.receive())[0]))
        await asyncio.sleep(1)
        assert await world.process().jobs.delete(TENANT, job.id)
        rows = [await task, await world.process().answer((await world.receive(wait=1e4))[0])]
        assert [row["status"] for row in rows] == ["later", "duplicate"]
        assert (process.stopped, await world.queue.dead(10)) == (1, [])

    end_of(test)


def test_a_message_may_bring_its_request_along() -> None:
    """It makes its job, once, and can be fetched like any other."""

    async def test() -> None:
        world = World()
        body = json.dumps({"id": "mine-1", "tenant": TENANT, "request": BODY}).encode()
        rows = [(await world.process().answer(body))["status"] for _ in range(2)]
        found = await world.find("mine-1")
        assert found is not None
        assert (rows, found.model, world.calls) == (["done", "duplicate"], "m", 1)

    end_of(test)


@pytest.mark.parametrize("body", [{"model": "m", "messages": []}, [], {"model": 3}])
def test_a_wrong_request_fails_its_job(body: Any) -> None:
    """Its client is told why; nobody else has to look at it."""

    async def test() -> None:
        world = World()
        raw = json.dumps({"id": "mine-1", "tenant": TENANT, "request": body}).encode()
        row = await world.process().answer(raw)
        found = await world.find("mine-1")
        assert found is not None
        assert found.error is not None
        assert (row["status"], found.error.status, world.calls) == ("failed", 400, 0)
        assert not await world.queue.dead(10)

    end_of(test)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(RequestError("no such model"), 1), (UpstreamRefusedError("too long", status=413, code="long"), 1)],
)
def test_what_the_client_did_wrong_fails_at_once(error: Exception, attempts: int) -> None:
    """In the words of who said so; no dead letter."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        row = await world.process(script=[error]).answer((await world.receive())[0])
        found = await world.find(job.id)
        assert found is not None
        assert found.error is not None
        assert (row["status"], found.attempts) == ("failed", attempts)
        assert (found.error.message, found.error.status) == (str(error), error.status)
        assert (await world.queue.depth()).dead == 0

    end_of(test)


def test_a_job_that_fails_again_and_again_is_given_up() -> None:
    """After ``max_attempts`` calls, ever later, it is failed and buried with the reason."""

    async def test() -> None:
        world = World(max_attempts=3)
        job = await world.submit()
        rows, times = [], []
        while not rows or rows[-1]["status"] == "later":
            rows.append(await world.process(script=CUT).answer((await world.receive(wait=1e4))[0]))
            times.append(asyncio.get_running_loop().time())
        found = await world.find(job.id)
        [dead] = await world.queue.dead(10)
        assert found is not None
        assert found.error is not None
        assert (found.state, found.attempts, found.error.code) == ("failed", 3, "upstream_unreachable")
        assert dead.reason == "3 attempts: no"
        assert times[2] - times[1] > times[1] - times[0] > 0.5
        assert await world.queue.redrive(10) == 1
        assert (await world.process().answer((await world.receive())[0]))["status"] == "duplicate"

    end_of(test)


@pytest.mark.parametrize(
    "script",
    [[UnavailableError("open", retry_after=40.0)], [UpstreamRateLimitError("slow", retry_after=40.0)]],
)
def test_what_is_not_the_jobs_fault_is_no_attempt(script: Any) -> None:
    """An open breaker or a rate limit hands it back, for as long as was asked."""

    async def test() -> None:
        world = World(max_attempts=2)
        job = await world.submit()
        for _ in range(5):
            row = await world.process(script=script).answer((await world.receive(wait=1e4))[0])
            assert row["status"] == "later"
            assert 40.0 <= row["delay"] <= 60.0
            assert len(world.messages(job.id)) == 1
        found = await world.find(job.id)
        assert found is not None
        assert (found.state, found.attempts) == ("queued", 0)
        assert (await world.process().answer((await world.receive(wait=1e4))[0]))["status"] == "done"

    end_of(test)


@pytest.mark.parametrize("wait", [5.0, 100.0, 1000.0])
def test_nothing_is_begun_while_all_targets_are_unavailable(wait: float) -> None:
    """The message comes back when one may be called, or after the longest delay."""

    async def test() -> None:
        world = World(max_delay=300.0)
        job = await world.submit()
        process = world.process()
        process.unavailable = wait
        row = await process.answer((await world.receive())[0])
        assert await world.find(job.id) == job
        assert row["status"] == "later"
        assert min(wait, 300.0) <= row["delay"] <= min(1.5 * wait, 300.0)

    end_of(test)


def test_the_longer_an_outage_lasts_the_more_seldom_a_job_asks() -> None:
    """It waits a quarter of its age at least, so an hour costs some twenty messages, not hundreds."""

    async def test() -> None:
        world = World(max_delay=300.0, expires=7200.0)
        await world.submit()
        process, looks = world.process(), 0
        process.unavailable = 5.0
        loop = asyncio.get_running_loop()
        while loop.time() < 3600:
            for delivery in await world.receive():
                looks += 1
                assert (await process.answer(delivery))["status"] == "later"
            await asyncio.sleep(1)
        assert 15 <= looks <= 30

    end_of(test)


@pytest.mark.parametrize(
    ("permits", "status"), [([2.0, 2.0], "done"), ([2.0, 4.0], "later"), ([60.0], "later")]
)
def test_jobs_keep_the_pace(permits: list[float], status: str) -> None:
    """A short wait is slept through, a long one sends the message again."""

    async def test() -> None:
        world = World()
        await world.submit()
        process = world.process()
        process.permits = list(permits)
        assert (await process.answer((await world.receive())[0]))["status"] == status

    end_of(test)


def test_names_that_clients_invent_share_the_pace_of_their_route() -> None:
    """A route for any model has one pace, not one for each name."""

    async def test() -> None:
        world = World()
        process = world.process()
        await world.submit()
        asked = []

        async def wait_time(route: str) -> float:
            asked.append(route)
            return 0.0

        process.wait_time = wait_time  # type: ignore[method-assign]
        await process.answer((await world.receive())[0])
        assert asked == ["*"]

    end_of(test)


def test_a_job_whose_time_is_over_expires() -> None:
    """Before it is begun; that is an end of its own, without a dead letter."""

    async def test() -> None:
        world = World(expires=100.0)
        job = await world.submit()
        [delivery] = await world.receive(wait=1.0)
        await asyncio.sleep(100.0)
        row = await world.process().answer(delivery)
        found = await world.find(job.id)
        assert found is not None
        assert (row["status"], found.state, world.calls) == ("expired", "expired", 0)
        assert (await world.queue.depth()).dead == 0

    end_of(test)


def test_a_call_ends_when_its_job_expires() -> None:
    """The job's own deadline bounds the call, and it expires then."""

    async def test() -> None:
        world = World(expires=50.0)
        await world.submit()
        process = world.process(script=SLOW)
        row = await process.answer((await world.receive())[0])
        assert (row["status"], process.stopped) == ("expired", 1)
        assert asyncio.get_running_loop().time() < 51

    end_of(test)


@pytest.mark.parametrize(("hold", "slept"), [(20.0, 20.0), (0.0, 0.0)])
def test_a_queue_without_delays_is_held(hold: float, slept: float) -> None:
    """So that its messages do not go round in circles; never beyond the platform's time."""

    async def test() -> None:
        world = World()
        await world.submit()
        [delivery] = await world.receive()
        process = world.process()
        process.unavailable = 100.0
        process.queue._inner.max_delay = 0.0
        process.settings = type("Settings", (), {"queue": type("Queue", (), {"hold": hold})()})()
        await process.answer(delivery)
        assert asyncio.get_running_loop().time() == slept
        [delivery] = await world.receive(wait=200.0)
        now = asyncio.get_running_loop().time()
        await process.answer(delivery, deadline=now + 12.0)
        assert asyncio.get_running_loop().time() - now == pytest.approx(min(slept, 10.0))

    end_of(test)


def test_the_platforms_deadline_ends_a_call() -> None:
    """With time to say so: that is an attempt, as a target was called; too little time begins nothing."""

    async def test() -> None:
        world = World()
        job = await world.submit()
        [delivery] = await world.receive()
        now = asyncio.get_running_loop().time()
        row = await world.process(script=SLOW).answer(delivery, deadline=now + 50.0)
        assert (row["status"], row["attempts"]) == ("later", 1)
        assert asyncio.get_running_loop().time() == now + 49.0
        [delivery] = await world.receive(wait=100.0)
        row = await world.process().answer(delivery, deadline=asyncio.get_running_loop().time() + 1.0)
        assert (row["status"], row["attempts"], world.calls) == ("later", 1, 1)
        assert len(world.messages(job.id)) == 1

    end_of(test)


def test_without_a_queue_the_message_is_not_taken() -> None:
    """The platform's own dead-letter rule keeps it."""

    async def test() -> None:
        process: Any = World().process()
        process.jobs = None
        with pytest.raises(QueueError, match="No queue is configured"):
            await answer_message(process, b"{}")

    end_of(test)


@pytest.mark.parametrize("outcome", ["done", "failed", "expired", "cancelled"])
def test_the_end_of_a_job_has_its_webhook_called(outcome: str) -> None:
    """By a message of its own; a second one is sent for a copy, later, in case the first was lost."""

    async def test() -> None:
        world = World(expires=100.0)
        job = await world.submit(webhook="https://example.com/hook")
        [delivery] = await world.receive()
        if outcome == "expired":
            await asyncio.sleep(100)
        if outcome == "cancelled":
            await world.process().jobs.cancel(TENANT, job.id)
        else:
            script = [UpstreamRefusedError("no")] if outcome == "failed" else None
            assert (await world.process(script=script).answer(delivery))["status"] == outcome
        assert [m["kind"] for m in world.messages(job.id) if m["kind"] == "notify"] == ["notify"]
        assert (await world.process().answer(delivery.body))["status"] == "duplicate"
        assert (await world.queue.depth()).delayed == 1

    end_of(test)
