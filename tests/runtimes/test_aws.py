import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsttoken.emulators.http11 import Request, response, start_server, stop_server
from firsttoken.runtimes import aws

EVENTS = Path(__file__).parents[2] / "events" / "aws"
STREAM = (EVENTS / "chat.stream.json").read_bytes()
HTTP_API = (EVENTS / "chat.httpapi.json").read_bytes()
ACCEPTED = response(202, b'{"status":"OK"}\n')
LIMIT = 10.0


class FakeRuntimeApi:
    """A Runtime API that hands out events, records what comes back piece by piece, then goes away."""

    def __init__(self, *events, refuse=0, hang_up_after=0, chunked=False):
        self.events = list(events)
        self.posts = []
        self.pieces = asyncio.Queue()
        self.refuse = refuse
        self.hang_up_after = hang_up_after
        self.chunked = chunked
        self.deadline_ms = int((time.time() + 1000) * 1000)
        self.connections = 0
        self._tasks = set()

    async def __aenter__(self):
        self._server = await start_server(self._answer, "127.0.0.1", 0, self._tasks)
        return self

    async def __aexit__(self, *_):
        await stop_server(self._server, self._tasks)

    @property
    def address(self):
        """Where it listens."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _answer(self, request: Request, writer):
        path = request.target.removeprefix("/2018-06-01/runtime")
        if path == "/invocation/next":
            return self._next(writer)
        if path == "/restore/next":
            self.posts.append(SimpleNamespace(path=path))
            writer.write(response(200, b""))
            return True
        post = SimpleNamespace(path=path, headers=request.headers, pieces=[], trailers=request.trailers)
        self.posts.append(post)
        async for piece in request.body():
            post.pieces.append(piece)
            self.pieces.put_nowait(piece)
            if len(post.pieces) == self.hang_up_after:
                self.hang_up_after = 0
                return False
        post.trailers = request.trailers
        writer.write(response(self.refuse, b"refused") if self.refuse else ACCEPTED)
        return True

    def _next(self, writer):
        if not self.events:
            return False
        number = len(self.posts)
        fields = {
            "Lambda_Runtime_Aws_Request_Id": f"request-{number}",
            "Lambda_Runtime_Deadline_Ms": str(self.deadline_ms),
            "Lambda_Runtime_Trace_Id": f"trace-{number}",
        }
        event = self.events.pop(0)
        whole = response(200, event, **fields)
        if self.chunked:
            head = whole[: -len(event)].replace(b"Content-Length", b"X-Length")[:-2]
            middle = len(event) // 2
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (event[:middle], event[middle:]))
            whole = head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        writer.write(whole)
        return True


def serve(app, monkeypatch, *events, **options):
    """Run the runtime over the events; return the fake Runtime API with what it recorded."""

    async def scenario():
        async with FakeRuntimeApi(*events, **options) as api, asyncio.timeout(LIMIT):
            monkeypatch.setitem(sys.modules, "app_under_test", SimpleNamespace(app=app))
            api.status = await aws.run(api.address, "app_under_test.app")
            return api

    return asyncio.run(scenario())


def answering(*pieces, status=200, headers=(), error=None):
    """Return an app that answers with these pieces, then raises ``error`` if there is one."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        if pieces:
            await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            more = error is not None or number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        if error:
            raise error

    return app


def test_each_message_is_one_chunk(monkeypatch):
    """A streamed answer: the prelude leaves with the first piece, each later message is a chunk."""
    api = serve(answering(b"one", b"two", b"three", headers=[(b"x-a", b"b")]), monkeypatch, STREAM)
    (post,) = api.posts
    assert post.path == "/invocation/request-0/response"
    assert post.headers["lambda-runtime-function-response-mode"] == "streaming"
    assert post.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    start, *rest = post.pieces
    metadata, body = start.split(b"\0" * 8)
    assert json.loads(metadata) == {"statusCode": 200, "headers": {"x-a": "b"}}
    assert [body, *rest] == [b"one", b"two", b"three"]
    assert post.trailers == {}


def test_a_piece_leaves_before_the_next_one_exists(monkeypatch):
    """The first piece has arrived at the Runtime API while the app still waits to make the second."""

    async def scenario():
        async with FakeRuntimeApi(STREAM) as api, asyncio.timeout(LIMIT):
            arrived = asyncio.Event()

            async def app(scope, receive, send):
                if scope["type"] != "http":
                    raise NotImplementedError
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
                await arrived.wait()
                await send({"type": "http.response.body", "body": b"second"})

            monkeypatch.setitem(sys.modules, "app_under_test", SimpleNamespace(app=app))
            runtime = asyncio.create_task(aws.run(api.address, "app_under_test.app"))
            assert (await api.pieces.get()).endswith(b"first")
            arrived.set()
            assert await api.pieces.get() == b"second"
            await runtime

    asyncio.run(scenario())


def test_an_empty_first_piece_still_sends_the_status(monkeypatch):
    """Status and headers need no body to leave."""
    api = serve(answering(b"", b"late", status=202), monkeypatch, STREAM)
    assert json.loads(api.posts[0].pieces[0].rstrip(b"\0"))["statusCode"] == 202
    assert api.posts[0].pieces[1:] == [b"late"]


def test_an_http_api_gets_one_json_answer(monkeypatch):
    """A gateway that cannot stream gets the collected answer as a proxy response."""
    api = serve(answering(b"one", b"two"), monkeypatch, HTTP_API)
    (post,) = api.posts
    assert "lambda-runtime-function-response-mode" not in post.headers
    assert json.loads(b"".join(post.pieces)) == {
        "statusCode": 200,
        "headers": {},
        "body": "onetwo",
        "isBase64Encoded": False,
    }


def test_the_mode_is_configurable(monkeypatch):
    """``FIRSTTOKEN_LAMBDA_RESPONSE`` holds for every event."""
    monkeypatch.setenv("FIRSTTOKEN_LAMBDA_RESPONSE", "buffered")
    api = serve(answering(b"one"), monkeypatch, STREAM)
    assert json.loads(b"".join(api.posts[0].pieces))["body"] == "one"


@pytest.mark.parametrize("event", [STREAM, HTTP_API])
def test_an_error_before_the_first_byte_fails_the_invocation(monkeypatch, capsys, event):
    """Lambda is told the error, the log gets the traceback, the runtime goes on."""
    api = serve(answering(error=ValueError("no")), monkeypatch, event, event)
    assert [post.path for post in api.posts] == ["/invocation/request-0/error", "/invocation/request-1/error"]
    body = json.loads(b"".join(api.posts[0].pieces))
    assert (body["errorType"], body["errorMessage"]) == ("ValueError", "no")
    assert api.posts[0].headers["lambda-runtime-function-error-type"] == "ValueError"
    logged = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (logged["level"], logged["requestId"]) == ("ERROR", "request-0")
    assert any("raise error" in line for line in logged["stackTrace"])


def test_an_error_after_the_first_byte_ends_in_trailers(monkeypatch):
    """The pieces sent stay, the stream ends with the error as base64 JSON, the runtime goes on."""
    api = serve(answering(b"good", error=ValueError("late")), monkeypatch, STREAM, STREAM)
    assert len(api.posts) == 2
    post = api.posts[0]
    assert post.pieces[0].endswith(b"good")
    assert post.trailers["lambda-runtime-function-error-type"] == "ValueError"
    error = json.loads(base64.b64decode(post.trailers["lambda-runtime-function-error-body"]))
    assert error["errorMessage"] == "late"


def test_an_answer_left_open_is_an_error(monkeypatch):
    """An app that returns in mid-answer has failed, and the client must not take its answer for complete."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    api = serve(app, monkeypatch, STREAM)
    assert api.posts[0].trailers["lambda-runtime-function-error-type"] == "IncompleteAnswerError"


def test_the_app_sees_deadline_body_and_trace(monkeypatch):
    """The app gets Lambda's deadline on its own clock, less the reserve, body and the trace id."""
    seen = {}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        seen["left"] = scope["extensions"]["firsttoken"]["deadline"] - asyncio.get_running_loop().time()
        seen["id"] = scope["extensions"]["firsttoken"]["request_id"]
        seen["body"] = await receive()
        seen["trace"] = os.environ["_X_AMZN_TRACE_ID"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"."})
        seen["end"] = await receive()

    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    serve(app, monkeypatch, STREAM)
    monkeypatch.delenv("_X_AMZN_TRACE_ID")
    assert 900 < seen["left"] < 1000 - aws.RESERVE
    assert (seen["id"], seen["trace"]) == ("request-0", "trace-0")
    assert json.loads(seen["body"]["body"])["stream"] is True
    assert seen["end"] == {"type": "http.disconnect"}


def test_a_reader_that_leaves_is_a_disconnect(monkeypatch):
    """The Runtime API ends the response: the app is told, may still write, and the next one is served."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        if not seen:
            seen.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"two"})

    api = serve(app, monkeypatch, STREAM, STREAM, hang_up_after=1)
    assert seen == ["http.disconnect"]
    assert len(api.posts) == 2
    assert api.posts[1].pieces[-1] == b"two"


def test_waiting_for_a_disconnect_can_be_given_up(monkeypatch):
    """An app may cancel its wait for a disconnect; the answer goes on."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        await receive()
        waiting = asyncio.create_task(receive())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        waiting.cancel()
        await send({"type": "http.response.body", "body": b"two"})

    assert serve(app, monkeypatch, STREAM).posts[0].pieces[-1] == b"two"


def test_a_refused_answer_is_logged(monkeypatch, capsys):
    """The Runtime API refuses an answer (too large, say): the log says so and the runtime goes on."""
    api = serve(answering(b"much"), monkeypatch, HTTP_API, HTTP_API, refuse=413)
    assert len(api.posts) == 2
    assert "413" in json.loads(capsys.readouterr().err.splitlines()[0])["message"]


def test_an_unknown_event_is_ignored(monkeypatch, capsys):
    """Whatever else arrives gets a small answer and a line in the log."""
    api = serve(answering(b"x"), monkeypatch, b'{"Records": []}', STREAM)
    assert json.loads(b"".join(api.posts[0].pieces))["ignored"] is True
    assert len(api.posts) == 2
    assert "Records" in json.loads(capsys.readouterr().err.splitlines()[0])["message"]


def test_a_chunked_event_is_read(monkeypatch):
    """The Runtime API may send an event in chunks."""
    assert serve(answering(b"x"), monkeypatch, STREAM, chunked=True).posts[0].pieces[0].endswith(b"x")


def test_state_of_the_startup_reaches_each_request(monkeypatch):
    """Each request sees a copy of what the app's start-up left."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["n"] = 1
            await send({"type": "lifespan.startup.complete"})
            await receive()
            seen.append("down")
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(scope["state"]["n"])
        scope["state"]["n"] = 2
        await answering(b"x")(scope, receive, send)

    serve(app, monkeypatch, STREAM, STREAM)
    assert seen == [1, 1, "down"]


@pytest.mark.parametrize(
    ("handler", "environ", "message"),
    [
        ("no.such.module.app", {}, "No module named"),
        ("json.no_such_name", {}, "no callable"),
        ("json.decoder.NaN", {}, "no callable"),
        ("app", {}, "expected module.attribute"),
        ("json.loads", {"FIRSTTOKEN_LAMBDA_RESPONSE": "fast"}, "expected one of auto, stream, buffered"),
    ],
)
def test_what_cannot_be_loaded_is_reported(monkeypatch, handler, environ, message):
    """A wrong handler or setting is an init error, and the process ends with status 1."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    async def scenario():
        async with FakeRuntimeApi() as api, asyncio.timeout(LIMIT):
            assert await aws.run(api.address, handler) == 1
            return api.posts

    (post,) = asyncio.run(scenario())
    assert post.path == "/init/error"
    assert message in json.loads(b"".join(post.pieces))["errorMessage"]


@pytest.mark.parametrize(
    "handler", ["json.decoder.scanstring", "json/decoder.scanstring", "json.decoder:scanstring"]
)
def test_a_handler_may_be_written_three_ways(handler):
    """Dots, slashes and a colon name the same app."""
    assert aws.load_app(handler) is json.decoder.scanstring


def _hooks(before=(), after=()):
    return SimpleNamespace(
        get_before_snapshot=lambda: [(hook, (), {}) for hook in before],
        get_after_restore=lambda: [(hook, (), {}) for hook in after],
    )


def test_a_snapshot_is_taken_before_the_first_invocation(monkeypatch):
    """SnapStart: hooks run around the wait for the restore, the last registered before-hook first."""
    order = []
    module = _hooks([lambda: order.append("b1"), lambda: order.append("b2")], [lambda: order.append("a1")])
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", module)
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    api = serve(answering(b"x"), monkeypatch, STREAM)
    assert order == ["b2", "b1", "a1"]
    assert [post.path.rpartition("/")[0] for post in api.posts] == ["/restore", "/invocation/request-1"]


@pytest.mark.parametrize(
    ("when", "path"), [("before", ["/init/error"]), ("after", ["/restore/next", "/restore/error"])]
)
def test_a_failed_hook_stops_the_runtime(monkeypatch, when, path):
    """SnapStart: an error in a hook is reported where Lambda expects it, and nothing is served."""

    def broken():
        raise ValueError("hook")

    monkeypatch.setitem(sys.modules, "snapshot_restore_py", _hooks(**{when: [broken]}))
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    api = serve(answering(b"x"), monkeypatch, STREAM)
    assert [post.path for post in api.posts] == path
    assert api.status == 1


def test_outside_of_lambda_it_says_what_to_run(monkeypatch, capsys):
    """Started by hand, it points to the emulator."""
    monkeypatch.delenv("AWS_LAMBDA_RUNTIME_API", raising=False)
    assert aws.main([]) == 2
    assert "firsttoken serve --cloud aws" in capsys.readouterr().err


def test_a_runtime_api_that_is_not_there_ends_the_process(monkeypatch):
    """No Runtime API, no work: exit status 1 instead of a loop."""
    monkeypatch.setitem(sys.modules, "app_under_test", SimpleNamespace(app=answering(b"x")))
    assert asyncio.run(aws.run("127.0.0.1:1", "app_under_test.app")) == 1
