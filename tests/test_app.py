"""The ASGI application: endpoints, errors, keys, limits, heartbeats and what happens when somebody leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support import Answer, ask, chat, make_app, simulate

from firsttoken.app import App
from firsttoken.auth import digest
from firsttoken.errors import ConfigError
from firsttoken.model import Call, Chunk
from firsttoken.settings import Auth, Route, Server, SimulatedProvider, Timeouts
from firsttoken.telemetry.record import Record


def run(app: App, body: Any = None, **options: Any) -> Answer:
    return asyncio.run(ask(app, body, **options))


class Scripted:
    """A model that does what a test says."""

    def __init__(self, script: Any) -> None:
        self.script = script
        self.closed = asyncio.Event()

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        try:
            async for chunk in self.script(call):
                yield chunk
        finally:
            self.closed.set()


def scripted(script: Any, **sections: Any) -> tuple[App, Scripted]:
    app = make_app(**sections)
    model = Scripted(script)
    app.gateway.routes["m"] = model
    return app, model


def test_whole_answer() -> None:
    """Without ``stream`` the answer is one JSON object with text, finish and usage."""
    answer = run(make_app(), chat("Hello there"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert body["choices"][0]["message"]["content"].startswith("You said: Hello there")
    assert body["usage"]["completion_tokens"] > 0


def test_streamed_answer_says_the_same() -> None:
    """A stream is the same answer in pieces, one write a piece, closed by the end mark."""
    app = make_app()
    whole = run(app, chat()).json()["choices"][0]["message"]["content"]
    answer = run(app, chat(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text() == whole
    assert answer.events()[-1] == "[DONE]"
    assert len(answer.pieces) > 5
    assert answer.complete


def test_models_and_health() -> None:
    """The other endpoints answer too, with a HEAD as well."""
    app = make_app()
    assert [m["id"] for m in run(app, method="GET", path="/v1/models").json()["data"]] == ["m"]
    assert run(app, method="GET", path="/v1/models/m").json()["id"] == "m"
    assert run(app, method="GET", path="/healthz").json() == {"status": "ok"}
    assert run(app, method="GET", path="/readyz").json() == {"status": "ready"}
    assert run(app, method="HEAD", path="/healthz").body == b""


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        ({"body": b"{"}, 400, "invalid_json", None),
        ({"body": {"model": "m"}}, 400, "invalid_value", "messages"),
        ({"body": chat(model="absent")}, 404, "model_not_found", "model"),
        ({"body": chat(n=2)}, 400, "unsupported_field", "n"),
        ({"body": chat(future=1)}, 400, "unsupported_field", "future"),
        ({"body": chat(logprobs=True)}, 400, "unsupported_field", "logprobs"),
        ({"body": chat(future=[[[[[[[[]]]]]]]])}, 400, "nested_too_deep", None),
        ({"body": chat("x" * 5000)}, 413, "body_too_large", None),
        ({"body": chat("x " * 900)}, 400, "context_length_exceeded", "messages"),
        ({"body": chat(), "headers": {"content-encoding": "gzip"}}, 415, "unsupported_encoding", None),
        ({"body": chat(), "headers": {"x-firsttoken-timeout": "soon"}}, 400, None, "x-firsttoken-timeout"),
        ({"body": chat(), "headers": simulate("fault=status,status=429,retry_after=1.5")}, 429, None, None),
        ({"body": chat(), "headers": simulate("fault=status,status=503")}, 503, "upstream_error", None),
        ({"body": chat(), "headers": simulate("nonsense")}, 400, None, "x-firsttoken-simulate"),
        ({"body": chat(), "headers": simulate("fault=nonsense")}, 400, None, "x-firsttoken-simulate"),
        ({"method": "GET"}, 405, "method_not_allowed", None),
        ({"path": "/nowhere"}, 404, None, None),
        ({"path": "/v1/models/absent", "method": "GET"}, 404, "model_not_found", "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_first_byte(
    request_: dict[str, Any], status: int, code: str | None, param: str | None, stream: bool
) -> None:
    """Every error has its status, the OpenAI shape, the field and the request's id; none is a 500."""
    server = Server(log=False, max_body_bytes=4096, max_json_depth=8)
    providers = {"simulated": SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0,context_window=256")}
    app = make_app(server=server, providers=providers)
    if isinstance(request_.get("body"), dict):
        request_ = {**request_, "body": {**request_["body"], "stream": stream}}
    answer = run(app, **request_)
    assert answer.status == status
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["message"]
    assert error["type"]
    if code:
        assert error["code"] == code
    assert error["param"] == param
    if status == 429:
        assert answer.headers["retry-after"] == "2"
    if status == 405:
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("fault", ["cut", "malformed", "error_event"])
def test_errors_after_the_first_byte(fault: str) -> None:
    """An answer that breaks ends with an error event and without the end mark: nobody takes it for whole."""
    answer = run(make_app(), chat(stream=True), headers=simulate(f"fault={fault},after=2,tokens=9"))
    assert answer.status == 200
    assert answer.complete
    assert "error" in answer.events()[-1]
    assert answer.events()[-1]["error"]["request_id"] == answer.headers["x-request-id"]
    assert answer.text()


def test_a_whole_answer_that_breaks_is_an_error() -> None:
    """Nothing was sent yet, so the status tells."""
    answer = run(make_app(), chat(), headers=simulate("fault=cut,after=2"))
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_closed")


@pytest.mark.parametrize("fault", ["hang", "stall"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_deadline_ends_every_wait(fault: str, stream: bool) -> None:
    """The client's own limit is kept, before and after the first byte."""
    headers = {**simulate(f"fault={fault}"), "x-firsttoken-timeout": "0.05"}
    answer = run(make_app(), chat(stream=stream), headers=headers)
    error = (answer.events()[-1] if stream and fault == "stall" else answer.json())["error"]
    assert error["code"] == "deadline_exceeded"


@pytest.mark.parametrize("source", ["configuration", "platform"])
def test_the_nearest_deadline_counts(source: str) -> None:
    """The configured limit and the platform's remaining time end a call as well."""

    async def call() -> Answer:
        app = make_app(timeouts=Timeouts(total=0.05 if source == "configuration" else 60))
        at = asyncio.get_running_loop().time() + 0.05
        extensions = {"firsttoken": {"deadline": at}} if source == "platform" else None
        return await ask(app, chat(), headers=simulate("fault=hang"), extensions=extensions)

    assert asyncio.run(call()).status == 504


@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_stops_when_the_client_leaves(stream: bool) -> None:
    """Leaving closes the model's stream at once, in the middle of a wait, and is noted."""

    async def leave() -> tuple[Scripted, list[Record], Answer]:
        gone = asyncio.Event()

        async def script(_: Call) -> AsyncGenerator[Chunk]:
            yield Chunk(text="one")
            gone.set()
            await asyncio.Event().wait()

        records: list[Record] = []
        app = make_app(records)
        model = Scripted(script)
        app.gateway.routes["m"] = model
        answer = await ask(app, chat(stream=stream), leave=gone)
        return model, records, answer

    model, records, answer = asyncio.run(leave())
    assert model.closed.is_set()
    assert records[0].disconnected
    assert not answer.complete


def test_a_cancelled_server_stays_cancelled() -> None:
    """Cancellation that is not the client's leaving is passed on, never taken for an answer."""

    async def stop() -> bool:
        started = asyncio.Event()

        async def script(_: Call) -> AsyncGenerator[Chunk]:
            started.set()
            await asyncio.Event().wait()
            yield Chunk()

        app, model = scripted(script)
        task = asyncio.create_task(ask(app, chat()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return model.closed.is_set()

    assert asyncio.run(stop())


def test_a_defect_is_answered_without_its_details(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody expected is a 500 with the request's id; the traceback is in the log only."""

    async def script(_: Call) -> AsyncGenerator[Chunk]:
        raise ZeroDivisionError("secret detail")
        yield Chunk()

    app, _ = scripted(script)
    answer = run(app, chat())
    assert answer.status == 500
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert b"secret" not in answer.body
    assert "secret detail" in capsys.readouterr().err


def test_heartbeats_fill_the_silence() -> None:
    """Comments are sent while nothing comes, start the answer if need be, and never split an event."""

    async def ask_slowly() -> Answer:
        beats = asyncio.Event()

        async def script(_: Call) -> AsyncGenerator[Chunk]:
            await beats.wait()
            yield Chunk(text="late")

        app, _ = scripted(script, server=Server(log=False, heartbeat_seconds=0.01))

        async def watch(scope: Any, receive: Any, send: Any) -> None:
            seen = 0

            async def spy(message: Any) -> None:
                nonlocal seen
                seen += message.get("body", b"").count(b": keep-alive\n\n")
                if seen >= 2:
                    beats.set()
                await send(message)

            await app(scope, receive, spy)

        return await ask(watch, chat(stream=True))

    answer = asyncio.run(ask_slowly())
    assert answer.status == 200
    assert answer.body.startswith(b": keep-alive\n\n")
    assert answer.text() == "late"


def test_no_key_is_asked_for_on_this_machine() -> None:
    """On loopback anybody may call."""
    assert run(make_app(), chat()).status == 200


KEYS = {"acme": [digest("one"), digest("two")], "other": [digest("three")]}


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        ({"authorization": "Bearer one"}, "acme"),
        ({"authorization": "bearer two"}, "acme"),
        ({"x-api-key": "three"}, "other"),
        ({"api-key": "three"}, "other"),
        ({}, None),
        ({"authorization": "Bearer nope"}, None),
        ({"authorization": "Basic one"}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer \udcff".encode("utf-8", "surrogateescape").decode("latin-1")}, None),
    ],
)
def test_keys(headers: dict[str, str], tenant: str | None) -> None:
    """Deployed, a key is needed in one of the usual headers, and it names the tenant; health stays open."""
    records: list[Record] = []
    app = make_app(records, deployed=True, auth=Auth(keys=KEYS))
    answer = run(app, chat(), headers=headers)
    assert answer.status == (200 if tenant else 401)
    assert records[0].tenant == (tenant or "")
    if not tenant:
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert run(app, method="GET", path="/healthz").status == 200
    assert run(app, method="GET", path="/v1/models").status == 401


def test_a_deployed_endpoint_without_keys_does_not_start() -> None:
    """Open by mistake is not possible; open on purpose is."""
    with pytest.raises(ConfigError, match="firsttoken key TENANT"):
        make_app(deployed=True)
    assert run(make_app(deployed=True, auth=Auth(mode="off")), chat()).status == 200


def test_records_hold_no_text() -> None:
    """One record a call, with times and counts and nothing of the prompt or the answer."""
    records: list[Record] = []
    run(make_app(records), chat("personal words", stream=True))
    row = records[0].summary()
    assert (row["status"], row["target"], row["stream"]) == (200, "simulated/m", True)
    assert row["output_tokens"] > 0
    assert row["ttft_ms"] <= row["ttlt_ms"]
    assert "personal" not in json.dumps(row)


def test_any_model_passes_to_a_wildcard_route() -> None:
    """A route named ``*`` takes every model name that no other route has."""
    app = make_app(models={"*": Route(target="simulated/*")})
    assert run(app, {**chat(), "model": "whatever"}).status == 200


def test_a_body_far_over_the_limit_is_not_read_to_its_end() -> None:
    """Reading stops at a multiple of the limit: memory and time are bounded whatever a client sends."""

    async def flood() -> tuple[int, Answer]:
        pieces = 0
        answer = Answer()

        async def receive() -> dict[str, Any]:
            nonlocal pieces
            pieces += 1
            return {"type": "http.request", "body": b"x" * 4096, "more_body": True}

        async def send(message: Any) -> None:
            answer.status = message.get("status", answer.status)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await make_app(server=Server(log=False, max_body_bytes=4096))(scope, receive, send)
        return pieces, answer

    pieces, answer = asyncio.run(flood())
    assert pieces < 12
    assert answer.status == 413


def test_a_client_that_leaves_while_sending_gets_no_answer() -> None:
    """A request that never became complete is dropped."""

    async def call() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await make_app()(scope, receive, send)
        return sent

    assert asyncio.run(call()) == []


def test_lifespan() -> None:
    """Start and stop of a server are answered."""

    async def live() -> list[str]:
        inbox = ["lifespan.startup", "lifespan.shutdown"]
        sent: list[str] = []

        async def receive() -> dict[str, Any]:
            return {"type": inbox.pop(0)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await make_app()({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
