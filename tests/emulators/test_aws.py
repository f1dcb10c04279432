import asyncio
import json
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firsttoken.emulators.aws import AwsEmulator, FunctionError, Options, ThrottledError
from firsttoken.errors import UpstreamClosedError
from firsttoken.providers.http import HttpClient, Timeouts

ROOT = Path(__file__).parent / "aws_app"
EVENTS = Path(__file__).parents[2] / "events" / "aws"
LIMIT = 30.0
MAX_BODY = 64 << 20


@asynccontextmanager
async def emulator(handler="app.app", **arguments):
    """Run an emulator and a client of its Function URL for as long as a test may take."""
    arguments.setdefault("root", ROOT)
    async with asyncio.timeout(LIMIT), AwsEmulator(handler=handler, **arguments) as running:
        client = Client(running)
        try:
            yield client
        finally:
            await client.http.aclose()


class Client:
    """A client of one emulator's Function URL."""

    def __init__(self, running):
        self.emulator = running
        self.http = HttpClient()

    async def open(self, path, method="GET", body=b"", headers=()):
        """Send a request; return the response as soon as its head is there."""
        limits = Timeouts(connect=LIMIT, first_byte=LIMIT, gap=LIMIT)
        url = self.emulator.url + path
        return await self.http.request(method, url, headers=list(headers), body=body, timeouts=limits)

    async def get(self, path, **arguments):
        """Send a request; return status and whole body."""
        response = await self.open(path, **arguments)
        return response.status, await response.read(MAX_BODY)


def awslambdaric(handler):
    """Return the arguments that run a handler in AWS's own runtime client."""
    return {"handler": handler, "command": [sys.executable, "-m", "awslambdaric", handler]}


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and not waited for yet by whoever inherited it


async def until(condition):
    """Wait for a condition; the test's time limit bounds it."""
    while not condition():
        await asyncio.sleep(0.01)


def test_a_piece_arrives_before_the_next_one_exists(tmp_path):
    """A client has read the first piece while the function still waits for permission to make the second."""

    async def scenario():
        async with emulator() as client:
            response = await client.open(f"/chunks?gate={tmp_path}/gate")
            pieces = response.chunks()
            assert int(await anext(pieces)) in client.emulator.environments
            (tmp_path / "gate").touch()
            assert await anext(pieces) == b"two"
            assert [piece async for piece in pieces] == []

    asyncio.run(scenario())


def test_the_prelude_becomes_status_headers_and_cookies():
    """What the function says before its body is HTTP to the client, and no byte of it is in the body."""

    async def scenario():
        async with emulator() as client:
            reader, writer = await asyncio.open_connection(
                *client.emulator.url.removeprefix("http://").split(":")
            )
            writer.write(b"GET /metadata HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    head, _, body = asyncio.run(scenario()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert {b"x-one: 1", b"set-cookie: a=1", b"set-cookie: b=2"} < set(head.split(b"\r\n"))
    assert body == b"4\r\nmade\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", '{"text": "東京"}'.encode()), ("application/octet-stream", bytes(range(256)))],
)
def test_a_request_arrives_as_it_was_sent(content_type, body):
    """Method, path, query, headers and body come through unchanged, and Lambda's variables are set."""

    async def scenario():
        async with emulator(options=Options(timeout=100, memory_mb=512)) as client:
            headers = [("content-type", content_type), ("cookie", "a=1; b=2"), ("x-two", "2")]
            _, answer = await client.get("/echo?q=1&q=2", method="POST", body=body, headers=headers)
            return json.loads(answer)

    seen = asyncio.run(scenario())
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/echo", "q=1&q=2")
    assert seen["body"].encode("latin-1") == body
    assert (seen["headers"]["cookie"], seen["headers"]["x-two"]) == ("a=1; b=2", "2")
    assert 0 < seen["left"] < 100
    environ = seen["environ"]
    assert environ["_HANDLER"] == "app.app"
    assert (environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], environ["TZ"]) == ("512", ":UTC")
    assert environ["LAMBDA_TASK_ROOT"] == str(ROOT)


def test_an_error_before_the_first_byte_is_a_502():
    """The client learns nothing but that; the environment serves the next request."""

    async def scenario():
        async with emulator() as client:
            _, before = await client.get("/pid")
            assert await client.get("/error") == (502, b'{"message":"Internal Server Error"}')
            assert await client.get("/pid") == (200, before)

    asyncio.run(scenario())


@pytest.mark.parametrize(("path", "survives"), [("/late", True), ("/crash", False)])
def test_an_answer_that_breaks_is_cut(tmp_path, path, survives):
    """After error trailers or a crash the client has the good pieces and sees that the rest is missing."""

    async def scenario():
        async with emulator() as client:
            _, before = await client.get("/pid")
            response = await client.open(f"{path}?gate={tmp_path}/gate")
            pieces = response.chunks()
            assert await anext(pieces) == b"good"
            (tmp_path / "gate").touch()
            with pytest.raises(UpstreamClosedError):
                await anext(pieces)
            status, after = await client.get("/pid")
            assert (status, after == before) == (200, survives)

    asyncio.run(scenario())


def test_a_crash_before_the_first_byte_is_a_502():
    """A process that ends without a word fails its invocation; the next one gets a new environment."""

    async def scenario():
        async with emulator() as client:
            assert (await client.get("/crash"))[0] == 502
            assert (await client.get("/pid"))[0] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("handler", "env"), [("app.missing", {}), ("no_such_module.app", {}), ("app.app", {"FAIL_AT_START": "1"})]
)
def test_a_function_that_does_not_start_is_a_502(handler, env):
    """An init error fails the invocation and leaves no environment behind."""

    async def scenario():
        async with emulator(handler, env=env) as client:
            assert (await client.get("/pid"))[0] == 502
            assert client.emulator.environments == []

    asyncio.run(scenario())


def test_a_timeout_kills_the_environment():
    """Out of time before the first byte is a 502, after it a cut answer; either way the process is gone."""

    async def scenario():
        async with emulator(options=Options(timeout=1.0)) as client:
            pid = int((await client.get("/pid"))[1])
            assert (await client.get("/hang"))[0] == 502
            await until(lambda: not _alive(pid))
            response = await client.open("/hang?start=1")
            with pytest.raises(UpstreamClosedError):
                await response.read(MAX_BODY)

    asyncio.run(scenario())


def test_environments_scale_out_and_are_used_again(tmp_path):
    """Each invocation under way has an environment of its own; warm ones serve what comes later."""

    async def scenario():
        async with emulator() as client:
            opened = await asyncio.gather(*(client.open(f"/chunks?gate={tmp_path}/gate") for _ in range(3)))
            streams = [response.chunks() for response in opened]
            pids = {int(await anext(pieces)) for pieces in streams}
            assert pids == set(client.emulator.environments)
            assert len(pids) == 3
            (tmp_path / "gate").touch()
            for pieces in streams:
                assert [piece async for piece in pieces] == [b"two"]
            for _ in range(6):
                assert int((await client.get("/pid"))[1]) in pids

    asyncio.run(scenario())


def test_beyond_the_limit_is_a_429(tmp_path):
    """Reserved concurrency: one invocation more is throttled, and served once one is free."""

    async def scenario():
        async with emulator(options=Options(max_environments=1)) as client:
            response = await client.open(f"/chunks?gate={tmp_path}/gate")
            assert (await client.get("/pid"))[0] == 429
            with pytest.raises(ThrottledError):
                await client.emulator.invoke({})
            (tmp_path / "gate").touch()
            await response.read(MAX_BODY)
            assert (await client.get("/pid"))[0] == 200

    asyncio.run(scenario())


def test_a_request_above_the_limit_is_a_413():
    """Lambda takes 6 MiB; the connection tells a larger one before it reads it."""

    async def scenario():
        async with emulator() as client:
            status, _ = await client.get("/echo", method="POST", body=b"x" * (6 * 1024 * 1024 + 1))
            assert status == 413
            assert client.emulator.environments == []

    asyncio.run(scenario())


def test_a_large_answer_streams_through():
    """A streamed answer may be larger than what Lambda buffers, at the speed of its reader."""

    async def scenario():
        async with emulator() as client:
            status, body = await client.get("/large?mib=16")
            assert (status, len(body)) == (200, 16 << 20)
            assert (await client.get("/empty")) == (204, b"")

    asyncio.run(scenario())


def test_a_client_that_leaves_does_not_stop_the_function(tmp_path):
    """As AWS documents: the invocation runs to its end, and its environment is used again."""

    async def scenario():
        async with emulator(options=Options(max_environments=1)) as client:
            response = await client.open(f"/chunks?gate={tmp_path}/gate&done={tmp_path}/done")
            pid = await anext(response.chunks())
            response.close()
            (tmp_path / "gate").touch()
            await until((tmp_path / "done").exists)
            assert await client.get("/pid") == (200, pid)

    asyncio.run(scenario())


def test_nothing_outlives_the_emulator(tmp_path):
    """At the end the app is shut down in good order, and what it started is stopped."""

    async def scenario():
        async with emulator(env={"DOWN": f"{tmp_path}/down"}) as client:
            child = int((await client.get("/child"))[1])
            (pid,) = client.emulator.environments
        assert not _alive(pid)
        await until(lambda: not _alive(child))

    asyncio.run(scenario())
    assert (tmp_path / "down").read_text() == "down"


def test_what_a_function_writes_is_forwarded():
    """The function's output goes where the emulator's log goes."""

    async def scenario(log):
        async with emulator(options=Options(log=log.fileno())) as client:
            await client.get("/pid")

    with tempfile.TemporaryFile() as log:
        asyncio.run(scenario(log))
        log.seek(0)
        assert b"asked for the pid" in log.read()


async def _collect(answer):
    return b"".join([piece async for piece in answer.body])


@pytest.mark.parametrize("name", ["chat.stream", "chat.rest", "chat.httpapi"])
def test_an_event_can_be_invoked_as_it_is(name):
    """Events of all three shapes reach the app through ``invoke``, streamed or buffered."""

    async def scenario():
        event = json.loads((EVENTS / f"{name}.json").read_text())
        event["rawPath" if "rawPath" in event else "path"] = "/metadata"
        async with emulator() as client:
            answer = await client.emulator.invoke(event)
            return answer.status, dict(answer.headers)["x-one"], await _collect(answer)

    assert asyncio.run(scenario()) == (201, "1", b"made")


def test_an_event_of_another_kind_is_ignored():
    """A queue's batch in the HTTP function is answered and logged, not crashed on."""

    async def scenario():
        async with emulator() as client:
            answer = await client.emulator.invoke((EVENTS / "recover.sqs.json").read_bytes())
            return json.loads(await _collect(answer))

    assert asyncio.run(scenario())["ignored"] is True


def test_awslambdaric_runs_unmodified():
    """AWS's own runtime client serves a plain handler: JSON, proxy shape, binary, error, too large."""

    async def scenario():
        async with emulator(**awslambdaric("plain.handler")) as client:
            answer = json.loads(await _collect(await client.emulator.invoke({"do": "json"})))
            assert answer["do"] == "json"
            assert 0 < answer["left"] <= 300_000
            response = await client.open("/proxy")
            assert (response.status, response.headers["x-one"], response.headers["set-cookie"]) == (
                202,
                "1",
                "a=1",
            )
            assert await response.read(MAX_BODY) == b"plain"
            assert await client.get("/binary") == (200, b"\xff\x00")
            status, body = await client.get("/anything")
            assert (status, json.loads(body)["do"]) == (200, "anything")
            assert (await client.get("/error"))[0] == 502
            with pytest.raises(FunctionError, match="ValueError: told to"):
                await client.emulator.invoke({"do": "error"})
            assert len(client.emulator.environments) == 1
            with pytest.raises(FunctionError, match="ResponseSizeTooLarge"):
                await client.emulator.invoke({"do": "large"})

    asyncio.run(scenario())


def test_awslambdaric_that_hangs_is_timed_out():
    """A handler that blocks its process is killed at its time-out."""

    async def scenario():
        async with emulator(**awslambdaric("plain.handler"), options=Options(timeout=1.5)) as client:
            with pytest.raises(FunctionError, match=r"Task timed out after 1\.50 seconds"):
                await client.emulator.invoke({"do": "hang"})

    asyncio.run(scenario())


SERVE = """
import sys
from pathlib import Path
from firsttoken.emulators import aws
aws.CHAT = aws.AwsEmulator.__init__.__kwdefaults__["handler"] = "app.app"
sys.exit(aws.serve("127.0.0.1", 0, Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)]
)
def test_serving_ends_with_its_environments(number, status):
    """However the serving process ends, its environments end too; if it is killed, by themselves."""

    async def scenario():
        command = [sys.executable, "-c", SERVE, str(ROOT)]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(LIMIT):
                line = (await process.stderr.readline()).decode()
                http = HttpClient()
                url = line.split()[2].removesuffix("/v1")
                response = await http.request("GET", f"{url}/pid", headers=[], body=b"")
                pid = int(await response.read(MAX_BODY))
                await http.aclose()
                process.send_signal(number)
                await process.stderr.read()
                assert await process.wait() == status
                await until(lambda: not _alive(pid))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    asyncio.run(scenario())
