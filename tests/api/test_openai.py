"""The official OpenAI SDK, unmodified, against our endpoint on a real server with the simulated model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import openai
import pydantic
import pytest
import uvicorn
from support import make_app, simulate

from firsttoken.settings import Route, SimulatedProvider

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PROMPT = "Say naïve 東京 🙂"
CALLING = "Use get_weather and get_time for Zürich"


class City(pydantic.BaseModel):
    """What structured output is asked for."""

    name: str
    people: int


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the endpoint on a socket, in a thread of its own."""
    provider = SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0,context_window=100000")
    app = make_app(providers={"simulated": provider}, models={"m": Route(target="simulated/m")})
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
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(10)


class Client:
    """The SDK's two clients as one: each call is made with the chosen one."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self._options: dict[str, Any] = {"base_url": url, "api_key": "k", "max_retries": 0, "timeout": 20}
        self._is_async = is_async

    def call(self, method: str, **fields: Any) -> Any:
        """Call ``client.METHOD(**fields)``."""
        if not self._is_async:
            with openai.OpenAI(**self._options) as client:
                return _method(client, method)(model="m", **fields)

        async def run() -> Any:
            async with openai.AsyncOpenAI(**self._options) as client:
                return await _method(client, method)(model="m", **fields)

        return asyncio.run(run())

    def events(self, method: str, **fields: Any) -> list[Any]:
        """Return the events of a stream that ``create`` returns."""
        if not self._is_async:
            with openai.OpenAI(**self._options) as client:
                return list(_method(client, method)(model="m", stream=True, **fields))

        async def run() -> list[Any]:
            async with openai.AsyncOpenAI(**self._options) as client:
                return [e async for e in await _method(client, method)(model="m", stream=True, **fields)]

        return asyncio.run(run())

    def helper(self, method: str, final: str, **fields: Any) -> tuple[list[str], Any]:
        """Stream with the SDK's helper; return the kinds of its events and what it put together."""
        if not self._is_async:
            with (
                openai.OpenAI(**self._options) as client,
                _method(client, method)(model="m", **fields) as stream,
            ):
                return [event.type for event in stream], getattr(stream, final)()

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            async with (
                openai.AsyncOpenAI(**self._options) as client,
                _method(client, method)(model="m", **fields) as stream,
            ):
                yield stream

        async def run() -> tuple[list[str], Any]:
            async with opened() as stream:
                return [event.type async for event in stream], await getattr(stream, final)()

        return asyncio.run(run())


def _method(client: Any, path: str) -> Callable[..., Any]:
    for name in path.split("."):
        client = getattr(client, name)
    return client


class Chat:
    """Chat Completions, in the words that the tests share."""

    name = "chat"

    def __init__(self, client: Client) -> None:
        self.client = client

    def ask(self, said: Any, *, streamed: bool, **fields: Any) -> Any:
        messages = said if isinstance(said, list) else [{"role": "user", "content": said}]
        if streamed:
            options = {"include_usage": True}
            return self.client.helper(
                "chat.completions.stream",
                "get_final_completion",
                messages=messages,
                stream_options=options,
                **fields,
            )[1]
        return self.client.call("chat.completions.create", messages=messages, **fields)

    def stream(self, said: str, **fields: Any) -> list[Any]:
        messages = [{"role": "user", "content": said}]
        return self.client.events("chat.completions.create", messages=messages, **fields)

    @staticmethod
    def text(answer: Any) -> str:
        return answer.choices[0].message.content

    @staticmethod
    def calls(answer: Any) -> list[tuple[str, Any]]:
        assert answer.choices[0].finish_reason == "tool_calls"
        return [
            (c.function.name, json.loads(c.function.arguments)) for c in answer.choices[0].message.tool_calls
        ]

    @staticmethod
    def results(said: str, answer: Any, results: list[str]) -> list[Any]:
        message = answer.choices[0].message
        told = [
            {"role": "tool", "tool_call_id": c.id, "content": result}
            for c, result in zip(message.tool_calls, results, strict=True)
        ]
        return [{"role": "user", "content": said}, message.to_dict(), *told]

    @staticmethod
    def tool(name: str) -> Any:
        return {"type": "function", "function": {"name": name, "parameters": SCHEMA, "strict": True}}

    def parse(self, said: str, *, streamed: bool) -> Any:
        if streamed:
            answer = self.ask(said, streamed=True, response_format=City)
        else:
            messages = [{"role": "user", "content": said}]
            answer = self.client.call("chat.completions.parse", messages=messages, response_format=City)
        return answer.choices[0].message.parsed

    @staticmethod
    def image(text: str, source: str) -> list[Any]:
        image = {"type": "image_url", "image_url": {"url": source}}
        return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]

    @staticmethod
    def usage(answer: Any) -> tuple[int, int, int, int]:
        usage = answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        cached = usage.prompt_tokens_details.cached_tokens
        thought = usage.completion_tokens_details.reasoning_tokens
        return usage.prompt_tokens, usage.completion_tokens, cached, thought

    limit = "max_completion_tokens"

    @staticmethod
    def cut_off(answer: Any) -> bool:
        return answer.choices[0].finish_reason == "length"

    thinking: ClassVar[Any] = {"reasoning_effort": "low"}

    @staticmethod
    def thoughts(answer: Any) -> str:
        return answer.choices[0].message.reasoning_content


class Responses(Chat):
    """Responses, in the same words."""

    name = "responses"

    def ask(self, said: Any, *, streamed: bool, **fields: Any) -> Any:
        if streamed:
            events, answer = self.client.helper(
                "responses.stream", "get_final_response", input=said, **fields
            )
            assert events[0] == "response.created"
            assert events[-1] == "response.completed"
            return answer
        return self.client.call("responses.create", input=said, **fields)

    def stream(self, said: str, **fields: Any) -> list[Any]:
        return self.client.events("responses.create", input=said, **fields)

    @staticmethod
    def text(answer: Any) -> str:
        return answer.output_text

    @staticmethod
    def calls(answer: Any) -> list[tuple[str, Any]]:
        return [(i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]

    @staticmethod
    def results(said: str, answer: Any, results: list[str]) -> list[Any]:
        called = [item for item in answer.output if item.type == "function_call"]
        told = [
            {"type": "function_call_output", "call_id": c.call_id, "output": result}
            for c, result in zip(called, results, strict=True)
        ]
        return [{"role": "user", "content": said}, *[item.to_dict() for item in answer.output], *told]

    @staticmethod
    def tool(name: str) -> Any:
        return {"type": "function", "name": name, "parameters": SCHEMA, "strict": True}

    def parse(self, said: str, *, streamed: bool) -> Any:
        if streamed:
            return self.ask(said, streamed=True, text_format=City).output_parsed
        return self.client.call("responses.parse", input=said, text_format=City).output_parsed

    @staticmethod
    def image(text: str, source: str) -> list[Any]:
        image = {"type": "input_image", "image_url": source, "detail": "auto"}
        return [{"role": "user", "content": [{"type": "input_text", "text": text}, image]}]

    @staticmethod
    def usage(answer: Any) -> tuple[int, int, int, int]:
        usage = answer.usage
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        thought = usage.output_tokens_details.reasoning_tokens
        return usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens, thought

    limit = "max_output_tokens"

    @staticmethod
    def cut_off(answer: Any) -> bool:
        return (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    thinking: ClassVar[Any] = {"reasoning": {"effort": "low"}}

    @staticmethod
    def thoughts(answer: Any) -> str:
        return "".join(part.text for i in answer.output if i.type == "reasoning" for part in i.summary)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def client(url: str, request: pytest.FixtureRequest) -> Client:
    return Client(url, is_async=request.param)


@pytest.fixture(params=[Chat, Responses], ids=["chat", "responses"])
def api(client: Client, request: pytest.FixtureRequest) -> Chat:
    return request.param(client)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_text(api: Chat, streamed: bool) -> None:
    """Text comes back, with every character of it."""
    assert api.text(api.ask(PROMPT, streamed=streamed)).startswith(f"You said: {PROMPT}")


def test_tools(api: Chat, streamed: bool) -> None:
    """Parallel calls come with their names and whole arguments."""
    tools = [api.tool("get_weather"), api.tool("get_time")]
    answer = api.ask(CALLING, streamed=streamed, tools=tools)
    assert api.calls(answer) == [("get_weather", {"city": CALLING}), ("get_time", {"city": CALLING})]
    answer = api.ask(CALLING, streamed=streamed, tools=tools, parallel_tool_calls=False)
    assert len(api.calls(answer)) == 1
    answer = api.ask("Anything", streamed=streamed, tools=tools, tool_choice="required")
    assert api.calls(answer)[0][0] == "get_weather"


def test_tools_over_several_turns(api: Chat, streamed: bool) -> None:
    """What the SDK returned goes back as it is, with the tools' results, and the model answers them."""
    tools = [api.tool("get_weather"), api.tool("get_time")]
    answer = api.ask(CALLING, streamed=streamed, tools=tools, **api.thinking)
    again = api.ask(
        api.results(CALLING, answer, ["sunny", "noon"]), streamed=streamed, tools=tools, **api.thinking
    )
    assert api.text(again).startswith("The tool says: noon")


def test_structured_output(api: Chat, streamed: bool) -> None:
    """A pydantic model as the schema: the SDK parses the answer into it."""
    assert api.parse("Bern", streamed=streamed) == City(name="Bern", people=1)


@pytest.mark.parametrize("source", [f"data:image/png;base64,{PIXEL}", "https://example.com/a.png"])
def test_images(api: Chat, streamed: bool, source: str) -> None:
    """Pictures are seen, inline and by URL."""
    answer = api.ask(api.image("Look", source), streamed=streamed)
    assert "(and showed 1 image)" in api.text(answer)


def test_usage(api: Chat, streamed: bool) -> None:
    """Tokens are counted in every class: those read from the cache, and those of reasoning."""
    prompt = f"{api.client._is_async} {streamed} {api.name} " + "word " * 1500
    first = api.usage(api.ask(prompt, streamed=streamed, **api.thinking))
    again = api.usage(api.ask(prompt, streamed=streamed, **api.thinking))
    assert first[0] > 1500
    assert first[1] > first[3] > 0
    assert (first[2], again[2] >= 1024) == (0, True)


def test_reasoning(api: Chat, streamed: bool) -> None:
    """Thoughts come apart from the answer."""
    answer = api.ask("Think", streamed=streamed, **api.thinking)
    assert api.thoughts(answer).startswith("The last message has")
    assert api.text(answer).startswith("You said: Think")


def test_a_limit_of_tokens(api: Chat) -> None:
    """An answer that was cut off says so."""
    answer = api.ask("one two three four", streamed=False, **{api.limit: 3})
    assert api.cut_off(answer)
    events = api.stream("one two three four", **{api.limit: 3})
    last = events[-1].response if api.name == "responses" else events[-1]
    assert api.cut_off(last)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("fault=status,status=429,retry_after=3", openai.RateLimitError),
        ("fault=status,status=400", openai.BadRequestError),
        ("fault=status,status=503", openai.InternalServerError),
    ],
)
def test_errors(api: Chat, streamed: bool, spec: str, error: type[openai.APIStatusError]) -> None:
    """A failure of the target is the SDK's own exception for its status."""
    with pytest.raises(error) as caught:
        api.ask("x", streamed=streamed, extra_headers=simulate(spec))
    if error is openai.RateLimitError:
        assert caught.value.response.headers["retry-after"] == "3"


def test_a_wrong_request(client: Client) -> None:
    """The exception names the field."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.call("responses.create", input=[{"role": "boss", "content": "x"}])
    assert caught.value.param == "input[0].role"
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.call("responses.create", input="x", previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]"):
        client.call("responses.create", input="x", tools=[{"type": "web_search"}])


@pytest.mark.parametrize("fault", ["cut", "error_event", "malformed"])
def test_a_broken_stream_is_an_error(api: Chat, fault: str) -> None:
    """What breaks in the middle raises in the SDK, after what had come before."""
    with pytest.raises(openai.APIError):
        api.ask("one two three", streamed=True, extra_headers=simulate(f"fault={fault},after=2"))


def test_events_of_responses(client: Client) -> None:
    """Events come in the order of the real API, numbered without a gap."""
    fields = {"tools": [Responses.tool("get_time")], "reasoning": {"effort": "low"}}
    events = client.events("responses.create", input="get_time", **fields)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    once = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert once == [
        *("created", "in_progress", "output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done"),
        *("output_item.done", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    events = client.events("responses.create", input="Hello")
    kinds = [event.type.removeprefix("response.") for event in events]
    once = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert once == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    last = events[-1].response
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == last.output_text


def test_answers_validate_against_the_sdk_s_types(client: Client) -> None:
    """Not only read leniently: whole answers and events have all fields that the SDK's types require."""
    fields = {"tools": [Responses.tool("get_time")], "reasoning": {"effort": "low"}}
    for said in ("get_time", "Hello"):
        whole = client.call("responses.create", input=said, **fields)
        type(whole).model_validate(whole.to_dict(), strict=False)
        for event in client.events("responses.create", input=said, **fields):
            type(event).model_validate(event.to_dict(), strict=False)
