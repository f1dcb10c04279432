"""Google's own SDK, unmodified, against our endpoint on a real server: only its base URL is changed."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from support import Server, make_app, simulate

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
HELLO = "Say hello: naïve façade 東京 🙂"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOKUP = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="lookup", description="Look up.", parameters_json_schema=SCHEMA),
        types.FunctionDeclaration(
            name="search",
            parameters=types.Schema(type="OBJECT", properties={"days": types.Schema(type="INTEGER")}),
        ),
    ]
)
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
MANUAL = types.AutomaticFunctionCallingConfig(disable=True)


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none"))
    listener = server.config.bind_socket()
    listener.listen()  # who comes before the server is ready waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the simulated model until the module's tests are done."""
    with served(make_app()) as address:
        yield address


class Sdk:
    """The SDK, synchronous or not, with the same few calls for both."""

    def __init__(self, url: str, kind: str) -> None:
        self._asynchronous = kind.startswith("async")
        version = kind.rpartition(" ")[2]
        options = types.HttpOptions(base_url=url, api_version=version)
        self.client = (
            genai.Client(
                vertexai=True,
                project="p",
                location="us-central1",
                credentials=Credentials(token="t"),
                http_options=options,
            )
            if "vertex" in kind
            else genai.Client(api_key="k", http_options=options)
        )

    def generate(self, contents: Any, **config: Any) -> types.GenerateContentResponse:
        asked: dict[str, Any] = {"model": "m", "contents": contents, "config": _config(config)}
        if not self._asynchronous:
            return self.client.models.generate_content(**asked)
        return self._run(lambda models: models.generate_content(**asked))

    def stream(self, contents: Any, **config: Any) -> list[types.GenerateContentResponse]:
        asked: dict[str, Any] = {"model": "m", "contents": contents, "config": _config(config)}
        if not self._asynchronous:
            return list(self.client.models.generate_content_stream(**asked))

        async def collect(models: Any) -> list[types.GenerateContentResponse]:
            return [chunk async for chunk in await models.generate_content_stream(**asked)]

        return self._run(collect)

    def _run(self, ask: Any) -> Any:
        async def run() -> Any:
            async with self.client.aio as client:
                return await ask(client.models)

        return asyncio.run(run())


def _config(fields: dict[str, Any]) -> types.GenerateContentConfig:
    headers = fields.pop("headers", None)
    options = types.HttpOptions(headers=headers) if headers else None
    return types.GenerateContentConfig(automatic_function_calling=MANUAL, http_options=options, **fields)


@pytest.fixture(params=["sync v1beta", "sync v1", "async v1beta", "sync vertex v1", "async vertex v1beta1"])
def sdk(url: str, request: pytest.FixtureRequest) -> Iterator[Sdk]:
    used = Sdk(url, request.param)
    yield used
    used.client.close()


def calls(parts: list[types.Part]) -> list[tuple[str, dict[str, Any]]]:
    return [(p.function_call.name, p.function_call.args) for p in parts if p.function_call]


def parts_of(chunks: list[types.GenerateContentResponse]) -> list[types.Part]:
    return [part for chunk in chunks for part in chunk.candidates[0].content.parts]


def test_text_and_usage(sdk: Sdk) -> None:
    """Text, reason to finish, token counts, model and id are where the SDK looks for them."""
    answer = sdk.generate(
        HELLO, system_instruction="Be kind.", temperature=0.5, max_output_tokens=500, top_k=40
    )
    assert answer.text.startswith(f"You said: {HELLO}")
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    usage = answer.usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count > 10
    assert answer.model_version == "simulated"
    assert answer.response_id.startswith("req_")


def test_stream_and_usage(sdk: Sdk) -> None:
    """A stream holds the same text in pieces; the last one has the reason to finish and the counts."""
    chunks = sdk.stream(HELLO)
    whole = sdk.generate(HELLO)
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert len(chunks) > 5
    assert [c.candidates[0].finish_reason for c in chunks if c.candidates[0].finish_reason] == ["STOP"]
    assert chunks[-1].usage_metadata == whole.usage_metadata


@pytest.mark.parametrize("stream", [False, True])
def test_tools(sdk: Sdk, stream: bool) -> None:
    """Parallel calls come with ids, names and decoded arguments, whichever way a schema is written."""
    asked = "Please call lookup and search"
    if stream:
        parts = parts_of(sdk.stream(asked, tools=[LOOKUP]))
    else:
        parts = sdk.generate(asked, tools=[LOOKUP]).candidates[0].content.parts
    assert calls(parts) == [("lookup", {"city": asked}), ("search", {"days": 1})]
    assert len({part.function_call.id for part in parts if part.function_call}) == 2


@pytest.mark.parametrize(
    ("mode", "allowed", "called"),
    [("ANY", ["search"], ["search"]), ("ANY", None, ["lookup"]), ("NONE", None, []), ("AUTO", None, [])],
)
def test_tool_config(sdk: Sdk, mode: str, allowed: list[str] | None, called: list[str]) -> None:
    """Calls can be forced and forbidden."""
    config = types.FunctionCallingConfig(mode=mode, allowed_function_names=allowed)
    answer = sdk.generate(
        "Hello", tools=[LOOKUP], tool_config=types.ToolConfig(function_calling_config=config)
    )
    assert [name for name, _ in calls(answer.candidates[0].content.parts)] == called


@pytest.mark.parametrize("with_ids", [False, True])
def test_tools_over_several_turns(sdk: Sdk, with_ids: bool) -> None:
    """What the model said goes back with the responses, with ids or without, and the model answers them."""
    question = types.Content(role="user", parts=[types.Part(text="Please call lookup and search")])
    said = sdk.generate([question], tools=[LOOKUP]).candidates[0].content
    responses = [
        types.Part(
            function_response=types.FunctionResponse(
                name=part.function_call.name,
                id=part.function_call.id if with_ids else None,
                response={"output": f"{part.function_call.name} is sunny"},
            )
        )
        for part in said.parts
    ]
    answer = sdk.generate([question, said, types.Content(role="user", parts=responses)], tools=[LOOKUP])
    assert answer.text.startswith("The tool says: lookup is sunny")
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP


@pytest.mark.parametrize("kind", ["schema", "json schema", "any"])
def test_structured_output(sdk: Sdk, kind: str) -> None:
    """The answer is JSON that fits the schema; the SDK parses it."""
    openapi = types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING", nullable=True)})
    wanted = {"schema": {"response_schema": openapi}, "json schema": {"response_json_schema": SCHEMA}}
    answer = sdk.generate("Rome", response_mime_type="application/json", **wanted.get(kind, {}))
    field = "answer" if kind == "any" else "city"
    assert json.loads(answer.text) == {field: "Rome"} or json.loads(answer.text) == {field: None}


def test_images(sdk: Sdk) -> None:
    """Pictures are seen, inline and by address."""
    inline = types.Part.from_bytes(data=PNG, mime_type="image/png")
    by_address = types.Part.from_uri(file_uri="https://example.com/a.png", mime_type="image/png")
    assert "showed 2 images" in sdk.generate(["What is this?", inline, by_address]).text


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts(sdk: Sdk, stream: bool) -> None:
    """Thoughts are parts of their own, and their signature can be sent back."""
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
    if stream:
        chunks = sdk.stream("Hello", thinking_config=thinking)
        parts, usage = parts_of(chunks), chunks[-1].usage_metadata
    else:
        answer = sdk.generate("Hello", thinking_config=thinking)
        parts, usage = answer.candidates[0].content.parts, answer.usage_metadata
    assert "".join(p.text for p in parts if p.thought) == "The last message has 1 tokens."
    assert [p.thought_signature for p in parts if p.thought_signature] == [b"simulated"]
    assert usage.thoughts_token_count > 0
    told = [
        types.Content(role="user", parts=[types.Part(text="Hi")]),
        types.Content(role="model", parts=parts),
    ]
    again = sdk.generate([*told, types.Content(role="user", parts=[types.Part(text="And?")])])
    assert again.text.startswith("You said: And?")


def test_limits_and_stop_sequences(sdk: Sdk) -> None:
    """A limit of tokens and a stop sequence end the answer, each with its reason."""
    cut = sdk.generate("Say more than four tokens", max_output_tokens=4)
    assert cut.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    stopped = sdk.generate("one two three", stop_sequences=["two"])
    assert stopped.text == "You said: one "
    # The SDK keeps the message in its mode for Vertex AI only.
    assert stopped.candidates[0].finish_message in (None, "A stop sequence was met. It was 'two'.")


def test_chats_keep_their_history(sdk: Sdk, url: str) -> None:
    """The SDK keeps a streamed answer in pieces; they are one turn again when they come back."""
    if sdk._asynchronous:
        answers = asyncio.run(_chat(Sdk(url, "async v1beta")))
    else:
        chat = sdk.client.chats.create(model="m")
        answers = []
        for said in ("one", "two"):
            chunks = list(chat.send_message_stream(said))
            answers.append((chunks[-1].usage_metadata.prompt_token_count, chunks[0].text))
    (first, _), (second, text) = answers
    assert second > first
    assert text.startswith("You")


async def _chat(sdk: Sdk) -> list[Any]:
    async with sdk.client.aio as client:
        chat = client.chats.create(model="m")
        answers = []
        for said in ("one", "two"):
            chunks = [chunk async for chunk in await chat.send_message_stream(said)]
            answers.append((chunks[-1].usage_metadata.prompt_token_count, chunks[0].text))
        return answers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("fault=status,status=429,retry_after=3", 429, "RESOURCE_EXHAUSTED"),
        ("fault=status,status=503", 503, "UNAVAILABLE"),
        ("fault=status,status=400", 400, "INVALID_ARGUMENT"),
        ("nonsense=1", 400, "INVALID_ARGUMENT"),
    ],
)
def test_errors(sdk: Sdk, stream: bool, fault: str, code: int, status: str) -> None:
    """Errors are the SDK's own, with code, status and details."""
    ask = sdk.stream if stream else sdk.generate
    with pytest.raises(errors.APIError) as caught:
        ask("Hello", headers=simulate(fault))
    assert (caught.value.code, caught.value.status) == (code, status)
    details = {
        detail["@type"].rpartition(".")[2]: detail for detail in caught.value.details["error"]["details"]
    }
    assert details["RequestInfo"]["requestId"].startswith("req_")
    if code == 429:
        assert details["RetryInfo"]["retryDelay"] == "3.000s"


def test_errors_inside_of_a_stream_are_raised(sdk: Sdk) -> None:
    """A stream that breaks ends with an error that the SDK raises: never with a clean end."""
    with pytest.raises(errors.ServerError) as caught:
        sdk.stream("Hello", headers=simulate("fault=error_event,after=3"))
    assert caught.value.status == "UNAVAILABLE"


def test_what_the_model_cannot_do_is_refused_by_name(sdk: Sdk) -> None:
    """A tool of Google's own is nothing that the simulated model has."""
    with pytest.raises(errors.ClientError) as caught:
        sdk.generate("Hello", tools=[types.Tool(google_search=types.GoogleSearch())])
    assert "tools[0].googleSearch" in str(caught.value)


def test_heartbeats_are_read_over() -> None:
    """The SDK skips the empty lines that keep a stream alive; it would take a comment for broken JSON."""
    app = make_app(server=Server(log=False, heartbeat_seconds=0.02))
    with served(app) as url:
        for kind in ("sync v1", "async v1"):
            chunks = Sdk(url, kind).stream("Hello", headers=simulate("ttft_ms=150,itl_ms=30,tokens=4"))
            assert "".join(chunk.text or "" for chunk in chunks).startswith("You said: Hello")
