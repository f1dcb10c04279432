"""The whole way of a deferred call on Google Cloud: chat function, Pub/Sub, recover function, answer.

Both functions run in Google's functions-framework, in processes of their own with one store; Pub/Sub is the
local simulator, which delivers some messages twice and out of order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from firsttoken.emulators.child import is_taken
from firsttoken.emulators.gcp import GcpEmulator, pushing
from firsttoken.emulators.http11 import Request, response, start_server, stop_server
from firsttoken.emulators.pubsub import PubsubSimulator
from firsttoken.emulators.pubsub_subscription import Faults
from firsttoken.settings import PubsubQueue

ROOT = Path(__file__).parents[2] / "functions" / "gcp"
LIMIT_SECONDS = 60.0
SUB = "projects/p/subscriptions/jobs-push"
CONFIG = """
[store]
kind = "sqlite"
path = "{store}"
[queue]
kind = "pubsub"
topic = "projects/p/topics/jobs"
dead_topic = "projects/p/topics/dead"
dead_subscription = "projects/p/subscriptions/dead"
endpoint = "{endpoint}"
hold = 0.3
[jobs]
defer = "outage"
lease = 1.0
retry_after = 0.2
max_delay = 0.5
max_attempts = 50
[retry]
attempts = 1
[breaker]
enabled = false
[providers.up]
kind = "openai"
base_url = "{upstream}/v1"
api_key = "key"
[models.m]
target = "up/m"
"""
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "At last."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
CALL = {"model": "m", "messages": [{"role": "user", "content": "When?"}]}


class Upstream:
    """A model that is down, hangs, or answers."""

    def __init__(self) -> None:
        self.mode = "down"
        self.answered = 0
        self.hanging = asyncio.Event()
        self.url = ""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await request.read(1 << 20)
        if self.mode == "hang":
            self.hanging.set()
            await asyncio.sleep(LIMIT_SECONDS)
        if self.mode == "down":
            writer.write(response(503, b'{"error":{"message":"down"}}'))
        else:
            self.answered += 1
            writer.write(response(200, json.dumps(COMPLETION).encode()))
        await writer.drain()
        return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Cloud:
    """Both functions and the queue between them."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        endpoint = f"http://127.0.0.1:{free_port()}"
        path = directory / "firsttoken.toml"
        path.write_text(
            CONFIG.format(store=directory / "store.sqlite", endpoint=endpoint, upstream=upstream.url)
        )
        self.env = {"FIRSTTOKEN_AUTH": "off", "FIRSTTOKEN_CONFIG": str(path)}
        self.chat = GcpEmulator(root=ROOT, target="chat", env=self.env)
        self.recover = GcpEmulator(root=ROOT, target="recover", env=self.env, port=free_port())
        self.queue = PubsubQueue(
            topic="projects/p/topics/jobs",
            dead_topic="projects/p/topics/dead",
            dead_subscription="projects/p/subscriptions/dead",
            endpoint=endpoint,
        )

    @contextmanager
    def running(self, faults: Faults) -> Iterator[PubsubSimulator]:
        backoff = {"minimumBackoff": "0.1s", "maximumBackoff": "0.5s"}
        with ExitStack() as stack:
            for function in (self.chat, self.recover):
                function.start()
                stack.callback(function.stop)
            yield stack.enter_context(pushing(self.queue, self.recover.url, faults=faults, backoff=backoff))

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        async with self.chat.request(method, path, {"content-type": "application/json"}, body) as answer:
            return answer.status, answer.headers, json.loads(await answer.read(1 << 20))

    async def defer(self) -> str:
        """Ask the model that is down, and return where the answer will be."""
        messages = [{"role": "user", "content": "When?"}]
        status, headers, _ = await self.ask(
            "POST", "/v1/chat/completions", {"model": "m", "messages": messages}
        )
        assert status == 202
        return headers["location"]

    async def finished(self, location: str) -> Any:
        while True:
            status, _, job = await self.ask("GET", location)
            assert status == 200
            if job["state"] not in {"queued", "running"}:
                return job
            await asyncio.sleep(0.1)


@asynccontextmanager
async def served() -> AsyncIterator[Upstream]:
    connections: set[asyncio.Task[None]] = set()
    upstream = Upstream()
    server = await start_server(upstream.answer, "127.0.0.1", 0, connections)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        await stop_server(server, connections)


def with_cloud(directory: Path, test: Any, faults: Faults) -> None:
    async def main() -> None:
        async with served() as upstream:
            cloud = Cloud(directory, upstream)
            running = cloud.running(faults)
            simulator = await asyncio.to_thread(running.__enter__)
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    await test(cloud, upstream, simulator)
            except BaseException as error:
                error.add_note(cloud.chat.log() + cloud.recover.log())
                raise
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)

    asyncio.run(main())


@pytest.mark.parametrize(
    "faults", [Faults(), Faults(duplicates=1.0, reorder=0.5, seed=1)], ids=["none", "faults"]
)
def test_an_outage_ends_in_an_answer(tmp_path: Path, faults: Faults) -> None:
    """A call that no target answers becomes a job; each job is answered once when the target is back."""

    async def test(cloud: Cloud, upstream: Upstream, simulator: PubsubSimulator) -> None:
        locations = [await cloud.defer() for _ in range(3)]
        assert (await cloud.ask("GET", locations[0]))[2]["state"] in {"queued", "running"}
        upstream.mode = "up"
        jobs = [await cloud.finished(location) for location in locations]
        assert [job["state"] for job in jobs] == ["done"] * 3
        assert {job["answer"]["choices"][0]["message"]["content"] for job in jobs} == {"At last."}
        while simulator.subscription(SUB).backlog:
            await asyncio.sleep(0.05)
        assert upstream.answered == 3
        assert simulator.subscription("projects/p/subscriptions/dead").backlog == 0

    with_cloud(tmp_path, test, faults)


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """A recover function that dies with a job leaves it to its successor."""

    async def test(cloud: Cloud, upstream: Upstream, _: PubsubSimulator) -> None:
        location = await cloud.defer()
        upstream.mode = "hang"
        await upstream.hanging.wait()
        os.killpg(cloud.recover.pid, signal.SIGKILL)
        await asyncio.to_thread(cloud.recover.stop)
        while is_taken(cloud.recover.host, cloud.recover.port):
            await asyncio.sleep(0.05)
        upstream.mode = "up"
        await asyncio.to_thread(cloud.recover.start)
        job = await cloud.finished(location)
        assert (job["state"], upstream.answered) == ("done", 1)

    with_cloud(tmp_path, test, Faults())


def test_serve_brings_its_queue(tmp_path: Path) -> None:
    """``serve --cloud gcp`` runs both functions and the Pub/Sub between them, and ends them all."""

    async def test(cloud: Cloud, upstream: Upstream, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **cloud.env}, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                if b"firsttoken serves" in line:
                    break
            location = await cloud.defer()
            upstream.mode = "up"
            assert (await cloud.finished(location))["state"] == "done"
        finally:
            process.send_signal(signal.SIGINT)
            await process.communicate()
        assert process.returncode == 0
        for url in (cloud.chat.url, cloud.queue.endpoint):
            assert not is_taken("127.0.0.1", int(url.rpartition(":")[2]))

    async def main() -> None:
        async with asyncio.timeout(LIMIT_SECONDS), served() as upstream:
            cloud = Cloud(tmp_path, upstream)
            cloud.chat.port = free_port()
            serve = ["serve", "--cloud", "gcp", "--port", str(cloud.chat.port)]
            await test(cloud, upstream, [sys.executable, "-m", "firsttoken.cli", *serve])

    asyncio.run(main())
