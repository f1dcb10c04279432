"""Webhooks of jobs: one for each end, tried again later, and never at the cost of the job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import virtual_time
from support import make_app

from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job, Message, new_id
from firsttoken.jobs.webhook import Delivered
from firsttoken.settings import Jobs, MemoryQueue, Webhook
from firsttoken.worker.notify import deliver

SECRET = "whsec_" + "a2tr" * 8
OK, DOWN = Delivered(ok=True), Delivered(ok=False, why="503")
GONE = Delivered(ok=False, why="410", final=True)


class FakeWebhooks:
    """Stands for the receivers: answers what it is told to, and notes who was called when."""

    def __init__(self, *answers: Delivered, seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.calls: list[float] = []
        self._seconds = seconds

    async def deliver(self, _job: Job) -> Delivered:
        """Answer the next of the answers; the last one again and again."""
        self.calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def aclose(self) -> None:
        """Do nothing."""


async def ended(gateway: Gateway, state: str = "done") -> Job:
    """Put a job that has ended into the store."""
    assert gateway.jobs is not None
    now = gateway.jobs.wall()
    job = Job(
        id=new_id(), tenant="acme", model="m", wire="openai_chat", created=now, expires=now + 3600,
        finished=now, state=state, webhook="https://hooks.example.com/x",
    )  # fmt: skip
    await gateway.jobs.book.create(job)
    return job


def scenario(work: Callable[[Gateway], Awaitable[Any]], webhooks: FakeWebhooks) -> Any:
    async def run() -> Any:
        app = make_app(queue=MemoryQueue(), webhook=Webhook(secret=SECRET, attempts=3), jobs=Jobs())
        app.gateway.webhooks = webhooks
        try:
            return await work(app.gateway)
        finally:
            await app.gateway.aclose()

    return virtual_time.run(run())


async def drain(gateway: Gateway, seconds: float) -> list[dict[str, Any]]:
    """Handle what the queue hands out for so long."""
    assert gateway.jobs is not None
    queue, loop = gateway.jobs.queue, asyncio.get_running_loop()
    end, rows = loop.time() + seconds, []
    while loop.time() < end:
        for delivery in await queue.receive(10, 60, min(60, end - loop.time())):
            message = msgspec.json.decode(delivery.body, type=Message)
            job = await gateway.jobs.find(message.tenant, message.id)
            assert job is not None
            rows.append(await deliver(gateway, job))
            await queue.done(delivery)
    return rows


def test_a_webhook_is_called_once_however_often_its_message_comes() -> None:
    """At the same time, or one after the other."""
    webhooks = FakeWebhooks(OK, seconds=1.0)

    async def work(gateway: Gateway) -> None:
        job = await ended(gateway)
        rows = await asyncio.gather(*[deliver(gateway, job) for _ in range(5)])
        assert sorted(row["status"] for row in rows) == ["later"] * 4 + ["notified"]
        assert {row["status"] for row in await drain(gateway, 600)} == {"duplicate"}
        assert gateway.jobs is not None
        after = await gateway.jobs.find("acme", job.id)
        assert after is not None
        assert (after.notified, after.notices, after.state) == ("delivered", 1, "done")

    scenario(work, webhooks)
    assert len(webhooks.calls) == 1


def test_a_receiver_that_is_down_is_called_later_and_later() -> None:
    """After 5 s, then 25 s; a call that succeeds is the last one."""
    webhooks = FakeWebhooks(DOWN, DOWN, OK)

    async def work(gateway: Gateway) -> list[dict[str, Any]]:
        return [await deliver(gateway, await ended(gateway)), *await drain(gateway, 600)]

    rows = scenario(work, webhooks)
    assert [row["status"] for row in rows] == ["later", "later", "notified"]
    gaps = [b - a for a, b in zip(webhooks.calls, webhooks.calls[1:], strict=False)]
    assert 5 <= gaps[0] <= 6.5
    assert 25 <= gaps[1] <= 31.5


@pytest.mark.parametrize(("answer", "calls"), [(DOWN, 3), (GONE, 1)])
def test_what_is_of_no_use_is_given_up_and_the_job_stays(answer: Delivered, calls: int) -> None:
    """After the configured tries, or at once where no other would end better; the log says why."""
    webhooks = FakeWebhooks(answer)

    async def work(gateway: Gateway) -> None:
        job = await ended(gateway)
        rows = [await deliver(gateway, job), *await drain(gateway, 7200)]
        assert rows[-1]["status"] == "refused"
        assert rows[-1]["why"] == answer.why
        assert gateway.jobs is not None
        after = await gateway.jobs.find("acme", job.id)
        assert after is not None
        assert (after.state, after.notified, after.notices) == ("done", "failed", calls)

    scenario(work, webhooks)
    assert len(webhooks.calls) == calls


def test_a_message_that_comes_twice_does_not_hasten_the_next_try() -> None:
    """The lease is kept until that is due."""
    webhooks = FakeWebhooks(DOWN)

    async def work(gateway: Gateway) -> None:
        job = await ended(gateway)
        await deliver(gateway, job)
        assert (await deliver(gateway, job))["status"] == "later"

    scenario(work, webhooks)
    assert len(webhooks.calls) == 1


def test_a_refused_address_is_logged_and_the_job_kept() -> None:
    """An address within is found when it is called, at the latest."""

    async def run() -> None:
        app = make_app(queue=MemoryQueue(), webhook=Webhook(secret=SECRET))
        gateway = app.gateway
        job = msgspec.structs.replace(await ended(gateway), id="job_x", webhook="https://localhost:9/")
        assert gateway.jobs is not None
        await gateway.jobs.book.create(job)
        row = await deliver(gateway, job)
        assert row["status"] == "refused"
        assert "not public" in row["why"]
        after = await gateway.jobs.find("acme", "job_x")
        assert after is not None
        assert (after.state, after.notified) == ("done", "failed")
        await gateway.aclose()

    asyncio.run(run())
