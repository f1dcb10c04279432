"""The Bedrock provider, through the whole endpoint, against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.errors import ConfigError, UpstreamAuthError
from firsttoken.providers import aws_auth
from firsttoken.providers.aws_auth import Signer, sign
from firsttoken.settings import BedrockProvider, Route, Timeouts
from firsttoken.wire import bedrock
from firsttoken.wire.eventstream import Framer

MODEL = "eu.anthropic.claude-opus-4-6-v1:0"
ARN = "arn:aws:bedrock:eu-central-1:1:application-inference-profile/abc"
WHOLE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "one two"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
    "metrics": {"latencyMs": 1},
}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}], "future": 1.5}


def event(name: str, value: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return Framer(headers)(json.dumps(value).encode())


STREAM = (
    event("messageStart", {"role": "assistant"})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "one"}})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": " two"}})
    + event("contentBlockStop", {"contentBlockIndex": 0})
    + event("messageStop", {"stopReason": "end_turn"})
    + event("metadata", {"usage": WHOLE["usage"], "metrics": {"latencyMs": 1}})
)
EXCEPTION = Framer({":message-type": "exception", ":exception-type": "throttlingException"})(
    b'{"message":"slow"}'
)


def reply(body: Any, status: str = "200 OK", content_type: str = "", more: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = content_type or (bedrock.STREAM_TYPE if isinstance(body, bytes) else "application/json")
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{more}\r\n"
    return head.encode() + data


class Target:
    """Answers each request with the same bytes and remembers what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                self.paths.append(first.split(" ")[1])
                self.headers.append(headers)
                self.bodies.append(await reader.readexactly(int(headers["content-length"])))
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Said(SimpleNamespace):
    """One answer of our endpoint, and the request that the target got."""

    answer: Answer
    target: Target
    port: int


def call(
    answer: bytes, body: Any, *, path: str = "", model: str = MODEL, headers: Any = None, **provider: Any
) -> Said:
    """Put an endpoint before a scripted target and make one call; ``path`` is that of the client's format."""

    async def run() -> Said:
        target = Target(answer)
        server = await asyncio.start_server(target.handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = {"api_key": "bedrock-key", **provider}
        app = make_app(
            providers={
                "up": BedrockProvider(region="eu-central-1", base_url=f"http://127.0.0.1:{port}", **settings)
            },
            models={"m": Route(target=f"up/{model}")},
            timeouts=Timeouts(first_chunk=5, gap=0.2),
        )
        try:
            where = {"path": path} if path else {}
            return Said(answer=await ask(app, body, headers=headers, **where), target=target, port=port)
        finally:
            await app.gateway.aclose()
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize("model", [MODEL, ARN])
@pytest.mark.parametrize("stream", [False, True])
def test_requests_and_answers_of_the_same_format_pass_byte_by_byte(stream: bool, model: str) -> None:
    """Only the path names the model; the body and the answer are what client and target wrote."""
    body = json.dumps(CONVERSE).encode()
    action = "converse-stream" if stream else "converse"
    answer = reply(STREAM) if stream else reply(WHOLE)
    said = call(answer, body, path=f"/model/m/{action}", model=model)
    assert said.target.bodies == [body]
    assert said.target.paths == [f"/model/{quote(model, safe='')}/{action}"]
    assert said.target.headers[0]["authorization"] == "Bearer bedrock-key"
    assert said.answer.body == (STREAM if stream else json.dumps(WHOLE).encode())
    assert said.answer.headers["content-type"].startswith("application/vnd" if stream else "application/json")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_other_clients_are_translated(stream: bool, swapped: bool) -> None:
    """A client of another format gets its own, whichever shape the target answers in."""
    answer = reply(STREAM) if stream is not swapped else reply(WHOLE)
    said = call(answer, chat(stream=stream, max_tokens=5))
    sent = json.loads(said.target.bodies[0])
    assert sent["messages"] == CONVERSE["messages"]
    assert sent["inferenceConfig"] == {"maxTokens": 5}
    got = said.answer.text() if stream else said.answer.json()["choices"][0]["message"]["content"]
    assert got == "one two"


def test_what_is_configured_is_added() -> None:
    """A client's own latency and tier win over the configured ones; the guardrail is the operator's."""
    configured = {
        "latency": "optimized",
        "service_tier": "flex",
        "guardrail": "gr-1",
        "guardrail_version": "3",
    }
    path = "/model/m/converse"
    sent = json.loads(call(reply(WHOLE), CONVERSE, path=path, **configured).target.bodies[0])
    guardrail = {"guardrailIdentifier": "gr-1", "guardrailVersion": "3"}
    assert sent == {
        **CONVERSE,
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "guardrailConfig": guardrail,
    }
    own = {
        **CONVERSE,
        "performanceConfig": {"latency": "standard"},
        "serviceTier": {"type": "priority"},
        "guardrailConfig": {"guardrailIdentifier": "mine", "streamProcessingMode": "async"},
    }
    sent = json.loads(call(reply(WHOLE), own, path=path, **configured).target.bodies[0])
    assert sent == {**own, "guardrailConfig": guardrail}
    sent = json.loads(call(reply(WHOLE), chat(service_tier="priority"), **configured).target.bodies[0])
    assert sent["serviceTier"] == {"type": "priority"}


CHAT_ANSWER = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}


def test_the_openai_compatible_endpoint() -> None:
    """The same service in OpenAI's words; tier and guardrail where they belong there."""
    provider = {"api": "openai", "service_tier": "flex", "guardrail": "gr-1"}
    said = call(reply(CHAT_ANSWER), chat(logprobs=True), model="openai.gpt-oss-20b-1:0", **provider)
    assert said.target.paths == ["/openai/v1/chat/completions"]
    sent, headers = json.loads(said.target.bodies[0]), said.target.headers[0]
    assert (sent["model"], sent["logprobs"], sent["service_tier"]) == ("openai.gpt-oss-20b-1:0", True, "flex")
    assert headers["x-amzn-bedrock-guardrailidentifier"] == "gr-1"
    assert headers["x-amzn-bedrock-guardrailversion"] == "DRAFT"
    assert said.answer.json()["choices"][0]["message"]["content"] == "hi"
    plain = call(reply(CHAT_ANSWER), chat(), model="x", api="openai")
    assert "x-amzn-bedrock-guardrailidentifier" not in plain.target.headers[0]


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ({"api": "openai", "latency": "optimized", "api_key": "k"}, r"providers\.up\.latency"),
        ({"api_key": "a\nb"}, r"providers\.up\.api_key"),
    ],
)
def test_what_cannot_be_configured_stops_the_start(provider: Any, said: str) -> None:
    """The message names the key."""
    with pytest.raises(ConfigError, match=said):
        make_app(
            providers={"up": BedrockProvider(region="us-east-1", **provider)},
            models={"m": Route(target="up/m")},
        )


def test_without_botocore_and_without_a_key_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signing needs the library; what to install is said before the first call."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install"):
        make_app(providers={"up": BedrockProvider(region="us-east-1")}, models={"m": Route(target="up/m")})


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (
            reply(
                {"message": "on-demand throughput isn\u2019t supported"},
                "400 Bad Request",
                more="x-amzn-errortype: ValidationException\r\n",
            ),
            400,
            "inference_profile_required",
        ),
        (
            reply(
                {"message": "wait"},
                "429 Too Many",
                more="x-amzn-errortype: ThrottlingException:http://x/\r\n",
            ),
            429,
            "rate_limit_exceeded",
        ),
        (
            reply({"__type": "AccessDeniedException", "message": "arn:1"}, "403 Forbidden"),
            502,
            "upstream_auth",
        ),
        (
            reply({"message": "x"}, "408 T", more="x-amzn-errortype: ModelTimeoutException\r\n"),
            504,
            "upstream_timeout",
        ),
        (reply({}), 502, "upstream_protocol"),
        (reply(STREAM[:150]), 502, "upstream_closed"),
        (reply(STREAM[:-1]), 200, None),
        (reply(STREAM[:150] + bytes(200)), 502, "upstream_protocol"),
        (reply(EXCEPTION), 429, "rate_limit_exceeded"),
        (reply(STREAM[:300].replace(b"one", b"two")), 502, "upstream_protocol"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_of_the_target(answer: bytes, status: int, code: str | None, stream: bool) -> None:
    """Every way to fail has its status and code, before the first byte as an answer, after it as an event."""
    got = call(answer, chat(stream=stream)).answer
    if code is None:
        assert got.status == 200
        return
    error = (got.events()[-1] if got.status == 200 else got.json())["error"]
    assert error["code"] == code
    if got.status != 200:
        assert got.status == status
    assert "arn:1" not in error["message"]


def expected_signature(said: Said, secret: str, region: str) -> str:
    """Compute the signature of a request as the specification says: no part of botocore."""
    headers, body = said.target.headers[0], said.target.bodies[0]
    _, fields = headers["authorization"].split(" ", 1)
    names = dict(field.split("=", 1) for field in fields.split(", "))["SignedHeaders"].split(";")
    path = "/".join(quote(part, safe="-_.~") for part in said.target.paths[0].split("/"))
    canonical = "\n".join(
        [
            *("POST", path, ""),
            *[f"{name}:{headers[name]}" for name in names],
            *("", ";".join(names), hashlib.sha256(body).hexdigest()),
        ]
    )
    time = headers["x-amz-date"]
    scope = f"{time[:8]}/{region}/bedrock/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials of this machine are found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize("token", ["", "session-token"])
@pytest.mark.parametrize("model", [MODEL, ARN])
def test_requests_are_signed(account: pytest.MonkeyPatch, token: str, model: str) -> None:
    """The signature is right for the bytes, the path and the headers that the target really got."""
    account.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    account.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    account.setenv("AWS_SESSION_TOKEN", token)
    said = call(reply(WHOLE), chat(), model=model, api_key="", headers={"authorization": "Bearer client"})
    headers = said.target.headers[0]
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/bedrock/aws4_request" in headers["authorization"]
    assert headers["authorization"].endswith(expected_signature(said, "secret", "eu-central-1"))
    assert headers.get("x-amz-security-token", "") == token
    assert "host" in headers["authorization"]


def test_credentials_of_a_profile(account: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever botocore finds is used."""
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = AKTEAM\naws_secret_access_key = s\n")
    account.setenv("AWS_PROFILE", "team")
    said = call(reply(WHOLE), chat(), api_key="")
    assert "Credential=AKTEAM/" in said.target.headers[0]["authorization"]


@pytest.mark.parametrize("half", [False, True])
def test_without_credentials_nothing_is_sent(account: pytest.MonkeyPatch, half: bool) -> None:
    """An operator must act; the client learns only that."""
    if half:
        account.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    said = call(reply(WHOLE), chat(), api_key="")
    assert (said.answer.status, said.answer.json()["error"]["code"]) == (502, "upstream_auth")
    assert b"credentials" in said.answer.body
    assert said.target.paths == []


class Renewable:
    """Credentials that end, as botocore's do; renewing them waits for ``gate``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.fetched = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self.seconds < (900 if refresh_in is None else refresh_in)

    def get_frozen_credentials(self) -> Any:
        assert self.gate.wait(10)
        self.fetched += 1
        if self.failure:
            raise self.failure
        return SimpleNamespace(access_key=f"AK{self.fetched}", secret_key="s", token=None)


@pytest.fixture
def renewable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Renewable]:
    found = Renewable(3600)
    monkeypatch.setattr("botocore.credentials.EnvProvider.load", lambda _: found)
    yield found
    found.gate.set()


async def key_used(signer: Signer) -> str:
    headers = dict(await signer("https://host/x", [("accept", "a")], b""))
    return headers["Authorization"].partition("Credential=")[2].partition("/")[0]


def test_credentials_are_fetched_once_for_all_who_wait(renewable: Renewable) -> None:
    """However many calls begin at once; and they are kept."""

    async def run() -> None:
        signer = Signer("bedrock", "us-east-1")
        renewable.gate.clear()
        waiting = [asyncio.create_task(key_used(signer)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        renewable.gate.set()
        assert await asyncio.gather(*waiting[1:]) == ["AK1"] * 4
        assert await key_used(signer) == "AK1"
        assert renewable.fetched == 1

    asyncio.run(run())


def test_credentials_are_renewed_ahead_of_their_end(renewable: Renewable) -> None:
    """While they last, no call waits for the new ones."""

    async def run() -> None:
        signer = Signer("bedrock", "us-east-1")
        assert await key_used(signer) == "AK1"
        renewable.seconds = 300
        renewable.gate.clear()
        assert await key_used(signer) == "AK1"
        assert await key_used(signer) == "AK1"
        renewable.gate.set()
        assert signer._renewal is not None
        await signer._renewal
        renewable.seconds = 3600
        assert await key_used(signer) == "AK2"
        assert renewable.fetched == 2

    asyncio.run(run())


def test_a_failed_renewal_hurts_only_when_the_credentials_end(renewable: Renewable) -> None:
    """Ahead of the end it is tried again later; at the end it is an error that says so."""

    async def run() -> None:
        signer = Signer("bedrock", "us-east-1")
        await key_used(signer)
        renewable.seconds, renewable.failure = 300, OSError("no network at 10.0.0.1")
        assert await key_used(signer) == "AK1"
        assert signer._renewal is not None
        await asyncio.wait([signer._renewal])
        assert await key_used(signer) == "AK1"
        renewable.seconds = 30
        with pytest.raises(UpstreamAuthError, match="OSError") as caught:
            await key_used(signer)
        assert "10.0.0.1" not in str(caught.value)

    asyncio.run(run())


def test_botocores_own_renewable_credentials_fit() -> None:
    """What `Signer` asks of credentials is what botocore's have."""
    from botocore.credentials import RefreshableCredentials

    metadata = {
        "access_key": "AK",
        "secret_key": "s",
        "token": "t",
        "expiry_time": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
    }
    found = RefreshableCredentials.create_from_metadata(metadata, lambda: metadata, "test")
    assert found.refresh_needed(None)
    assert not found.refresh_needed(aws_auth.MUST_RENEW_SECONDS)
    headers = dict(sign(found.get_frozen_credentials(), ("s3", "us-east-1"), "https://h/", [], b""))
    assert headers["X-Amz-Security-Token"] == "t"


def test_the_address_of_a_region() -> None:
    """Without a base URL it is AWS's own."""
    from firsttoken.providers.bedrock import base_url

    assert base_url(BedrockProvider(region="eu-west-1")) == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert unquote(quote(ARN, safe="")) == ARN
