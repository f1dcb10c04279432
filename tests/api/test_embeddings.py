"""``POST /v1/embeddings``: the official SDK, limits, errors, deadlines, and clients that leave."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvicorn
from support import Answer, ask, make_app

from firsttoken.app import App
from firsttoken.config import load
from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, pack, unpack
from firsttoken.errors import ConfigError, UpstreamRateLimitError
from firsttoken.gateway import Gateway
from firsttoken.settings import (
    AnthropicProvider,
    Auth,
    Embedding,
    LocalProvider,
    Route,
    Server,
    Settings,
    Timeouts,
)
from firsttoken.telemetry.record import Record

PATH = "/v1/embeddings"
LOCAL: dict[str, Any] = {
    "providers": {"local": LocalProvider()},
    "models": {},
    "embeddings": {"e": Embedding(target="local/lexical")},
}


def run(body: Any, records: list[Record] | None = None, **options: Any) -> Answer:
    sections = {name: options.pop(name) for name in ("server", "timeouts", "auth") if name in options}
    deployed = options.pop("deployed", False)
    return asyncio.run(
        ask(make_app(records, deployed=deployed, **LOCAL, **sections), body, path=PATH, **options)
    )


class Scripted:
    """An embedder that does what a test says."""

    def __init__(self, script: Callable[[EmbedCall], Awaitable[Embeddings]]) -> None:
        self.script = script
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()

    async def embed(self, call: EmbedCall) -> Embeddings:
        self.started.set()
        try:
            return await self.script(call)
        finally:
            self.stopped.set()


def scripted(script: Callable[[EmbedCall], Awaitable[Embeddings]], **sections: Any) -> tuple[App, Scripted]:
    app = make_app(**LOCAL, **sections)
    embedder = Scripted(script)
    app.gateway.embedders["e"] = embedder
    return app, embedder


async def forever(_: EmbedCall) -> Embeddings:
    await asyncio.Event().wait()
    raise AssertionError


@contextmanager
def serving(app: App) -> Iterator[str]:
    """Serve ``app`` on a free port of loopback."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = start
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize("encoding", [openai.NOT_GIVEN, "float", "base64"])
def test_the_official_sdk(encoding: Any) -> None:
    """The SDK, sync and async, gets the same vectors: as base64, its default, and as numbers."""
    texts = ["Zürich in spring", "東京", "spring in Zürich"]
    with serving(make_app(**LOCAL)) as url:
        with openai.OpenAI(base_url=url, api_key="any") as client:
            answer = client.embeddings.create(
                model="e", input=texts, encoding_format=encoding, dimensions=128
            )

        async def again() -> Any:
            async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
                return await client.embeddings.create(
                    model="e", input=texts, encoding_format=encoding, dimensions=128
                )

        other = asyncio.run(again())
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        vectors = [unpack(base64.b64decode(vector)) for vector in vectors]
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert [item.embedding for item in other.data] == [item.embedding for item in answer.data]
    assert {len(vector) for vector in vectors} == {128}
    near, far = (sum(map(float.__mul__, vectors[0], map(float, vectors[n]))) for n in (2, 1))
    assert near > 0.9
    assert far < 0.5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_the_sdk_reads_our_errors() -> None:
    """The SDK raises its own error for a wrong text, with the field and the code."""
    with serving(make_app(**LOCAL)) as url, openai.OpenAI(base_url=url, api_key="any") as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="e", input=["a", ""])
        assert (caught.value.param, caught.value.code) == ("input[1]", "invalid_value")
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="absent", input="a")


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        ({"body": b"{"}, 400, "invalid_json", None),
        ({"body": {"model": "e"}}, 400, "invalid_value", "input"),
        ({"body": {"model": "e", "input": ["a", "b", ""]}}, 400, "invalid_value", "input[2]"),
        ({"body": {"model": "e", "input": ["a"] * 2049}}, 400, "invalid_value", "input"),
        ({"body": {"model": "e", "input": [1, 2]}}, 400, "unsupported_field", "input"),
        ({"body": {"model": "e", "input": "a", "future": 1}}, 400, "unsupported_field", "future"),
        ({"body": {"model": "e", "input": "a", "dimensions": 9}}, 400, "unsupported_field", "dimensions"),
        ({"body": {"model": "e", "input": "a", "x": [[[[[[[[]]]]]]]]}}, 400, "nested_too_deep", None),
        ({"body": {"model": "absent", "input": "a"}}, 404, "model_not_found", "model"),
        ({"body": {"model": "e", "input": "a" * 20_000}}, 413, "body_too_large", None),
        ({"body": {}, "method": "GET"}, 405, "method_not_allowed", None),
    ],
)
def test_errors(request_: dict[str, Any], status: int, code: str, param: str | None) -> None:
    """Every error has its status, the OpenAI shape, the field and the request's id; none is a 500."""
    server = Server(log=False, max_body_bytes=16_384, max_json_depth=8)
    answer = run(**request_, server=server)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert error["request_id"] == answer.headers["x-request-id"]


def test_what_is_recorded() -> None:
    """The record tells model, target and tokens, and never a text."""
    records: list[Record] = []
    answer = run({"model": "e", "input": ["a secret", "b"]}, records)
    (record,) = records
    assert (record.model, record.target, record.status) == ("e", "local/lexical", 200)
    assert record.input_tokens == answer.json()["usage"]["prompt_tokens"]
    assert "secret" not in str(record.summary())


def test_keys() -> None:
    """A deployed endpoint asks for a key, as it does for chat."""
    answer = run({"model": "e", "input": "a"}, deployed=True, auth=Auth(keys={"t": ["0" * 64]}))
    assert answer.status == 401


def test_the_deadline() -> None:
    """A target that takes too long is left, with the error that says so."""

    async def check() -> None:
        app, embedder = scripted(forever, timeouts=Timeouts(total=0.05))
        answer = await ask(app, {"model": "e", "input": "a"}, path=PATH)
        assert (answer.status, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert embedder.stopped.is_set()

    asyncio.run(check())


def test_a_client_that_leaves() -> None:
    """The work stops at once, nothing is answered, and the record says that nobody was there."""

    async def check() -> None:
        leave = asyncio.Event()
        app, embedder = scripted(forever)
        records: list[Record] = []
        app._log = records.append
        asked = asyncio.create_task(ask(app, {"model": "e", "input": "a"}, path=PATH, leave=leave))
        await asyncio.wait_for(embedder.started.wait(), 5)
        leave.set()
        answer = await asked
        assert embedder.stopped.is_set()
        assert (answer.status, records[0].disconnected) == (0, True)

    asyncio.run(check())


def test_errors_of_the_target() -> None:
    """A target's wish to wait reaches the client as a status and a header."""

    async def refuse(_: EmbedCall) -> Embeddings:
        raise UpstreamRateLimitError("The target asks to wait.", retry_after=1.5)

    app, _ = scripted(refuse)
    answer = asyncio.run(ask(app, {"model": "e", "input": "a"}, path=PATH))
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")


def test_every_other_name() -> None:
    """A route named ``*`` takes every model's name; without routes the error says so."""
    everything = {**LOCAL, "embeddings": {"*": Embedding(target="local/lexical")}}
    answer = asyncio.run(ask(make_app(**everything), {"model": "any", "input": "a"}, path=PATH))
    assert answer.json()["model"] == "lexical-1"
    nothing = asyncio.run(ask(make_app(), {"model": "any", "input": "a"}, path=PATH))
    assert nothing.status == 404
    assert "none is configured" in nothing.json()["error"]["message"]


def test_the_simulated_provider_embeds_too() -> None:
    """The simulated provider stands behind an embedding route as it does behind a model."""
    app = make_app(embeddings={"e": Embedding(target="simulated/any")})
    answer = asyncio.run(ask(app, {"model": "e", "input": "a"}, path=PATH))
    assert (answer.status, answer.json()["model"]) == (200, "simulated")


def test_a_call_without_http() -> None:
    """A library's user embeds through the gateway, and gets packed vectors."""

    async def check() -> None:
        gateway = Gateway(Settings(**LOCAL))
        deadline = asyncio.get_running_loop().time() + 5
        request = EmbedRequest(model="e", inputs=("a", "b"))
        answer = await gateway.embed(EmbedCall(request=request, deadline=deadline))
        assert [len(vector) for vector in answer.vectors] == [384 * 4] * 2
        assert answer.vectors[0] == pack(unpack(answer.vectors[0]))

    asyncio.run(check())


@pytest.mark.parametrize(
    ("target", "message"), [("claude/m", "has no embeddings"), ("local/unknown", "lexical, static")]
)
def test_targets_that_cannot_embed(target: str, message: str) -> None:
    """A route to what has no embeddings stops the start."""
    providers = {"claude": AnthropicProvider(), "local": LocalProvider()}
    with pytest.raises(ConfigError, match=message):
        Gateway(Settings(providers=providers, embeddings={"e": Embedding(target=target)}))


def test_a_local_provider_has_no_chat_models() -> None:
    """A chat route to an embedder stops the start."""
    with pytest.raises(ConfigError, match="only embeds"):
        Gateway(Settings(providers={"local": LocalProvider()}, models={"m": Route(target="local/lexical")}))


def test_configuration(tmp_path: Any) -> None:
    """Routes stand in ``[embeddings.NAME]``; without any configuration there is the lexical one."""
    file = tmp_path / "firsttoken.toml"
    file.write_text('[providers.l]\nkind = "local"\ndimensions = 256\n[embeddings.e]\ntarget = "l/lexical"\n')
    settings = load(file, {})
    assert (settings.embeddings, settings.models) == ({"e": Embedding(target="l/lexical")}, {})
    file.write_text('[providers.l]\nkind = "local"\n[embeddings.e]\ntarget = "x/lexical"\n')
    with pytest.raises(ConfigError, match=r"embeddings\.e\.target: no provider is named 'x'"):
        load(file, {})
    file.write_text("")
    assert load(file, {}).embeddings == {"lexical": Embedding(target="local/lexical")}
