"""Batches that we answer ourselves: within ticks, or as jobs of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
from virtual_time import run, wall

from firsttoken.batch import collect
from firsttoken.batch.batch import Batch
from firsttoken.batch.batches import Batches
from firsttoken.batch.collect import Collector
from firsttoken.batch.tick import tick
from firsttoken.errors import (
    StoreError,
    UnavailableError,
    UpstreamRefusedError,
)
from firsttoken.gateway import Gateway
from firsttoken.jobs.jobs import Jobs
from firsttoken.model import Call, Chunk, Usage
from firsttoken.settings import Batch as BatchSettings
from firsttoken.settings import MemoryQueue
from firsttoken.worker import answer_message
from tests.batch.batching import batches_with, requests, rows_of, settings_of, submitted, ticked

END = Chunk(finish="stop", usage=Usage(input=3, output=2))


class Model:
    """A model that takes ``seconds`` for an answer, and raises what ``fail`` returns for a text."""

    def __init__(
        self, seconds: float = 1.0, fail: Callable[[str], Exception | None] = lambda _: None
    ) -> None:
        self.seconds, self.fail = seconds, fail
        self.active = self.peak = 0
        self.texts: list[str] = []
        self.calls: list[Call] = []

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        text = call.request.messages[0].parts[0].text
        self.texts.append(text)
        self.calls.append(call)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.seconds)
            error = self.fail(text)
            if error:
                raise error
            yield Chunk(text=f"answer to {text}")
            yield END
        finally:
            self.active -= 1


def with_batches(
    test: Callable[[Batches], Coroutine[Any, Any, None]], model: Model | None = None, **own: Any
) -> None:
    """Run a test in virtual time with batches that ``model`` answers."""

    async def within() -> None:
        gateway = Gateway(settings_of(batch=BatchSettings(**own)))
        parts = {} if model is None else {"stream": model.stream}
        try:
            await test(batches_with(gateway, wall, **parts))
        finally:
            await gateway.aclose()

    run(within(), seconds=1_000_000)


def test_lines_are_answered_over_several_ticks() -> None:
    """A tick begins nothing after its time; the next one goes on where it ended, with so many at once."""
    model = Model()

    async def test(batches: Batches) -> None:
        batch = await submitted(batches, requests(30))
        seen = []
        while not batch.is_final:
            start = asyncio.get_running_loop().time()
            batch = await ticked(batches, batch)
            seen.append(batch.completed)
            assert asyncio.get_running_loop().time() - start <= 3.0 + 4.0
        assert batch.state == "completed"
        assert seen == [8, 16, 24, 30, 30]
        rows = await rows_of(batches, batch)
        assert rows["id-7"]["response"]["body"]["choices"][0]["message"]["content"] == "answer to question 7"
        assert (batch.tokens.input, batch.tokens.output) == (90, 60)

    with_batches(test, model, concurrency=2, tick_seconds=3.0)
    assert model.peak == 2
    assert sorted(model.texts) == sorted(f"question {number}" for number in range(30))
    assert all(call.background and call.later is None for call in model.calls)


def test_a_refused_line_is_an_error_of_its_own() -> None:
    """What the model refuses is told at once with its status; the others are answered."""
    model = Model(fail=lambda text: UpstreamRefusedError("no", status=422) if text.endswith("3") else None)

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(6)))
        assert (batch.state, batch.completed, batch.failed) == ("completed", 5, 1)
        row = (await rows_of(batches, batch, "error"))["id-3"]
        assert (row["response"]["status_code"], row["response"]["body"]["error"]["message"]) == (422, "no")

    with_batches(test, model)
    assert len(model.texts) == 6


def test_a_line_that_may_mend_is_tried_again() -> None:
    """An error that a later try may mend is tried three times while other lines are answered."""
    failures = 2

    def fail(text: str) -> Exception | None:
        nonlocal failures
        if text.endswith("1") and failures:
            failures -= 1
            return UnavailableError("busy")
        return UnavailableError("busy") if text.endswith("2") else None

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(4)))
        assert (batch.state, batch.completed, batch.failed) == ("completed", 3, 1)
        assert set(await rows_of(batches, batch, "error")) == {"id-2"}

    with_batches(test, Model(fail=fail))


def test_an_outage_fails_no_line() -> None:
    """While no line finds an answer the batch waits; when the target is back it goes on."""
    down = True

    async def test(batches: Batches) -> None:
        nonlocal down
        batch = await ticked(batches, await submitted(batches, requests(4)), 3)
        assert (batch.state, batch.completed, batch.failed) == ("in_progress", 0, 0)
        down = False
        batch = await ticked(batches, batch)
        assert (batch.state, batch.completed) == ("completed", 4)

    with_batches(test, Model(fail=lambda _: UnavailableError("down") if down else None))


@pytest.mark.parametrize("how", ["expired", "cancelled"])
def test_what_was_answered_stays(how: str) -> None:
    """An expired or cancelled batch has the answers that were there, and an error for each other line."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(20)))
        assert 0 < batch.completed < 20
        if how == "expired":
            await asyncio.sleep(batch.expires - wall())
        else:
            await batches.cancel(batch.tenant, batch.id)
        done = batch.completed
        batch = await ticked(batches, batch)
        assert (batch.state, batch.completed, batch.failed) == (how, done, 20 - done)
        errors = await rows_of(batches, batch, "error")
        assert {row["error"]["code"] for row in errors.values()} == {f"batch_{how}"}

    with_batches(test, Model(), concurrency=1, tick_seconds=3.0)


def test_a_crash_answers_at_most_one_group_again(monkeypatch: Any) -> None:
    """After a crash another worker goes on behind the last written part; each line has one result."""
    monkeypatch.setattr(collect, "PART_BYTES", 1)
    model, real, done = Model(), Collector.flush, 0

    async def flush(self: Collector, batch: Batch, buffer: Any) -> Batch:
        nonlocal done
        done += 1
        if done == 6:
            raise StoreError("The store is gone.")
        return await real(self, batch, buffer)

    monkeypatch.setattr(Collector, "flush", flush)

    async def test(batches: Batches) -> None:
        batch = await submitted(batches, requests(12))
        rows = await tick(batches)
        assert rows[0]["status"] == "later"
        batch = await ticked(batches, batch, 2)
        assert (batch.state, batch.completed) == ("completed", 12)
        assert len(await rows_of(batches, batch)) == 12

    with_batches(test, model, concurrency=1)
    assert len(model.texts) <= 12 + 4


def test_two_workers_share_the_batches() -> None:
    """A batch is moved on by one worker at a time; the other finds it taken."""
    model = Model()

    async def test(batches: Batches) -> None:
        batch = await submitted(batches, requests(8))
        both = await asyncio.gather(tick(batches), tick(batches))
        assert sorted(rows[0]["status"] for rows in both) == ["busy", "completed"]
        assert (await batches.get(batch.tenant, batch.id)).completed == 8

    with_batches(test, model)
    assert len(model.texts) == 8


def test_a_worker_that_vanished_is_replaced() -> None:
    """When a lease has run out another worker takes the batch."""

    async def test(batches: Batches) -> None:
        batch = await submitted(batches, requests(2))
        assert await batches.store.lease(f"batch:{batch.tenant}:{batch.id}", "dead", 60.0)
        assert (await tick(batches))[0]["status"] == "busy"
        await asyncio.sleep(61)
        assert (await ticked(batches, batch)).state == "completed"

    with_batches(test, Model())


def test_a_tick_is_shared_by_all_batches() -> None:
    """Several batches advance in one tick, and the tick still ends in time."""

    async def test(batches: Batches) -> None:
        made = [await submitted(batches, requests(40), tenant) for tenant in ("a", "b", "c")]
        start = asyncio.get_running_loop().time()
        await tick(batches)
        assert asyncio.get_running_loop().time() - start <= 12.0 + 3 * 4.0
        for batch in made:
            assert (await batches.get(batch.tenant, batch.id)).completed > 0

    with_batches(test, Model(), concurrency=1, tick_seconds=12.0)


def test_a_batch_that_meets_only_errors_is_given_up(monkeypatch: Any) -> None:
    """A day after its window it fails with the reason and what was answered: it does not stay open."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(20)))
        done = batch.completed
        monkeypatch.setattr(batches.files, "get_part", lose)
        await asyncio.sleep(batch.expires - wall() + 3600)
        assert (await ticked(batches, batch)).state == "in_progress"
        await asyncio.sleep(86_400)
        batch = await ticked(batches, batch)
        assert (batch.state, batch.completed) == ("failed", done)
        assert batch.errors[0].code == "store_unavailable"
        assert await batches.open.names() == []

    async def lose(*_: Any) -> bytes:
        raise StoreError("The part is lost.")

    with_batches(test, Model(), concurrency=1, tick_seconds=3.0)


def test_the_input_may_expire_first() -> None:
    """A batch has the contents of its file until its end, whenever the file was to expire."""

    async def test(batches: Batches) -> None:
        file = await batches.files.create("acme", "x", "batch", requests(3), 3600.0)
        batch = await batches.create("acme", file.id, None)
        await asyncio.sleep(7200)
        assert await batches.files.get("acme", file.id) is None
        assert (await ticked(batches, batch)).state == "completed"

    with_batches(test, Model())


def test_lines_become_jobs() -> None:
    """With a queue each line is a job, a bounded number at a time, and workers answer them."""

    async def within() -> None:
        settings = settings_of(queue=MemoryQueue(), batch=BatchSettings(queued=5))
        gateway = Gateway(settings)
        queue = gateway.queue
        assert queue is not None
        jobs = Jobs(settings, gateway.store, queue, gateway.objects, wall=wall)
        vars(gateway)["jobs"] = jobs
        batches = batches_with(gateway, wall)
        try:
            batch = await submitted(batches, requests(12))
            for _ in range(6):
                batch = await ticked(batches, batch)
                if batch.is_final:
                    break
                waiting = (await queue.depth()).waiting
                assert 0 < waiting <= 5
                for delivery in await queue.receive(10, 30.0, 0.0):
                    row = await answer_message(gateway, delivery.body)
                    assert row["status"] == "done"
                    await queue.done(delivery)
            assert (batch.state, batch.completed) == ("completed", 12)
            assert len(await rows_of(batches, batch)) == 12
        finally:
            await gateway.aclose()

    run(within())


def test_cancelled_jobs() -> None:
    """Cancelling a batch cancels the jobs of its lines."""

    async def within() -> None:
        settings = settings_of(queue=MemoryQueue())
        gateway = Gateway(settings)
        assert gateway.queue is not None
        jobs = Jobs(settings, gateway.store, gateway.queue, gateway.objects, wall=wall)
        vars(gateway)["jobs"] = jobs
        batches = batches_with(gateway, wall)
        try:
            batch = await ticked(batches, await submitted(batches, requests(3)))
            await batches.cancel(batch.tenant, batch.id)
            batch = await ticked(batches, batch)
            assert (batch.state, batch.failed) == ("cancelled", 3)
            for delivery in await gateway.queue.receive(10, 30.0, 0.0):
                assert (await answer_message(gateway, delivery.body))["status"] in ("cancelled", "duplicate")
        finally:
            await gateway.aclose()

    run(within())


def test_answers_of_a_cancelled_batch_are_kept_over_several_ticks(monkeypatch: Any) -> None:
    """However slowly they are read: what was answered before a batch was cancelled is not given up."""

    async def within() -> None:
        settings = settings_of(queue=MemoryQueue(), batch=BatchSettings(concurrency=1, tick_seconds=2.0))
        gateway = Gateway(settings)
        queue = gateway.queue
        assert queue is not None
        jobs = Jobs(settings, gateway.store, queue, gateway.objects, wall=wall)
        vars(gateway)["jobs"] = jobs
        batches = batches_with(gateway, wall)
        quick = jobs.get

        async def slow(tenant: str, name: str) -> Any:
            await asyncio.sleep(1)
            return await quick(tenant, name)

        try:
            batch = await ticked(batches, await submitted(batches, requests(12)))
            for delivery in await queue.receive(20, 30.0, 0.0):
                await answer_message(gateway, delivery.body)
            monkeypatch.setattr(jobs, "get", slow)
            await batches.cancel(batch.tenant, batch.id)
            batch = await ticked(batches, batch, 5)
            assert (batch.state, batch.completed, batch.failed) == ("cancelled", 12, 0)
        finally:
            await gateway.aclose()

    run(within())


def test_a_defect_in_one_batch_does_not_stop_the_others(monkeypatch: Any, capsys: Any) -> None:
    """The row of that batch says so, the traceback is logged, and the next batch is moved on."""
    from firsttoken.batch import step as steps

    real = steps.Step._validate

    async def validate(self: steps.Step) -> None:
        if self.batch.tenant == "a":
            raise KeyError("oops")
        await real(self)

    monkeypatch.setattr(steps.Step, "_validate", validate)

    async def test(batches: Batches) -> None:
        await submitted(batches, requests(1), "a")
        await submitted(batches, requests(1), "b")
        rows = {row["tenant"]: row for row in await tick(batches)}
        assert rows["a"]["error"] == "internal_error"
        assert rows["b"]["status"] == "completed"

    with_batches(test, Model())
    assert "KeyError" in capsys.readouterr().err
