"""Batches at providers with a batch API, against simulated ones: all of them behind one interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsttoken.batch import collect
from firsttoken.batch.batch import Batch
from firsttoken.batch.batches import Batches
from firsttoken.batch.collect import Collector
from firsttoken.batch.step import Step
from firsttoken.errors import StoreError
from tests.batch.batching import jsonl, line, requests, rows_of, submitted, ticked
from tests.batch.remote import KINDS, batches_at, simulator

Test = Callable[[Batches], Awaitable[None]]


def run(kind: str, test: Test, profile: str = "", **own: Any) -> Any:
    """Run a test against a provider; returns the provider."""

    async def within(url: str) -> None:
        async with asyncio.timeout(60), batches_at(kind, url, **own) as batches:
            await test(batches)

    with simulator(profile, s3=kind == "bedrock") as (app, url):
        asyncio.run(within(url))
        return app


def made(app: Any) -> int:
    """How many batches a provider has."""
    return sum(len(vars(api).get("_batches", vars(api).get("_jobs"))) for api in app._batch_apis)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_completes(kind: str) -> None:
    """All answers come back under the client's names, as chat completions, and tokens are counted."""

    async def test(batches: Batches) -> None:
        batch = await submitted(batches, requests(5))
        batch = await ticked(batches, batch)
        assert (batch.state, batch.target, batch.total) == ("in_progress", "p/upstream.model-v1", 5)
        batch = await ticked(batches, batch, 2)
        assert (batch.state, batch.completed, batch.failed) == ("completed", 5, 0)
        rows = await rows_of(batches, batch)
        assert set(rows) == {f"id-{number}" for number in range(5)}
        for number in range(5):
            answer = rows[f"id-{number}"]["response"]
            assert answer["status_code"] == 200
            assert answer["body"]["object"] == "chat.completion"
            assert "question" in answer["body"]["choices"][0]["message"]["content"]
        assert batch.tokens.output > 0
        assert await batches.open.names() == []

    assert made(run(kind, test, "batch_polls=2")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_single_requests(kind: str) -> None:
    """What fails is in the file of errors with its status; the others are answered."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(20)), 2)
        assert batch.state == "completed"
        assert batch.completed + batch.failed == 20
        assert 0 < batch.failed < 20
        errors = await rows_of(batches, batch, "error")
        assert len(errors) == batch.failed
        for row in errors.values():
            assert row["response"]["status_code"] == 400
            assert row["response"]["body"]["error"]["message"]
        assert not set(errors) & set(await rows_of(batches, batch))

    run(kind, test, "batch_errors=0.4")


@pytest.mark.parametrize("kind", KINDS)
def test_partial_results_of_an_expired_batch(kind: str) -> None:
    """What was done before the provider's time was over stays; the rest is said to have expired."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(10)), 2)
        assert (batch.state, batch.completed, batch.failed) == ("expired", 6, 4)
        errors = await rows_of(batches, batch, "error")
        assert {row["error"]["code"] for row in errors.values()} == {"batch_expired"}
        assert set(errors) | set(await rows_of(batches, batch)) == {f"id-{n}" for n in range(10)}

    run(kind, test, "batch_done=0.6")


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_half_way(kind: str) -> None:
    """A cancelled batch keeps what was done; the provider was asked to stop."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(8)), 2)
        await batches.cancel(batch.tenant, batch.id)
        batch = await ticked(batches, batch, 3)
        assert batch.state == "cancelled"
        assert (batch.completed, batch.failed) == (4, 4)
        errors = await rows_of(batches, batch, "error")
        assert {row["error"]["code"] for row in errors.values()} == {"batch_cancelled"}

    run(kind, test, "batch_polls=4")


@pytest.mark.parametrize("kind", KINDS)
def test_late_batches_are_stopped(kind: str) -> None:
    """When our window is over the provider is stopped, and the batch expires with what was done."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(8)), 2)
        batches.wall.now = batch.expires + 1
        batch = await ticked(batches, batch, 3)
        assert batch.state == "expired"
        assert (batch.completed, batch.failed) == (4, 4)

    run(kind, test, "batch_polls=4")


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_behind_submission_makes_no_second_batch(kind: str, monkeypatch: Any) -> None:
    """Another worker finds the batch that was submitted, though its handle was never written."""
    real = Step._change
    crashes = 1

    async def change(self: Step, step: Callable[[Batch], Batch | None]) -> None:
        nonlocal crashes
        new = step(self.batch)
        if crashes and new is not None and new.handle and not self.batch.handle:
            crashes -= 1
            raise StoreError("The store is gone.")
        await real(self, step)

    monkeypatch.setattr(Step, "_change", change)

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(3)))
        assert (batch.intended, batch.handle) == (True, "")
        batch = await ticked(batches, batch, 3)
        assert (batch.state, batch.completed) == ("completed", 3)

    assert made(run(kind, test)) == 1
    assert not crashes


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_while_collecting_loses_and_doubles_nothing(kind: str, monkeypatch: Any) -> None:
    """Results that were written are not written again; collection goes on behind them."""
    monkeypatch.setattr(collect, "PART_BYTES", 1)
    real = Collector.flush
    done = 0

    async def flush(self: Collector, batch: Batch, buffer: Any) -> Batch:
        nonlocal done
        done += 1
        if done in (2, 4):
            raise StoreError("The store is gone.")
        return await real(self, batch, buffer)

    monkeypatch.setattr(Collector, "flush", flush)

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(6)), 5)
        assert (batch.state, batch.completed, batch.collected) == ("completed", 6, 6)
        assert len(await rows_of(batches, batch)) == 6

    run(kind, test)
    assert done == 8


@pytest.mark.parametrize("kind", ["gemini", "bedrock"])
def test_what_the_target_cannot_do_is_told_first(kind: str) -> None:
    """A line that cannot be translated fails the batch with its number, before anything is sent."""

    async def test(batches: Batches) -> None:
        wrong = line(1, logit_bias={"1": 1})
        batch = await ticked(batches, await submitted(batches, jsonl(line(0), wrong)))
        assert (batch.state, batch.errors[0].line) == ("failed", 2)
        assert "logit_bias" in batch.errors[0].message

    assert made(run(kind, test)) == 0


def test_few_records_are_answered_by_us() -> None:
    """A Bedrock job needs a number of records; a smaller batch is answered line by line."""

    async def test(batches: Batches) -> None:
        batch = await ticked(batches, await submitted(batches, requests(1)))
        assert (batch.state, batch.target, batch.completed) == ("completed", "", 1)

    assert made(run("bedrock", test)) == 0


def test_a_provider_that_is_away_is_asked_later() -> None:
    """While the provider cannot be reached the batch waits, and a row says why."""

    async def test() -> None:
        from firsttoken.batch.tick import tick

        async with batches_at("openai", "http://127.0.0.1:9") as batches:
            batch = await submitted(batches, requests(2))
            rows = await tick(batches)
            assert (rows[0]["status"], rows[0]["error"]) == ("later", "upstream_unreachable")
            assert (await batches.get(batch.tenant, batch.id)).state == "in_progress"

    asyncio.run(test())
