import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firsttoken import config
from firsttoken.emulators.aws import AwsEmulator, function_for, invoke
from firsttoken.emulators.rie import RieEmulator
from firsttoken.errors import UpstreamConnectError
from firsttoken.gateway import Gateway
from firsttoken.providers.http import HttpClient

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events" / "aws"
FUNCTIONS = ROOT / "functions" / "aws"
LIMIT = 30.0
MAX_BODY = 1 << 20
CHAT = b'{"model": "simulated", "stream": true, "messages": [{"role": "user", "content": "Hello there"}]}'


@pytest.fixture(autouse=True)
def _open(monkeypatch, tmp_path):
    """No API keys, no settings but the defaults, and files of its own."""
    for name in [name for name in os.environ if name.startswith("FIRSTTOKEN_") and name != "FIRSTTOKEN_RIE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FIRSTTOKEN_AUTH", "off")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


NONE_FAILED = {"batchItemFailures": []}


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
            assert json.loads(body) == NONE_FAILED
        case ["scheduled", *_]:
            assert json.loads(body)["healthy"] is True
        case _:
            pytest.fail(f"events/aws/{name}.json has no expectation here")


@pytest.fixture
def files(monkeypatch, tmp_path):
    """A store and a queue in files, which the functions share with the test."""
    for kind in ("store", "queue"):
        monkeypatch.setenv(f"FIRSTTOKEN_{kind.upper()}__KIND", "sqlite")
        monkeypatch.setenv(f"FIRSTTOKEN_{kind.upper()}__PATH", str(tmp_path / f"{kind}.sqlite"))
    monkeypatch.setenv("FIRSTTOKEN_STORE__TIMEOUT", "10")


async def state():
    """What became of the job in the event file, and of its queue."""
    gateway = Gateway(config.load())
    try:
        job = await gateway.jobs.get("example", "job-0001")
        return job.state, await gateway.queue.depth(), await gateway.queue.dead(10)
    finally:
        await gateway.aclose()


def test_a_batch_is_answered_and_its_poison_buried(files):
    """Both messages are acknowledged: one is done, and one is a dead letter that says why."""
    assert json.loads(answer(load("recover.sqs"))) == NONE_FAILED
    job, depth, (dead,) = asyncio.run(state())
    assert (job, depth.waiting, depth.delayed) == ("done", 0, 0)
    assert dead.body == b"this is not JSON"
    assert "expected" in dead.reason


def test_an_outage_keeps_the_batch_out_of_the_dead_letters(files, monkeypatch):
    """A message whose target is down is sent again with a delay: no delivery that SQS counts is used up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    monkeypatch.setenv("FIRSTTOKEN_UPSTREAM_URL", address)
    assert json.loads(answer(load("recover.sqs"))) == NONE_FAILED
    job, depth, dead = asyncio.run(state())
    assert (job, depth.waiting, depth.delayed) == ("queued", 0, 1)
    assert [letter.body for letter in dead] == [b"this is not JSON"]


def test_without_the_store_a_batch_stays_in_the_queue(files, monkeypatch, tmp_path):
    """What cannot be written down is not acknowledged; the poison needs no store."""
    monkeypatch.setenv("FIRSTTOKEN_STORE__PATH", str(tmp_path / "missing" / "store.sqlite"))
    failures = json.loads(answer(load("recover.sqs")))["batchItemFailures"]
    assert [failure["itemIdentifier"] for failure in failures] == [
        load("recover.sqs")["Records"][0]["messageId"]
    ]


def test_without_a_queue_a_batch_stays_where_it_is(monkeypatch):
    """Where the function was deployed without a queue of its own, its messages are left to SQS's own rule."""

    async def scenario():
        handler, command = function_for(load("recover.sqs"))
        async with (
            asyncio.timeout(LIMIT),
            AwsEmulator(root=ROOT, handler=handler, command=command) as emulator,
        ):
            result = await emulator.invoke(load("recover.sqs"))
            return json.loads(b"".join([piece async for piece in result.body]))

    failures = asyncio.run(scenario())["batchItemFailures"]
    expected = [record["messageId"] for record in load("recover.sqs")["Records"]]
    assert [failure["itemIdentifier"] for failure in failures] == expected


def test_batches_share_one_event_loop(files):
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
                assert json.loads(b"".join([piece async for piece in result.body])) == NONE_FAILED
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
