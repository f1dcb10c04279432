"""The unmodified AWS clients, boto3 and aioboto3, against an endpoint on a real server."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aioboto3
import boto3
import botocore
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from support import make_app

from firsttoken.app import App
from firsttoken.settings import Auth, Route, Server, SimulatedProvider

KEY = "sk-test"
PIXEL = b"\x89PNG\r\n\x1a\n"
TOOL = {
    "name": "weather",
    "description": "Tell the weather",
    "inputSchema": {
        "json": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    },
}
CONFIG = Config(retries={"total_max_attempts": 1}, read_timeout=20)
Talk = Callable[..., Any]


class Endpoint:
    """An application on a server in a thread of its own."""

    def __init__(self, app: App) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


def app(**sections: Any) -> App:
    provider = SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0")
    defaults = {
        "providers": {"simulated": provider},
        "models": {"*": Route(target="simulated/*")},
        "auth": Auth(mode="on", keys={"acme": [hashlib.sha256(KEY.encode()).hexdigest()]}),
    }
    return make_app(**{**defaults, **sections})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    endpoint = Endpoint(app())
    yield endpoint.url
    endpoint.stop()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a developer sets: our API key as that of Bedrock. No file of this machine is read."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)


def client_of(url: str) -> Any:
    # A session of its own: the default one remembers the service descriptions of the first test.
    session = boto3.session.Session(region_name="us-east-1")
    return session.client("bedrock-runtime", endpoint_url=url, config=CONFIG)


def talk_sync(url: str, stream: bool, **request: Any) -> Any:
    client = client_of(url)
    try:
        if stream:
            with closing(client.converse_stream(modelId="m", **request)["stream"]) as events:
                return list(events)
        return client.converse(modelId="m", **request)
    finally:
        client.close()


def talk_async(url: str, stream: bool, **request: Any) -> Any:
    async def run() -> Any:
        session = aioboto3.Session(region_name="us-east-1")
        async with session.client("bedrock-runtime", endpoint_url=url, config=CONFIG) as client:
            if stream:
                answer = await client.converse_stream(modelId="m", **request)
                try:
                    return [event async for event in answer["stream"]]
                finally:  # a stream that broke is not closed by the client
                    answer["stream"].close()
                    await asyncio.sleep(0)
            return await client.converse(modelId="m", **request)

    return asyncio.run(run())


@pytest.fixture(params=[talk_sync, talk_async], ids=["boto3", "aioboto3"])
def talk(request: pytest.FixtureRequest, environment: None) -> Talk:
    return request.param


def user(text: str, *blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"text": text}, *blocks]}


def together(events: list[Any]) -> dict[str, Any]:
    """Put a stream together as an application does it: blocks by their number."""
    blocks: dict[int, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for event in events:
        ((kind, value),) = event.items()
        if kind == "contentBlockStart":
            start = value["start"]["toolUse"]
            blocks[value["contentBlockIndex"]] = {"toolUse": {**start, "input": ""}}
        elif kind == "contentBlockDelta":
            delta = value["delta"]
            if "toolUse" in delta:
                blocks[value["contentBlockIndex"]]["toolUse"]["input"] += delta["toolUse"]["input"]
            elif "text" in delta:
                block = blocks.setdefault(value["contentBlockIndex"], {"text": ""})
                block["text"] += delta["text"]
            else:
                thought = delta["reasoningContent"]
                block = blocks.setdefault(
                    value["contentBlockIndex"], {"reasoningContent": {"reasoningText": {}}}
                )
                inner = block["reasoningContent"]["reasoningText"]
                for name, said in thought.items():
                    inner[name] = inner.get(name, "") + said
        elif kind in ("messageStop", "metadata", "messageStart"):
            found |= value
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    found["output"] = {"message": {"role": found.pop("role"), "content": [blocks[i] for i in sorted(blocks)]}}
    return found


def ask(talk: Talk, url: str, stream: bool, **request: Any) -> dict[str, Any]:
    answer = talk(url, stream, **request)
    return together(answer) if stream else answer


@pytest.mark.parametrize("stream", [False, True])
def test_text_and_usage(talk: Talk, url: str, stream: bool) -> None:
    """The answer, why it ended, and its token counts come as Bedrock sends them."""
    answer = ask(talk, url, stream, messages=[user("Hello naïve 東京")], system=[{"text": "Be brief."}])
    message = answer["output"]["message"]
    assert message["role"] == "assistant"
    assert message["content"][0]["text"].startswith("You said: Hello naïve 東京")
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] > 20
    assert usage["cacheReadInputTokens"] == 0
    assert answer["metrics"]["latencyMs"] >= 0


@pytest.mark.parametrize("stream", [False, True])
def test_limits_and_stop_sequences(talk: Talk, url: str, stream: bool) -> None:
    """The reasons to end an answer are told apart."""
    limit = ask(talk, url, stream, messages=[user("Hi")], inferenceConfig={"maxTokens": 2})
    assert (limit["stopReason"], limit["usage"]["outputTokens"]) == ("max_tokens", 2)
    stop = {
        "inferenceConfig": {"stopSequences": ["B"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }
    stopped = ask(talk, url, stream, messages=[user("A B C")], **stop)
    assert stopped["stopReason"] == "stop_sequence"
    assert stopped["additionalModelResponseFields"] == {"stop_sequence": "B"}


@pytest.mark.parametrize("stream", [False, True])
def test_tools_over_several_turns(talk: Talk, url: str, stream: bool) -> None:
    """Parallel calls come back as blocks, and their results are read in the next turn."""
    tools = {
        "tools": [
            {"toolSpec": TOOL},
            {"toolSpec": {**TOOL, "name": "clock"}},
            {"cachePoint": {"type": "default"}},
        ]
    }
    messages = [user("What do weather and clock say?", {"cachePoint": {"type": "default"}})]
    first = ask(talk, url, stream, messages=messages, toolConfig=tools)
    assert first["stopReason"] == "tool_use"
    message = first["output"]["message"]
    calls = [block["toolUse"] for block in message["content"]]
    assert [call["name"] for call in calls] == ["weather", "clock"]
    assert calls[0]["input"] == {"city": messages[0]["content"][0]["text"], "days": 1}
    results = [
        {"toolResult": {"toolUseId": call["toolUseId"], "content": [content], "status": "success"}}
        for call, content in zip(calls, ({"text": "sunny"}, {"json": {"hour": 12}}), strict=True)
    ]
    messages += [message, {"role": "user", "content": results}]
    second = ask(talk, url, stream, messages=messages, toolConfig=tools)
    assert second["output"]["message"]["content"][0]["text"].startswith('The tool says: sunny{"hour": 12}')
    assert second["stopReason"] == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called(talk: Talk, url: str, stream: bool) -> None:
    """A tool choice is honoured."""
    config = {"tools": [{"toolSpec": TOOL}], "toolChoice": {"tool": {"name": "weather"}}}
    answer = ask(talk, url, stream, messages=[user("Hello")], toolConfig=config)
    assert answer["output"]["message"]["content"][0]["toolUse"]["name"] == "weather"


@pytest.mark.parametrize("stream", [False, True])
def test_images(talk: Talk, url: str, stream: bool) -> None:
    """Pictures arrive as bytes."""
    picture = {"image": {"format": "png", "source": {"bytes": PIXEL}}}
    answer = ask(talk, url, stream, messages=[user("Look", picture)])
    assert "(and showed 1 image)" in answer["output"]["message"]["content"][0]["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning(talk: Talk, url: str, stream: bool) -> None:
    """What the model thought comes first, with its signature, and may be sent back."""
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    messages = [user("Hello")]
    answer = ask(talk, url, stream, messages=messages, additionalModelRequestFields=thinking)
    message = answer["output"]["message"]
    thought = message["content"][0]["reasoningContent"]["reasoningText"]
    assert thought["text"]
    assert thought["signature"]
    again = ask(talk, url, stream, messages=[*messages, message, user("And?")])
    assert again["output"]["message"]["content"][0]["text"].startswith("You said: And?")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["arn:aws:bedrock:us-east-1:1:inference-profile/us.x.y-v1:0", "x.y-v1:0"])
def test_ids_and_arns_of_models(environment: None, url: str, stream: bool, model: str) -> None:
    """Ids with colons and ARNs with slashes stand in the path, percent-encoded."""
    client = client_of(url)
    method = client.converse_stream if stream else client.converse
    answer = method(modelId=model, messages=[user("Hello")])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    if stream:
        assert together(list(answer["stream"]))["stopReason"] == "end_turn"
    client.close()


@pytest.fixture
def newer_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Describe to boto3 1.40.61 what a newer one knows of Converse, in the way that AWS has for it."""
    folder = "bedrock-runtime/2023-09-30"
    installed = Path(botocore.__file__).parent / "data" / folder / "service-2.json.gz"
    model = json.loads(gzip.decompress(installed.read_bytes()))
    shapes = model["shapes"]

    def structure(**members: str) -> dict[str, Any]:
        return {"type": "structure", "members": {name: {"shape": shape} for name, shape in members.items()}}

    shapes["OutputConfig"] = structure(textFormat="OutputFormat", effort="String")
    shapes["OutputFormat"] = structure(type="String", structure="OutputFormatStructure")
    shapes["OutputFormatStructure"] = {**structure(jsonSchema="JsonSchemaDefinition"), "union": True}
    shapes["JsonSchemaDefinition"] = structure(schema="String", name="String", description="String")
    for name in ("ConverseRequest", "ConverseStreamRequest"):
        shapes[name]["members"]["outputConfig"] = {"shape": "OutputConfig"}
    shapes["CachePointBlock"]["members"]["ttl"] = {"shape": "String"}
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "service-2.json").write_text(json.dumps(model))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(talk: Talk, newer_description: None, url: str, stream: bool) -> None:
    """A schema is honoured. boto3 1.40.61 can say it with a newer service description only."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}
    written = {"jsonSchema": {"schema": json.dumps(schema), "name": "place"}}
    config = {"textFormat": {"type": "json_schema", "structure": written}}
    marked = user("Paris", {"cachePoint": {"type": "default", "ttl": "1h"}})
    answer = ask(talk, url, stream, messages=[marked], outputConfig=config)
    assert json.loads(answer["output"]["message"]["content"][0]["text"]) == {"city": "Paris", "n": 1}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"messages": [user("x" * 90_000)]}, "maximum context length"),
        ({"messages": [user("Hi")], "promptVariables": {"a": {"text": "b"}}}, "promptVariables"),
        ({"messages": []}, "messages"),
    ],
)
def test_refusals(talk: Talk, url: str, stream: bool, request_: Any, said: str) -> None:
    """The client raises Bedrock's own error with our words."""
    with pytest.raises(ClientError) as caught:
        talk(url, stream, **request_)
    response = caught.value.response
    assert response["Error"]["Code"] == "ValidationException"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert said in response["Error"]["Message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_key(talk: Talk, url: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a known key nothing is answered."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "wrong")
    with pytest.raises(ClientError) as caught:
        talk(url, stream, messages=[user("Hi")])
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


@pytest.fixture
def faulty() -> Iterator[Callable[[str], str]]:
    """Return what starts an endpoint whose model does what a profile says."""
    started: list[Endpoint] = []

    def start(profile: str, **sections: Any) -> str:
        provider = SimulatedProvider(profile=f"ttft_ms=0,itl_ms=0,{profile}", faults=True)
        started.append(Endpoint(app(providers={"simulated": provider}, **sections)))
        return started[-1].url

    yield start
    for endpoint in started:
        endpoint.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_throttling(talk: Talk, faulty: Callable[[str], str], stream: bool) -> None:
    """A target that asks to wait is the exception that clients wait for."""
    with pytest.raises(ClientError) as caught:
        talk(faulty("fault=status,status=429,retry_after=7"), stream, messages=[user("Hi")])
    response = caught.value.response
    assert response["Error"]["Code"] == "ThrottlingException"
    assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"


def test_an_answer_that_breaks(talk: Talk, faulty: Callable[[str], str]) -> None:
    """What breaks after the first frame is an exception in the stream, never a silent end."""
    with pytest.raises(EventStreamError) as caught:
        talk(faulty("fault=error_event,after=3"), stream=True, messages=[user("Hi")])
    assert caught.value.response["Error"]["Code"] == "modelStreamErrorException"
    assert "middle of its answer" in caught.value.response["Error"]["Message"]


def test_heartbeats_are_read_over(talk: Talk, faulty: Callable[..., str]) -> None:
    """Frames that keep a silent connection open are not seen by the application."""
    url = faulty("ttft_ms=120", server=Server(log=False, heartbeat_seconds=0.02))
    events = talk(url, stream=True, messages=[user("Hi")])
    assert "messageStart" in events[0]
    assert together(events)["stopReason"] == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_signed_requests_where_another_layer_authenticates(
    talk: Talk, faulty: Callable[..., str], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature cannot be verified here: it is let through where authentication is off, and is no key."""
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    answer = ask(talk, faulty("", auth=Auth(mode="off")), stream, messages=[user("Hi")])
    assert answer["stopReason"] == "end_turn"
    with pytest.raises(ClientError, match="AccessDenied"):
        talk(faulty(""), stream, messages=[user("Hi")])
