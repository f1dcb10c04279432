"""From a queue to a function on AWS: a local SQS server, the real handler in AWS's own runtime client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from firsttoken import config
from firsttoken.emulators.aws import RECOVER, AwsEmulator
from firsttoken.emulators.aws_queue import SqsPump
from firsttoken.gateway import Gateway
from firsttoken.queues.sqs import SqsQueue
from firsttoken.settings import SqsQueue as Settings
from tests.policies import live
from tests.queues import moto_server

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60
MOST = 3
BROKEN = "def handler(event, context):\n    raise ValueError('no')\n"


def call(name: str) -> str:
    """A message that somebody wrote by hand."""
    request = {"model": "simulated", "messages": [{"role": "user", "content": "Hello there"}]}
    return json.dumps({"id": name, "tenant": "acme", "request": request})


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> moto_server.Urls:
    """A queue and its dead letters, and the environment of functions that share a store."""
    for name in [name for name in os.environ if name.startswith("FIRSTTOKEN_")]:
        monkeypatch.delenv(name)
    urls = moto_server.new_queues(MOST, VisibilityTimeout="30")
    given = {
        **moto_server.AWS,
        "FIRSTTOKEN_AUTH": "off",
        "FIRSTTOKEN_STORE__KIND": "sqlite",
        "FIRSTTOKEN_STORE__PATH": str(tmp_path / "store.sqlite"),
        "FIRSTTOKEN_STORE__TIMEOUT": "10",
        "FIRSTTOKEN_QUEUE__KIND": "sqs",
        "FIRSTTOKEN_QUEUE__URL": urls.queue,
        "FIRSTTOKEN_QUEUE__DEAD_URL": urls.dead,
        "FIRSTTOKEN_QUEUE__REGION": moto_server.REGION,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return urls


@asynccontextmanager
async def pumping(
    urls: moto_server.Urls, root: Path = ROOT, handler: str = RECOVER
) -> AsyncIterator[SqsPump]:
    command = [sys.executable, "-m", "awslambdaric", handler]
    async with asyncio.timeout(LIMIT), AwsEmulator(root=root, handler=handler, command=command) as emulator:
        pump = SqsPump(emulator, Settings(url=urls.queue, dead_url=urls.dead))
        try:
            yield pump
        finally:
            await pump.aclose()


async def look(*names: str) -> dict[str, Any]:
    """How jobs stand, and their answers."""
    gateway = Gateway(config.load())
    try:
        found = {}
        for name in names:
            job = await gateway.jobs.get("acme", name)
            chunks = await gateway.jobs.answer(job) if job else None
            found[name] = (job.state if job else None, chunks)
        return found
    finally:
        await gateway.aclose()


def send(urls: moto_server.Urls, *bodies: str) -> None:
    with moto_server.client("sqs") as client:
        for body in bodies:
            client.send_message(QueueUrl=urls.queue, MessageBody=body)


async def dead(urls: moto_server.Urls) -> list[tuple[bytes, str]]:
    queue = SqsQueue(Settings(url=urls.queue, dead_url=urls.dead))
    try:
        return [(letter.body, letter.reason) for letter in await queue.dead(10)]
    finally:
        await queue.aclose()


def test_good_messages_are_answered_and_a_poisoned_one_is_buried(urls: moto_server.Urls) -> None:
    """One bad message does not repeat its neighbours, and it is kept with the reason."""
    send(urls, call("job-1"), "poison", call("job-2"))

    async def run() -> tuple[list[int], dict[str, Any], list[tuple[bytes, str]]]:
        async with pumping(urls) as pump:
            counts = [await pump.pump() for _ in range(2)]
        return counts, await look("job-1", "job-2"), await dead(urls)

    counts, jobs, letters = asyncio.run(run())
    assert counts == [3, 0]
    assert {state for state, _ in jobs.values()} == {"done"}
    assert all(chunks for _, chunks in jobs.values())
    ((body, reason),) = letters
    assert body == b"poison"
    assert reason.startswith("no job's message")


def test_a_message_that_comes_twice_is_answered_once(urls: moto_server.Urls) -> None:
    """The second delivery finds the job done, and calls no model."""
    send(urls, call("job-1"))

    async def run() -> tuple[Any, Any]:
        async with pumping(urls) as pump:
            assert await pump.pump() == 1
            first = await look("job-1")
            send(urls, call("job-1"))
            assert await pump.pump() == 1
            assert await pump.pump() == 0
        return first, await look("job-1")

    first, second = asyncio.run(run())
    assert first["job-1"][0] == "done"
    assert first == second


def test_an_outage_uses_up_no_deliveries(urls: moto_server.Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its target is down a message is sent again, more often than SQS would deliver it."""
    given = {"JOBS__MAX_ATTEMPTS": "100", "JOBS__MAX_DELAY": "2", "BREAKER__OPEN": "0.5"}
    for name, value in given.items():
        monkeypatch.setenv(f"FIRSTTOKEN_{name}", value)
    send(urls, call("job-1"))

    async def run(target: Any) -> list[tuple[bytes, str]]:
        async with pumping(urls) as pump:
            for _ in range(2 * MOST):
                assert await pump.pump() == 1
                await moto_server.CLOCK.forward(3)
            assert (await look("job-1"))["job-1"][0] == "queued"
            target.model.profile = target.model.profile.changed("fault=")
            while (await look("job-1"))["job-1"][0] != "done":  # once the breaker has found its target well
                await pump.pump()
                await moto_server.CLOCK.forward(3)
        return await dead(urls)

    with live.serve("ttft_ms=0,itl_ms=0,fault=status,status=503") as (url, target):
        monkeypatch.setenv("FIRSTTOKEN_UPSTREAM_URL", f"{url}/v1")
        assert asyncio.run(run(target)) == []


def test_without_the_store_a_message_stays(urls: moto_server.Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is delivered again by SQS, and kept as a dead letter in the end."""
    monkeypatch.setenv("FIRSTTOKEN_STORE__PATH", "/nowhere/store.sqlite")
    send(urls, call("job-1"))

    async def run() -> list[tuple[bytes, str]]:
        async with pumping(urls) as pump:
            for _ in range(MOST):
                assert await pump.pump() == 1
                assert await pump.pump() == 0
                await moto_server.CLOCK.forward(31)
            assert await pump.pump() == 0
        return await dead(urls)

    assert asyncio.run(run()) == [(call("job-1").encode(), f"handed out {MOST} times")]


def test_a_function_that_breaks_leaves_its_whole_batch(urls: moto_server.Urls, tmp_path: Path) -> None:
    """Nothing is deleted that was not answered."""
    send(urls, "x")
    (tmp_path / "broken.py").write_text(BROKEN, "utf-8")

    async def run() -> list[int]:
        async with pumping(urls, tmp_path, "broken.handler") as pump:
            first = await pump.pump()
            await moto_server.CLOCK.forward(31)
            return [first, await pump.pump()]

    assert asyncio.run(run()) == [1, 1]


def test_a_pump_outlives_its_queue(urls: moto_server.Urls, capfd: pytest.CaptureFixture[str]) -> None:
    """While the queue cannot be had it says so once, and tries again."""

    async def run() -> None:
        settings = Settings(url="http://127.0.0.1:1/1/jobs", region=moto_server.REGION)
        async with asyncio.timeout(LIMIT), SqsPump(AwsEmulator(root=ROOT), settings):
            while "SQS cannot be reached" not in capfd.readouterr().err:
                await asyncio.sleep(0.05)

    asyncio.run(run())
