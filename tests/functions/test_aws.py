import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firsttoken.emulators.aws import AwsEmulator, function_for, invoke
from firsttoken.emulators.rie import RieEmulator
from firsttoken.errors import UpstreamConnectError
from firsttoken.providers.http import HttpClient

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events" / "aws"
FUNCTIONS = ROOT / "functions" / "aws"
LIMIT = 30.0
MAX_BODY = 1 << 20
CHAT = b'{"model": "simulated", "stream": true, "messages": [{"role": "user", "content": "Hello there"}]}'


@pytest.fixture(autouse=True)
def _open(monkeypatch):
    """No API keys, and no settings but the defaults."""
    for name in [name for name in os.environ if name.startswith("FIRSTTOKEN_") and name != "FIRSTTOKEN_RIE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FIRSTTOKEN_AUTH", "off")


POISONED = {"batchItemFailures": [{"itemIdentifier": "2e1424d4-f796-459a-8184-9c92662be6da"}]}


def load(name):
    """Return an event file."""
    return json.loads((EVENTS / f"{name}.json").read_text())


def answer(event):
    """Run an event through the function that it is for; return the body of the answer."""

    async def scenario():
        async with asyncio.timeout(LIMIT):
            return b"".join([piece async for piece in invoke(event, ROOT)])

    return asyncio.run(scenario())


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
def test_every_event_file_is_answered(name):
    """Each file under events/aws runs through its function in a real runtime and is answered."""
    body = answer(load(name))
    match name.split("."):
        case ["chat", "stream" | "rest"]:
            assert body.startswith(b"data: {")
            assert body.endswith(b"data: [DONE]\n\n")
        case ["chat", *_]:
            assert "Why is the sky blue?" in json.loads(body)["choices"][0]["message"]["content"]
        case ["models"]:
            assert [model["id"] for model in json.loads(body)["data"]] == ["simulated", "lexical"]
        case ["recover", *_]:
            assert json.loads(body) == POISONED
        case ["scheduled", *_]:
            assert json.loads(body)["healthy"] is True
        case _:
            pytest.fail(f"events/aws/{name}.json has no expectation here")


def test_a_call_that_failed_stays_in_the_queue(monkeypatch):
    """A message whose target is down comes again; the poisoned one goes on to the dead-letter queue."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    monkeypatch.setenv("FIRSTTOKEN_UPSTREAM_URL", address)
    failures = json.loads(answer(load("recover.sqs")))["batchItemFailures"]
    expected = {record["messageId"] for record in load("recover.sqs")["Records"]}
    assert {failure["itemIdentifier"] for failure in failures} == expected


def test_batches_share_one_event_loop():
    """A warm environment answers batch after batch on the loop that its connections belong to."""
    event = load("recover.sqs")
    handler, command = function_for(event)

    async def scenario():
        async with (
            asyncio.timeout(LIMIT),
            AwsEmulator(root=ROOT, handler=handler, command=command) as emulator,
        ):
            for _ in range(3):
                result = await emulator.invoke(event)
                assert json.loads(b"".join([piece async for piece in result.body])) == POISONED
            assert len(emulator.environments) == 1

    asyncio.run(scenario())


def test_chat_passes_in_awss_own_emulator():
    """The chat function under AWS's Runtime Interface Emulator: whole answer, prelude first."""

    async def scenario():
        async with asyncio.timeout(LIMIT), RieEmulator(root=ROOT, handler="functions.aws.chat.app") as rie:
            return await rie.invoke(load("chat.stream"))

    prelude, body = asyncio.run(scenario()).split(b"\0" * 8)
    assert json.loads(prelude)["headers"]["content-type"].startswith("text/event-stream")
    assert body.endswith(b"data: [DONE]\n\n")


def test_the_wrapper_starts_our_runtime():
    """``AWS_LAMBDA_EXEC_WRAPPER``: called with Lambda's command, it runs ours in the same interpreter."""
    command = [str(FUNCTIONS / "bootstrap"), sys.executable, "/var/runtime/bootstrap.py"]

    async def scenario():
        async with asyncio.timeout(LIMIT), AwsEmulator(root=ROOT, command=command) as emulator:
            result = await emulator.invoke(load("models"))
            return b"".join([piece async for piece in result.body])

    assert b"simulated" in asyncio.run(scenario())


@asynccontextmanager
async def web_adapter():
    """Run ``run.sh`` the way that Lambda Web Adapter does; yield its URL and a client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"LAMBDA_TASK_ROOT": str(ROOT), "PORT": str(port), "PATH": path}
    process = subprocess.Popen([str(FUNCTIONS / "run.sh")], env=os.environ | environ)  # noqa: ASYNC220
    client = HttpClient()
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None
            try:
                response = await client.request("GET", f"{url}/readyz", headers=[], body=b"")
                assert response.status == 200
                await response.read(MAX_BODY)
                break
            except UpstreamConnectError:
                await asyncio.sleep(0.02)
        yield url, client
    finally:
        await client.aclose()
        process.terminate()
        process.wait()


def test_the_web_adapters_script_streams():
    """The alternative with Lambda Web Adapter: the same app under uvicorn, streaming piece by piece."""

    async def scenario():
        async with asyncio.timeout(LIMIT), web_adapter() as (url, client):
            response = await client.request("POST", f"{url}/v1/chat/completions", headers=[], body=CHAT)
            return [piece async for piece in response.chunks()]

    pieces = asyncio.run(scenario())
    assert len(pieces) > 1
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", sorted(FUNCTIONS.glob("*.py")), ids=lambda path: path.name)
def test_an_entrypoint_is_short(path):
    """An entrypoint holds no logic: 40 lines at most."""
    assert len(path.read_text().splitlines()) <= 40
