"""Deferred calls on Azure, whole: Microsoft's runtime, Azurite, and a provider that is down."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.data.tables import TableServiceClient
from azure.storage.queue import QueueClient

from firsttoken.emulators.azure import AzureEmulator
from firsttoken.objects.blob_account import account_of
from firsttoken.providers.http import HttpClient
from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import Jobs
from firsttoken.simulator.profile import Profile
from tests.policies.live import serve
from tests.stores.cloud import tables_connection

PROJECT = Path(__file__).parents[2]
ROOT = PROJECT / "functions" / "azure"
LIMIT_SECONDS = 60.0
CALL = {"model": "m", "messages": [{"role": "user", "content": "Name three planets."}]}
DOWN, UP = "ttft_ms=0,itl_ms=0,fault=status,status=503", "ttft_ms=0,itl_ms=0"


@dataclass
class Running:
    """A function app with its provider, and the names of what it has in the storage account."""

    emulator: AzureEmulator
    provider: SimulatorApp
    queue: str

    def client(self, suffix: str = "") -> QueueClient:
        """A client of its queue, or of the one with a suffix."""
        return QueueClient.from_connection_string(tables_connection(), self.queue + suffix)

    async def blobs(self) -> bytes:
        """What its container has, as the service lists it."""
        path = f"/{self.queue}?restype=container&comp=list"
        account = account_of(tables_connection(), "", "objects")
        url, headers = await account.prepare("GET", path, [], 0, time.time)
        client = HttpClient()
        response = await client.request("GET", url, headers=headers)
        body = await response.read(1 << 20)
        await client.aclose()
        assert response.status == 200
        return body

    def left(self) -> int:
        """How many messages there are, hidden ones too."""
        return int(self.client().get_queue_properties().approximate_message_count or 0)

    async def ask(self, method: str, path: str, **request: Any) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and the decoded body."""
        async with self.emulator.request(method, path, **request) as answer:
            return answer.status, answer.headers, json.loads(await answer.read(1 << 20) or b"null")

    async def wait(self, path: str, reached: Callable[[Any], bool]) -> Any:
        """Return what is at a path once it is as wanted."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while not reached(found := (await self.ask("GET", path))[2]):
                await asyncio.sleep(0.1)
        return found

    def set_profile(self, spec: str) -> None:
        """Have the provider be up or down from now on."""
        self.provider.model.profile = Profile().changed(spec)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The app as it is deployed, with everything in one storage account and one model on a provider."""
    connection, table = tables_connection(), f"t{uuid.uuid4().hex}"
    with TableServiceClient.from_connection_string(connection) as tables:
        tables.create_table(table)
    queue = f"test-{uuid.uuid4().hex}"
    with serve(DOWN) as (url, provider):
        env = {
            "AzureWebJobsStorage": connection,
            "FIRSTTOKEN_AUTH": "off",
            "FIRSTTOKEN_UPSTREAM_URL": f"{url}/v1",
            "FIRSTTOKEN_STORE__KIND": "tables",
            "FIRSTTOKEN_STORE__TABLE": table,
            "FIRSTTOKEN_STORE__TIMEOUT": "20",
            "FIRSTTOKEN_STORE__CONNECTION": "env:AzureWebJobsStorage",
            "FIRSTTOKEN_QUEUE__KIND": "storage_queue",
            "FIRSTTOKEN_QUEUE__NAME": queue,
            "FIRSTTOKEN_QUEUE__CONNECTION": "env:AzureWebJobsStorage",
            "FIRSTTOKEN_OBJECTS__KIND": "blob",
            "FIRSTTOKEN_OBJECTS__CONTAINER": queue,
            "FIRSTTOKEN_OBJECTS__CONNECTION": "env:AzureWebJobsStorage",
            "FIRSTTOKEN_JOBS__INLINE_BYTES": "0",
            "FIRSTTOKEN_JOBS__RETRY_AFTER": "0.5",
            "FIRSTTOKEN_JOBS__MAX_ATTEMPTS": "50",
            "FIRSTTOKEN_BREAKER__ENABLED": "false",
            "FIRSTTOKEN_RETRY__ATTEMPTS": "1",
        }
        with AzureEmulator(root=ROOT, env=env) as emulator:
            yield Running(emulator, provider, queue)


def run(work: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(2 * LIMIT_SECONDS):
            return await work

    return asyncio.run(bounded())


def test_a_call_in_an_outage_is_answered_by_the_queue_trigger(running: Running) -> None:
    """202 while the provider is down; once it is up, the function that the message wakes has the answer."""

    async def main() -> None:
        running.set_profile(DOWN)
        status, headers, job = await running.ask(
            "POST", "/v1/chat/completions", headers={"prefer": "respond-async, wait=5"}, body=CALL
        )
        assert (status, headers["location"]) == (202, f"/v1/jobs/{job['id']}"), running.emulator.log()
        path = headers["location"]
        await running.wait(path, lambda found: found["attempts"] >= 2)  # the trigger has sent it again
        running.set_profile(UP)
        done = await running.wait(path, lambda found: found["state"] not in {"queued", "running"})
        assert done["state"] == "done", running.emulator.log()
        assert done["answer"]["choices"][0]["message"]["content"]
        assert b"<Name>firsttoken/" in await running.blobs()
        async with asyncio.timeout(LIMIT_SECONDS):
            while await asyncio.to_thread(running.left):
                await asyncio.sleep(0.1)

    run(main())


def test_a_message_that_is_none_is_buried_with_its_reason(running: Running) -> None:
    """The function does not fail: it writes to the poison queue why nothing can be done, at once."""
    running.client().send_message(base64.b64encode(b"no job").decode())

    async def main() -> Any:
        poison = running.client("-poison")
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (found := await asyncio.to_thread(_peek, poison)):
                await asyncio.sleep(0.1)
        return json.loads(base64.b64decode(found[0].content))

    envelope = run(main())
    assert base64.b64decode(envelope["body"]) == b"no job"
    assert "no job's message" in envelope["reason"]


def _peek(queue: QueueClient) -> list[Any]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return list(queue.peek_messages())
    except ResourceNotFoundError:
        return []


def test_an_app_without_a_queue_leaves_messages_to_the_host(tmp_path: Path) -> None:
    """The function raises, and the host's own rule keeps the message in the poison queue."""
    for name in ("function_app.py", "host.json"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    host = json.loads((ROOT / "host.json").read_text())
    host["extensions"]["queues"] |= {"maxDequeueCount": 2, "visibilityTimeout": "00:00:00"}
    (tmp_path / "host.json").write_text(json.dumps(host))
    connection = tables_connection()
    queues = [
        QueueClient.from_connection_string(connection, "firsttoken-jobs" + end) for end in ("", "-poison")
    ]
    queues[0].create_queue()
    text = base64.b64encode(b'{"id": "job_1", "tenant": "acme"}').decode()
    queues[0].send_message(text)

    async def main() -> list[Any]:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (found := await asyncio.to_thread(_peek, queues[1])):
                await asyncio.sleep(0.1)
        return found

    env = {"AzureWebJobsStorage": connection, "FIRSTTOKEN_AUTH": "off"}
    with AzureEmulator(root=tmp_path, env=env) as emulator:
        found = run(main())
        assert "No queue is configured" in emulator.log()
    assert [message.content for message in found] == [text]


def test_the_host_has_as_many_messages_under_way_as_a_worker_answers() -> None:
    """A batch and the threshold for the next one are what ``jobs.concurrency`` is by default."""
    queues = json.loads((ROOT / "host.json").read_text())["extensions"]["queues"]
    assert queues["batchSize"] + queues["newBatchThreshold"] == Jobs().concurrency
