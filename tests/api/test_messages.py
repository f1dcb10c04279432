"""The official Anthropic SDK, unmodified, against our endpoint on a real server with the simulated model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest
import uvicorn
from support import make_app, simulate

from firsttoken.settings import Route, SimulatedProvider

MODEL = "m"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tell the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TIME: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the endpoint on a socket, in a thread of its own."""
    provider = SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0,context_window=100000")
    app = make_app(providers={"simulated": provider}, models={MODEL: Route(target="simulated/m")})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


class Client:
    """The SDK's two clients as one: each call is made with the chosen one."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self.url = url
        self.is_async = is_async

    def create(self, **fields: Any) -> anthropic.types.Message:
        """Ask for a whole answer."""
        if not self.is_async:
            with anthropic.Anthropic(base_url=self.url, api_key="k", max_retries=0) as client:
                return client.messages.create(**_body(fields))

        async def run() -> anthropic.types.Message:
            async with anthropic.AsyncAnthropic(base_url=self.url, api_key="k", max_retries=0) as client:
                return await client.messages.create(**_body(fields))

        return asyncio.run(run())

    def stream(self, **fields: Any) -> tuple[anthropic.types.Message, list[str]]:
        """Stream an answer; return what the SDK made of it, and the types of its events."""
        if not self.is_async:
            with (
                anthropic.Anthropic(base_url=self.url, api_key="k", max_retries=0) as client,
                client.messages.stream(**_body(fields)) as stream,
            ):
                kinds = [event.type for event in stream]
                return stream.get_final_message(), kinds

        async def run() -> tuple[anthropic.types.Message, list[str]]:
            async with (
                anthropic.AsyncAnthropic(base_url=self.url, api_key="k", max_retries=0) as client,
                client.messages.stream(**_body(fields)) as stream,
            ):
                kinds = [event.type async for event in stream]
                return await stream.get_final_message(), kinds

        return asyncio.run(run())

    def ask(self, *, streamed: bool, **fields: Any) -> anthropic.types.Message:
        """Ask for an answer, streamed or whole."""
        return self.stream(**fields)[0] if streamed else self.create(**fields)


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    said = fields.pop("said", "Hello")
    return {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": said}], **fields}


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def client(url: str, request: pytest.FixtureRequest) -> Client:
    return Client(url, is_async=request.param)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def text(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_text(client: Client, streamed: bool) -> None:
    """A question is answered in words, for a reason that the SDK knows."""
    message = client.ask(streamed=streamed, said="Say naïve 東京", system="Be brief.")
    assert text(message).startswith("You said: Say naïve 東京")
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert message.id.startswith("msg_")


def test_a_stream_has_this_format_s_events(client: Client) -> None:
    """Events come in the order that the API documents; text comes in pieces."""
    _, kinds = client.stream()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("text") > 10


def test_limits_and_stop_sequences(client: Client, streamed: bool) -> None:
    """Why an answer ended is told in this format's words."""
    assert client.ask(streamed=streamed, max_tokens=3).stop_reason == "max_tokens"
    message = client.ask(streamed=streamed, said="one STOP two", stop_sequences=["STOP"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
    assert "two" not in text(message)


def test_tools(client: Client, streamed: bool) -> None:
    """Parallel calls have ids, names and arguments that fit the schema."""
    message = client.ask(streamed=streamed, said="get_weather and get_time", tools=[WEATHER, TIME])
    calls = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use"
    assert [(c.name, c.input) for c in calls] == [
        ("get_weather", {"city": "get_weather and get_time", "days": 1}),
        ("get_time", {}),
    ]
    assert len({c.id for c in calls}) == 2
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    forced = client.ask(streamed=streamed, tools=[WEATHER, TIME], tool_choice=choice)
    assert [block.name for block in forced.content if block.type == "tool_use"] == ["get_weather"]


def test_tools_over_several_turns(client: Client, streamed: bool) -> None:
    """The SDK's own blocks can be sent back with the results of their tools."""
    first = client.ask(streamed=streamed, said="get_weather and get_time", tools=[WEATHER, TIME])
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"result {position}"}
        for position, block in enumerate(first.content)
    ]
    messages: Any = [
        {"role": "user", "content": "get_weather and get_time"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    second = client.ask(streamed=streamed, messages=messages, tools=[WEATHER, TIME])
    assert text(second).startswith("The tool says: result 0result 1")
    assert second.stop_reason == "end_turn"


class City(pydantic.BaseModel):
    """What the structured answer must be."""

    name: str
    population: int
    twins: list[str]


def test_structured_output(client: Client, url: str, streamed: bool) -> None:
    """An answer fits the schema that the SDK makes of a model class."""
    message = client.ask(
        streamed=streamed,
        said="Paris",
        output_config={"format": {"type": "json_schema", "schema": City.model_json_schema()}},
    )
    assert City.model_validate_json(text(message)).name == "Paris"
    with anthropic.Anthropic(base_url=url, api_key="k") as parsing:
        messages: Any = [{"role": "user", "content": "Paris"}]
        parsed = parsing.messages.parse(model=MODEL, max_tokens=99, messages=messages, output_format=City)
    assert parsed.parsed_output == City(name="Paris", population=1, twins=["Paris"])


@pytest.mark.parametrize(
    "source",
    [
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
        {"type": "url", "url": "https://example.com/a.png"},
    ],
)
def test_images(client: Client, streamed: bool, source: Any) -> None:
    """Pictures reach the model, inline and by URL."""
    said: Any = [{"type": "text", "text": "Look"}, {"type": "image", "source": source}]
    assert "(and showed 1 image)" in text(client.ask(streamed=streamed, said=said))


def test_thinking(client: Client, streamed: bool) -> None:
    """Thoughts come before the answer, signed, and can be sent back."""
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    message = client.ask(streamed=streamed, thinking=thinking, max_tokens=2000)
    thought, answer = message.content
    assert thought.type == "thinking"
    assert thought.thinking
    assert thought.signature
    assert answer.type == "text"
    messages: Any = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "Again"},
    ]
    assert "Again" in text(client.ask(streamed=streamed, messages=messages))


def test_usage(client: Client, streamed: bool) -> None:
    """Tokens are counted; those of a cached prompt are told apart and not counted twice."""
    prompt: Any = [
        {
            "type": "text",
            "text": f"{client.is_async} {streamed} " + "word " * 4000,
            "cache_control": {"type": "ephemeral"},
        }
    ]
    first = client.ask(streamed=streamed, system=prompt).usage
    assert first.input_tokens > 0
    assert first.output_tokens > 0
    again = client.ask(streamed=streamed, system=prompt).usage
    assert again.cache_read_input_tokens
    assert again.cache_read_input_tokens > 3000
    assert again.input_tokens < 1000


def test_counted_tokens_are_those_of_usage(client: Client, url: str) -> None:
    """What the SDK can ask for before is what it is told afterwards."""
    messages: Any = [{"role": "user", "content": "How many?"}]
    with anthropic.Anthropic(base_url=url, api_key="k") as counting:
        counted = counting.messages.count_tokens(model=MODEL, messages=messages, system="Be brief.")
    assert counted.input_tokens == client.create(messages=messages, system="Be brief.").usage.input_tokens


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"model": "unknown"}, anthropic.NotFoundError, "unknown"),
        ({"max_tokens": -1}, anthropic.BadRequestError, "max_tokens"),
        (
            {"said": [{"type": "document", "source": {"type": "url", "url": "http://x"}}]},
            anthropic.BadRequestError,
            "document",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, anthropic.BadRequestError, "tools"),
        ({"extra_headers": simulate("fault=status,status=429")}, anthropic.RateLimitError, "wait"),
        ({"extra_headers": simulate("fault=status,status=529")}, anthropic.OverloadedError, "529"),
        ({"extra_headers": simulate("fault=status,status=500")}, anthropic.InternalServerError, "500"),
    ],
)
def test_errors(
    client: Client, streamed: bool, fields: dict[str, Any], error: type[anthropic.APIStatusError], said: str
) -> None:
    """The SDK raises its own kind of error, with our words and the id of the request."""
    with pytest.raises(error, match=said) as caught:
        client.ask(streamed=streamed, **fields)
    body: Any = caught.value.body
    assert (body["type"], body["request_id"][:4]) == ("error", "req_")


@pytest.mark.parametrize("fault", ["cut", "error_event", "malformed"])
def test_a_broken_stream_is_an_error(client: Client, fault: str) -> None:
    """A stream that breaks after its first token is raised, never taken for a whole answer."""
    with pytest.raises(anthropic.APIStatusError):
        client.stream(extra_headers=simulate(f"fault={fault},after=3"))
