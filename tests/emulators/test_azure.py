"""Microsoft's real Python runtime behind the emulated host, with the probe app in it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue import QueueClient

from firsttoken.emulators.azure import AzureEmulator
from firsttoken.emulators.child import EmulatorError
from firsttoken.errors import ConfigError, UpstreamClosedError
from tests.emulators.azurite import running_azurite

APPS = Path(__file__).parent / "apps"
LIMIT_SECONDS = 20.0
QUEUE = "probe-jobs"


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The connection string of a storage account with the queues in it."""
    with running_azurite() as connection:
        for name in (QUEUE, f"{QUEUE}-poison"):
            QueueClient.from_connection_string(connection, name).create_queue()
        yield connection


@pytest.fixture(scope="module")
def emulator(storage: str) -> Iterator[AzureEmulator]:
    """One function app, for all tests of this module; its queue is a real one."""
    path = os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, "AzureWebJobsStorage": storage, "PROBE_QUEUE": QUEUE}
    with AzureEmulator(root=APPS / "azure", env=env) as running:
        yield running


async def get(emulator: AzureEmulator, path: str, **request: Any) -> tuple[int, bytes]:
    async with (
        asyncio.timeout(LIMIT_SECONDS),
        emulator.request(request.pop("method", "GET"), path, **request) as answer,
    ):
        return answer.status, await answer.read(1 << 20)


async def invoke(emulator: AzureEmulator, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and decoded body of one event."""
    async with asyncio.timeout(LIMIT_SECONDS), emulator.invoke(event) as answer:
        return answer.status, json.loads(await answer.read(1 << 20))


async def wait_for_messages(
    emulator: AzureEmulator, wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Return the calls that the functions have noted, once one of them is ``wanted``."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            found = [item for item in json.loads((await get(emulator, "/messages"))[1]) if wanted(item)]
            if found:
                return found
            await asyncio.sleep(0.05)


async def wait_for_queue(queue: QueueClient, count: int) -> list[str]:
    """Return what is in a queue, hidden messages counted, once it is ``count`` messages."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await asyncio.to_thread(queue.get_queue_properties)).approximate_message_count != count:
            await asyncio.sleep(0.05)
        return [message.content for message in await asyncio.to_thread(queue.peek_messages, 32)]


def test_every_function_is_indexed(emulator: AzureEmulator) -> None:
    """The host knows the functions that the runtime found."""
    status, body = asyncio.run(get(emulator, "/admin/host/status"))
    assert (status, json.loads(body)["functions"]) == (
        200,
        ["chat", "item", "recover", "recover_bus", "scheduled"],
    )


def test_request_reaches_the_app_unchanged(emulator: AzureEmulator) -> None:
    """Method, path, query, headers and body reach the app as they were sent, with the host's deadline."""
    status, body = asyncio.run(
        get(emulator, "/v1/a%20b?x=1&y=%2F", method="PUT", headers={"X-Mine": "kept"}, body={"text": "héllo"})
    )
    seen = json.loads(body)
    assert (status, seen["method"], seen["path"], seen["query"]) == (200, "PUT", "/v1/a b", "x=1&y=%2F")
    assert (seen["headers"]["x-mine"], json.loads(seen["body"])) == ("kept", {"text": "héllo"})
    assert seen["extensions"]["firsttoken"]["deadline"] > 0


def test_the_more_literal_route_wins(emulator: AzureEmulator) -> None:
    """A route with a literal segment answers before the catch-all, and gets its parameters."""

    async def run() -> list[dict[str, Any]]:
        await get(emulator, "/items/blue")
        return await wait_for_messages(emulator, lambda item: item["function"] == "item")

    assert asyncio.run(run())[0]["route"] == {"name": "blue"}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_worker_answers_nothing_by_itself(emulator: AzureEmulator, path: str) -> None:
    """FastAPI's own pages are gone: those paths belong to the app like any other."""
    assert json.loads(asyncio.run(get(emulator, path))[1])["path"] == path


def test_a_method_that_no_function_takes_is_refused(emulator: AzureEmulator) -> None:
    """A method outside the binding's list never becomes an invocation."""
    assert asyncio.run(get(emulator, "/x", method="PROPFIND"))[0] == 404


def test_chunks_arrive_while_the_answer_is_written(emulator: AzureEmulator) -> None:
    """The first chunk is there before the app may write the second one."""

    async def run() -> list[bytes]:
        async with asyncio.timeout(LIMIT_SECONDS), emulator.request("GET", "/gated") as answer:
            chunks = answer.chunks()
            seen = [await anext(chunks)]
            await get(emulator, "/open")
            return [*seen, *[chunk async for chunk in chunks]]

    assert asyncio.run(run()) == [b"one", b"two"]


def test_disconnect_reaches_the_app(emulator: AzureEmulator) -> None:
    """A client that hangs up in mid-stream is seen by the app at once."""

    async def run() -> bytes:
        limit = asyncio.timeout(LIMIT_SECONDS)
        async with limit, emulator.request("GET", "/hang") as answer, aclosing(answer.chunks()) as chunks:
            assert await anext(chunks) == b"one"
        return (await get(emulator, "/gone"))[1]

    assert asyncio.run(run()) == b"gone"


def test_error_before_the_first_byte_is_a_500(emulator: AzureEmulator) -> None:
    """What the app does not catch becomes the worker's 500."""
    assert asyncio.run(get(emulator, "/fail"))[0] == 500


def test_error_after_the_first_byte_cuts_the_answer(emulator: AzureEmulator) -> None:
    """An answer that breaks in the middle ends as an incomplete one, never as a short complete one."""
    with pytest.raises(UpstreamClosedError):
        asyncio.run(get(emulator, "/cut"))


def test_queue_message_is_answered_and_deleted(emulator: AzureEmulator, storage: str) -> None:
    """A message in a real queue reaches the function decoded, with its metadata, and is gone afterwards."""
    queue = QueueClient.from_connection_string(storage, QUEUE)
    sent = queue.send_message(base64.b64encode("grüß".encode()).decode())

    async def run() -> tuple[list[dict[str, Any]], list[str]]:
        seen = await wait_for_messages(emulator, lambda item: item.get("body") == "grüß")
        return seen, await wait_for_queue(queue, 0)

    seen, left = asyncio.run(run())
    assert [(item["id"], item["attempt"]) for item in seen] == [(sent.id, 1)]
    assert seen[0]["inserted"].startswith("20")
    assert left == []


@pytest.mark.parametrize("content", [base64.b64encode(b"poison").decode(), "not base64!"])
def test_queue_message_that_fails_moves_to_the_poison_queue(
    emulator: AzureEmulator, storage: str, content: str
) -> None:
    """A message that failed maxDequeueCount times, or is encoded otherwise than configured, is kept aside."""
    queue = QueueClient.from_connection_string(storage, QUEUE)
    poison = QueueClient.from_connection_string(storage, f"{QUEUE}-poison")
    poison.clear_messages()
    queue.send_message(content)
    assert asyncio.run(wait_for_queue(poison, 1)) == [content]
    assert asyncio.run(wait_for_queue(queue, 0)) == []


def test_failed_message_was_tried_as_often_as_configured(emulator: AzureEmulator, storage: str) -> None:
    """The function sees a failing message maxDequeueCount times, with a rising dequeue count."""
    body = "poison"
    QueueClient.from_connection_string(storage, QUEUE).send_message(base64.b64encode(body.encode()).decode())

    async def run() -> list[dict[str, Any]]:
        last = await wait_for_messages(
            emulator, lambda item: item.get("body") == body and item["attempt"] == 2
        )
        return await wait_for_messages(emulator, lambda item: item.get("id") == last[-1]["id"])

    assert [item["attempt"] for item in asyncio.run(run())] == [1, 2]


def test_service_bus_message_is_decoded(emulator: AzureEmulator) -> None:
    """A Service Bus event reaches the function through the worker's own decoder."""
    metadata = {"MessageId": "m-1", "DeliveryCount": 3, "UserProperties": {"tenant": "acme"}}
    event = {"trigger": "serviceBus", "function": "recover_bus", "data": {"id": "job"}, "metadata": metadata}

    async def run() -> tuple[int, dict[str, Any]]:
        status, _ = await invoke(emulator, event)
        return status, (await wait_for_messages(emulator, lambda item: item["function"] == "recover_bus"))[-1]

    status, seen = asyncio.run(run())
    assert (status, json.loads(seen["body"]), seen["id"], seen["attempt"]) == (200, {"id": "job"}, "m-1", 3)
    assert seen["properties"] == {"tenant": "acme"}


def test_timer_is_decoded(emulator: AzureEmulator) -> None:
    """A timer event reaches the function through the worker's own decoder."""
    event = {"trigger": "timer", "function": "scheduled", "data": {"IsPastDue": True}}

    async def run() -> tuple[int, dict[str, Any]]:
        status, _ = await invoke(emulator, event)
        return status, (await wait_for_messages(emulator, lambda item: item["function"] == "scheduled"))[-1]

    status, seen = asyncio.run(run())
    assert (status, seen["past_due"]) == (200, True)


def test_a_failed_invocation_is_reported(emulator: AzureEmulator) -> None:
    """An event whose function raises answers 500 with the runtime's words."""
    event = {
        "trigger": "queue",
        "function": "recover",
        "data": "poison",
        "metadata": {"Id": "1", "DequeueCount": 1},
    }
    status, body = asyncio.run(invoke(emulator, event))
    assert (status, body) == (500, {"status": "Failure", "error": "RuntimeError: cannot be answered"})


@pytest.mark.parametrize(
    ("event", "missing"),
    [
        ({}, "'trigger'"),
        ({"trigger": "http", "url": "/"}, "'method'"),
        ({"trigger": "queue", "data": ""}, "'function'"),
    ],
)
def test_an_event_without_a_field_is_refused(
    emulator: AzureEmulator, event: dict[str, Any], missing: str
) -> None:
    """A bad event file is refused by naming the missing field."""
    with pytest.raises(ConfigError, match=missing):
        emulator.invoke(event)


APP = """
import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response
app = func.FunctionApp()
@app.route(route="a")
async def streaming(req: Request) -> Response: ...
@app.route(route="b")
async def classic(req: func.HttpRequest) -> func.HttpResponse: ...
"""


@pytest.mark.parametrize(
    ("app", "host", "expected"),
    [
        (APP, '{"version": "2.0"}', "annotation.*HttpRequest"),
        ("raise ValueError('the cause')", '{"version": "2.0"}', "ValueError: the cause"),
        ("", '{"version": "2.0"}', "Could not find top level function app"),
        (APP, '{"extensions": {"queues": {"batchSize": "many"}}}', "batchSize"),
    ],
)
def test_an_app_that_cannot_start_is_reported(tmp_path: Path, app: str, host: str, expected: str) -> None:
    """What keeps the app from being indexed is in the error, in the runtime's words."""
    (tmp_path / "function_app.py").write_text(app)
    (tmp_path / "host.json").write_text(host)
    with pytest.raises(EmulatorError, match=f"(?s){expected}"), AzureEmulator(root=tmp_path):
        pass


def test_stopping_ends_the_process(emulator: AzureEmulator) -> None:
    """Nothing is left of an emulator after its block, while another one goes on."""
    env = {"PYTHONPATH": os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])}
    with AzureEmulator(root=APPS / "azure", env=env) as second:
        group = second.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert asyncio.run(get(emulator, "/x"))[0] == 200
