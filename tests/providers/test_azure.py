"""The Azure provider against a scripted server, and its tokens against a managed identity on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.errors import ConfigError, UpstreamAuthError, UpstreamError
from firsttoken.model import Call
from firsttoken.providers import azure, azure_auth
from firsttoken.providers.azure_auth import Token, Tokens
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import Connection
from firsttoken.settings import AzureProvider, Route
from firsttoken.wire import openai_chat

WHOLE = {"model": "gpt-x", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
FILTERS = {"hate": {"filtered": False, "severity": "safe"}}
QUOTA = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded token rate limit"
    " of your current OpenAI S0 pricing tier. Please retry after 26 seconds."
)
BUSY = (
    "The system is currently experiencing high demand and cannot process your request. Your request exceeds"
    " the maximum usage size allowed during peak load."
)


def reply(body: bytes, status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body


def said(value: Any, status: str = "200 OK", **headers: str) -> bytes:
    return reply(json.dumps(value).encode(), status, **headers)


def refused(message: str, code: str | None, status: str, **headers: str) -> bytes:
    return said({"error": {"message": message, "code": code}}, status, **headers)


class Server:
    """Gives one scripted answer after the other, the last one again and again."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((first, headers, body))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                if b"connection: close" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


def call(server: Server, *bodies: Any, path: str = "/v1/chat/completions", **provider: Any) -> list[Answer]:
    """Put an endpoint before a scripted server and make calls."""

    async def run() -> list[Answer]:
        options = {"api_key": "secret", **provider}
        async with server.listening() as url:
            app = make_app(
                providers={"az": AzureProvider(base_url=f"{url}/openai/v1/", **options)},
                models={"m": Route(target="az/deployed")},
            )
            try:
                return [await ask(app, body, path=path) for body in bodies]
            finally:
                await app.gateway.aclose()

    return asyncio.run(run())


def test_a_request_with_a_key() -> None:
    """The v1 path, the deployment as the model, the key in Azure's header, the spillover deployment."""
    server = Server(said(WHOLE))
    (answer,) = call(server, chat(), spillover="paid")
    first, headers, body = server.requests[0]
    assert answer.status == 200
    assert first == "POST /openai/v1/chat/completions HTTP/1.1"
    assert (headers["api-key"], headers["x-ms-spillover-deployment"]) == ("secret", "paid")
    assert "authorization" not in headers
    assert json.loads(body)["model"] == "deployed"


def test_responses_api() -> None:
    """With ``api = "responses"`` the other path and format are used."""
    answer = {"model": "gpt-x", "status": "completed", "output": []}
    part = {"type": "output_text", "text": "hi", "annotations": []}
    answer["output"] = [{"type": "message", "role": "assistant", "content": [part]}]
    server = Server(said(answer))
    (got,) = call(server, chat(), api="responses")
    assert server.requests[0][0] == "POST /openai/v1/responses HTTP/1.1"
    assert got.json()["choices"][0]["message"]["content"] == "hi"


def test_content_filter_results_pass() -> None:
    """A first chunk without choices and annotations without a delta reach the client and break nothing."""
    events = [
        {"model": "", "choices": [], "prompt_filter_results": [{"content_filter_results": FILTERS}]},
        {"model": "gpt-x", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "content_filter_offsets": {"check_offset": 1}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]},
    ]
    stream = b"".join([b"data: %b\n\n" % json.dumps(event).encode() for event in events])
    server = Server(reply(stream + b"data: [DONE]\n\n", kind="text/event-stream"))
    streamed, whole = call(server, chat(stream=True), chat())
    assert streamed.body == stream + b"data: [DONE]\n\n"
    choice = whole.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hi", "content_filter")


def test_a_blocked_prompt_is_never_sent_again() -> None:
    """The client gets the target's words and which filters blocked; no other target is asked."""
    filters = {"violence": {"filtered": True, "severity": "medium"}, **FILTERS}
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filters}
    error = {
        "message": "Filtered by policy.",
        "code": "content_filter",
        "param": "prompt",
        "innererror": inner,
    }
    body = json.dumps({"error": error}).encode()
    (answer,) = call(Server(reply(body, "400 Bad Request")), chat())
    got = answer.json()["error"]
    assert (answer.status, got["code"], got["param"]) == (400, "content_filter", "prompt")
    assert got["message"] == "Filtered by policy. Filtered: violence."
    found = openai_chat.error_from(400, {}, body)
    assert (found.retryable, found.failover) == (False, False)


LIMITS = {"x_ratelimit_limit_tokens": "1000"}


@pytest.mark.parametrize(
    ("answers", "fields", "code"),
    [
        ([refused(QUOTA, "429", "429 X", **LIMITS)], {}, "rate_limit_exceeded"),
        ([refused(BUSY, "429", "429 X", **LIMITS)], {}, "system_capacity"),
        ([refused(QUOTA, "429", "429 X", **LIMITS)], {"max_tokens": 2000}, "request_too_large"),
        (
            [said(WHOLE, x_ratelimit_limit_tokens="4000"), refused(QUOTA, "429", "429 X", **LIMITS)],
            {},
            "temporary_rate_reduction",
        ),
        (
            [said(WHOLE, **LIMITS), refused(QUOTA, "429", "429 X", **LIMITS)],
            {"max_tokens": 1000},
            "rate_limit_exceeded",
        ),
    ],
    ids=["quota", "capacity", "too large", "reduced", "as ever"],
)
def test_four_kinds_of_429(answers: list[bytes], fields: dict[str, Any], code: str) -> None:
    """Quota, capacity, a lowered limit and a request above the limit are told apart by their code."""
    *_, last = call(Server(*answers), *[chat(**fields)] * len(answers))
    assert (last.status, last.json()["error"]["code"]) == (429, code)


def test_who_answered_is_noted() -> None:
    """Deployment, region and lane of an answer stand in the call's record, those of a failure too."""
    server = Server(
        said(WHOLE, x_ms_region="East US", x_ms_spillover_from_deployment="ptu", x_ms_deployment_name="paid"),
        refused("x", None, "503 X", x_ms_region="East US", x_ms_spillover_error="full"),
    )

    async def run() -> list[dict[str, str]]:
        client = HttpClient()
        notes = []
        async with server.listening() as url:
            settings = AzureProvider(base_url=url, api_key="k")
            model = azure.chat("az", settings, "d", Connection(client, Timeouts()))
            for _ in range(2):
                request, source = openai_chat.read_request(json.dumps(chat()).encode())
                deadline = asyncio.get_running_loop().time() + 10
                here = Call(request=request, source=source, id="1", deadline=deadline)
                with suppress(UpstreamError):
                    _ = [chunk async for chunk in model.stream(here)]
                notes.append(here.record.notes)
            await client.aclose()
        return notes

    assert asyncio.run(run()) == [
        {"region": "East US", "spillover_from": "ptu", "deployment": "paid"},
        {"region": "East US", "spillover_error": "full"},
    ]


class Clock:
    """A clock and a source of tokens, both in the hands of the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetched = 0
        self.open = threading.Event()
        self.open.set()
        self.broken = False

    def fetch(self) -> Token:
        assert self.open.wait(10)
        if self.broken:
            raise UpstreamAuthError("no token")
        self.fetched += 1
        return Token(f"t{self.fetched}", ends=self.now + 3600, renew=self.now + 1800)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.001)


def test_one_token_for_many_calls() -> None:
    """Calls that need a token at the same time share one fetch, even when one of them gives up."""

    async def run() -> None:
        clock = Clock()
        clock.open.clear()
        tokens = Tokens(clock.fetch, lambda: clock.now)
        waiting = [asyncio.create_task(tokens.get()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting.pop().cancel()
        clock.open.set()
        assert set(await asyncio.gather(*waiting)) == {"t1"}
        assert clock.fetched == 1

    asyncio.run(run())


def test_tokens_are_renewed_ahead() -> None:
    """Near its end a token is still used while the next one is fetched; one that ended is waited for."""

    async def run() -> None:
        clock = Clock()
        tokens = Tokens(clock.fetch, lambda: clock.now)
        assert await tokens.get() == "t1"
        clock.now += 1801
        assert await tokens.get() == "t1"
        await until(lambda: clock.fetched == 2)
        await asyncio.sleep(0)
        await until(lambda: tokens._token is not None and tokens._token.value == "t2")
        assert await tokens.get() == "t2"
        clock.now += 3600
        assert await tokens.get() == "t3"
        tokens.forget()
        assert await tokens.get() == "t4"

    asyncio.run(run())


def test_a_token_outlives_a_failure_to_renew_it() -> None:
    """What cannot be renewed is used to its end; the next attempts are spaced; then it is an error."""

    async def run() -> None:
        clock = Clock()
        tokens = Tokens(clock.fetch, lambda: clock.now)
        await tokens.get()
        clock.broken = True
        clock.now += 1801
        assert [await tokens.get() for _ in range(3)] == ["t1"] * 3
        pending = tokens._pending
        assert pending is not None
        await until(pending.done)
        assert await tokens.get() == "t1"
        assert tokens._pending is pending
        clock.now += 1800
        with pytest.raises(UpstreamAuthError):
            await tokens.get()
        clock.broken = False
        assert await tokens.get() == "t2"

    asyncio.run(run())


def test_tokens_survive_their_loop() -> None:
    """A process may run one loop after the other."""
    clock = Clock()
    tokens = Tokens(clock.fetch, lambda: clock.now)
    assert asyncio.run(tokens.get()) == "t1"
    clock.now += 3600
    assert asyncio.run(tokens.get()) == "t2"


def test_a_token_of_a_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key azure-identity asks the host's identity endpoint, once for all calls; 401 asks again."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_HEADER", "from-the-host")
    token = {"access_token": "entra", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
    msi = Server(said({**token, "resource": "https://ai.azure.com"}, connection="close"))
    denied = refused("no", "401", "401 Unauthorized")
    target = Server(said(WHOLE), said(WHOLE), denied, said(WHOLE))

    async def run() -> list[int]:
        async with msi.listening() as identity, target.listening() as url:
            monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity}/msi/token")
            app = make_app(
                providers={"az": AzureProvider(base_url=url)}, models={"m": Route(target="az/deployed")}
            )
            statuses = [(await ask(app, chat())).status for _ in range(4)]
            await app.gateway.aclose()
            return statuses

    assert asyncio.run(run()) == [200, 200, 502, 200]
    assert {headers["authorization"] for _, headers, _ in target.requests} == {"Bearer entra"}
    assert "api-key" not in target.requests[0][1]
    first, headers, _ = msi.requests[0]
    assert "resource=https://ai.azure.com" in first
    assert headers["x-identity-header"] == "from-the-host"
    assert 1 <= len(msi.requests) <= 2  # the library keeps tokens of its own


def test_no_identity_is_an_error_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client learns that there is no token, not why."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_HEADER", "from-the-host")
    told = {"error": "invalid_request", "error_description": "10.1.2.3"}
    msi = Server(said(told, "400 Bad Request", connection="close"))

    async def run() -> Answer:
        async with msi.listening() as identity:
            monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity}/msi/token")
            app = make_app(
                providers={"az": AzureProvider(base_url=identity)}, models={"m": Route(target="az/d")}
            )
            return await ask(app, chat())

    answer = asyncio.run(run())
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_auth")
    assert b"10.1.2.3" not in answer.body


def test_without_key_and_library_the_start_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which package is missing."""
    monkeypatch.setattr(azure_auth, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"providers\.az\.api_key.*azure-identity"):
        make_app(providers={"az": AzureProvider(base_url="http://x")}, models={"m": Route(target="az/d")})
