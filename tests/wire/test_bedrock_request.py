"""Requests of Bedrock's Converse, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.model import Call, Source
from firsttoken.wire import bedrock as wire
from firsttoken.wire.bedrock.content import WIRE

CLAUDE = "eu.anthropic.claude-opus-4-6-v1"
OLDER_CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
HI = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
TOOL = {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}
SCHEMA = json.dumps(
    {**HI, "outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}}}
).encode()


def read(body: Any, model: str = "m") -> tuple[ChatRequest, Source]:
    return wire.read_request(json.dumps(body).encode(), model, stream=False)


def parts(*blocks: Any) -> tuple[Part, ...]:
    request, _ = read({"messages": [{"role": "user", "content": list(blocks)}]})
    (message,) = request.messages
    return message.parts


def call(*messages: Message, **fields: Any) -> Call:
    said = messages or (Message("user", (Text("hi"),)),)
    return Call(ChatRequest("m", said, **fields), Source("other", b"{}"), "1", 0.0)


def write(*messages: Message, model: str = CLAUDE, **fields: Any) -> dict[str, Any]:
    return json.loads(wire.write_request(call(*messages, **fields), model))


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not valid JSON"),
        (b"[]", None, "Expected `object`"),
        (b"{}", "messages", "at least one"),
        (b'{"messages": []}', "messages", "at least one"),
        (b'{"messages": [{"role": "boss"}]}', "messages[0].role", "user, assistant"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "messages[0].content", "Expected `array`"),
        (
            b'{"messages": [{"role": "user", "content": [{"image": {}}]}]}',
            "messages[0].content[0].image",
            "format",
        ),
        (
            b'{"messages": [{"role": "user", "content": [{"text": 1}]}]}',
            "messages[0].content[0].text",
            "Expected",
        ),
        (b'{"inferenceConfig": {"temperature": 2}}', "inferenceConfig.temperature", "<= 1"),
        (b'{"inferenceConfig": {"maxTokens": 0}}', "inferenceConfig.maxTokens", ">= 1"),
        (b'{"toolConfig": {"tools": [{"toolSpec": {}}]}}', "toolConfig.tools[0].toolSpec", "name"),
        (b'{"system": [{"cachePoint": {"ttl": "2h"}}]}', "system[0].cachePoint.ttl", "5m, 1h"),
        (
            SCHEMA,
            "outputConfig.textFormat.structure.jsonSchema.schema",
            "text of a JSON schema",
        ),
    ],
)
def test_bad_requests_name_the_field(body: bytes, param: str | None, said: str) -> None:
    """What is wrong with a request is said with the field's path and what was expected."""
    with pytest.raises(RequestError) as caught:
        wire.read_request(body, "m", stream=False)
    assert caught.value.param == param
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"text": "a"}, Text("a")),
        (
            {"image": {"format": "png", "source": {"bytes": "aGk="}}},
            Image(data="aGk=", media_type="image/png"),
        ),
        (
            {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}},
            Opaque(WIRE, "image in S3"),
        ),
        ({"toolUse": {"toolUseId": "1", "name": "f", "input": {"a": 1.50}}}, ToolUse("1", "f", '{"a": 1.5}')),
        (
            {"toolUse": {"toolUseId": "1", "name": "f", "input": {}, "type": "server_tool_use"}},
            Opaque(WIRE, "toolUse block of type server_tool_use"),
        ),
        (
            {"toolResult": {"toolUseId": "1", "content": [{"json": [1]}, {"text": "b"}], "status": "error"}},
            ToolResult("1", (Text("[1]"), Text("b")), is_error=True),
        ),
        ({"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}}, Reasoning("t", "s")),
        ({"reasoningContent": {"redactedContent": "eA=="}}, Reasoning(redacted="eA==")),
        ({"document": {"name": "d"}}, Opaque(WIRE, "document block")),
        ({"guardContent": {}}, Opaque(WIRE, "guardContent block")),
        ({"hologram": {}}, Opaque(WIRE, "unknown block")),
        (
            {"cachePoint": {"type": "default"}},
            Opaque(WIRE, "cachePoint that follows nothing which can be marked"),
        ),
    ],
)
def test_blocks_become_parts(block: Any, part: Part) -> None:
    """Each kind of content has its word; what has none is kept by name."""
    assert parts(block) == (part,)


def test_a_cache_point_marks_what_stands_before_it() -> None:
    """In messages, in the system prompt and among tools; five minutes are the default."""
    short, long = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
    body = {
        "system": [{"text": "s"}, long],
        "messages": [{"role": "user", "content": [{"text": "a"}, short]}],
    }
    request, source = read({**body, "toolConfig": {"tools": [TOOL, short]}})
    assert request.messages == (Message("system", (Text("s", "1h"),)), Message("user", (Text("a", "5m"),)))
    assert request.tools[0].cache == "5m"
    assert source.unknown == ()


def test_results_of_tools_are_messages_of_their_own() -> None:
    """The order of results and text is kept; what cannot be in a result stands beside it."""
    result = {"toolResult": {"toolUseId": "1", "content": [{"document": {"name": "d"}}]}}
    request, _ = read({"messages": [{"role": "user", "content": [result, {"text": "go on"}]}]})
    assert request.messages == (
        Message("tool", (ToolResult("1", ()),)),
        Message("user", (Opaque(WIRE, "document block in a toolResult"), Text("go on"))),
    )


@pytest.mark.parametrize(
    ("fields", "unknown"),
    [
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, "guardrailConfig"),
        ({"promptVariables": {"a": {"text": "b"}}}, "promptVariables"),
        ({"promptVariables": {}, "future": None}, None),
        ({"future": 1}, "future"),
        ({"performanceConfig": {"latency": "optimized"}}, "performanceConfig"),
        ({"performanceConfig": {"latency": "standard"}}, None),
        ({"additionalModelResponseFieldPaths": ["/x"]}, "additionalModelResponseFieldPaths"),
        ({"additionalModelResponseFieldPaths": ["/stop_sequence"]}, None),
        ({"additionalModelRequestFields": {"odd": 1}}, "additionalModelRequestFields.odd"),
        ({"additionalModelRequestFields": {"odd": None}}, None),
        ({"toolConfig": {"tools": [{"systemTool": {"name": "s"}}]}}, "toolConfig.tools[0]"),
        ({"toolConfig": {"tools": [TOOL], "toolChoice": {"odd": {}}}}, "toolConfig.toolChoice"),
    ],
)
def test_what_has_no_word_is_named_when_it_asks_for_something(fields: Any, unknown: str | None) -> None:
    """A target of the same format gets it; any other refuses it by this name."""
    assert read({**HI, **fields})[1].unknown == ((unknown,) if unknown else ())


def test_a_schema_that_is_nested_too_deep() -> None:
    """It is text in the body, where no one has counted its levels."""
    structure = {"jsonSchema": {"schema": '{"a":' * 100_000}}
    with pytest.raises(RequestError, match="schema"):
        read({**HI, "outputConfig": {"textFormat": {"structure": structure}}})


def test_a_stored_prompt_needs_no_messages() -> None:
    """Only Bedrock has it: the request is kept and named."""
    request, source = read({}, "arn:aws:bedrock:us-east-1:1:prompt/ABCDEFGHIJ:1")
    assert (request.messages, source.unknown) == ((), ("modelId (a stored prompt)",))


def test_settings_are_read() -> None:
    """Everything that has a neutral word."""
    structure = {"jsonSchema": {"schema": '{"type":"object"}', "name": "n", "description": "d"}}
    body = {
        **HI,
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 0.9, "stopSequences": ["a"]},
        "toolConfig": {
            "tools": [{"toolSpec": {**TOOL["toolSpec"], "strict": True}}],
            "toolChoice": {"any": {}},
        },
        "outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}, "effort": "low"},
        "requestMetadata": {"team": "a"},
        "serviceTier": {"type": "flex"},
    }
    request, source = read(body, "x.y:0")
    assert source.unknown == ()
    assert request == ChatRequest(
        model="x.y:0",
        messages=(Message("user", (Text("hi"),)),),
        include_usage=True,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        stop=("a",),
        tools=(Tool("f", schema={"type": "object"}, strict=True),),
        tool_choice=ToolChoice("required"),
        output=OutputFormat({"type": "object"}, "n", "d"),
        reasoning=ReasoningWish(effort="low"),
        metadata={"team": "a"},
        service_tier="flex",
    )


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, ReasoningWish(budget=9, enabled=True)),
        (
            {"reasoning_config": {"type": "enabled", "budget_tokens": 9}},
            ReasoningWish(budget=9, enabled=True),
        ),
        ({"thinking": {"type": "disabled"}}, ReasoningWish(enabled=False)),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            ReasoningWish("max", enabled=True),
        ),
        ({"reasoning_effort": "low"}, ReasoningWish("low")),
        (
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
            ReasoningWish("high", enabled=True),
        ),
        ({"reasoningConfig": {"type": "disabled"}}, ReasoningWish(enabled=False)),
    ],
)
def test_each_familys_words_for_thinking(fields: Any, wish: ReasoningWish) -> None:
    """Claude's, Nova's and gpt-oss's."""
    request, source = read({**HI, "additionalModelRequestFields": fields})
    assert (request.reasoning, source.unknown) == (wish, ())


def test_additional_fields_with_a_neutral_word() -> None:
    """Claude's and Nova's top_k, and Claude's wish for one call at a time."""
    fields = {"top_k": 5, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    request, source = read({**HI, "additionalModelRequestFields": fields})
    assert (request.top_k, request.parallel_tool_calls, source.unknown) == (5, False, ())
    assert read({**HI, "additionalModelRequestFields": {"inferenceConfig": {"topK": 7}}})[0].top_k == 7


def test_a_body_of_the_same_format_is_sent_unchanged() -> None:
    """The model stands in the path: not a byte changes."""
    body = b'{ "messages":[{"role":"user","content":[{"text":"hi"}]}], "future": 1.50 }'
    request, source = wire.read_request(body, "m", stream=True)
    assert request.stream
    assert wire.write_request(Call(request, source, "1", 0.0), "another") is body


def test_a_conversation_is_written() -> None:
    """Roles alternate, system prompts are apart, markers follow their part, empty text is left out."""
    messages = (
        Message("system", (Text("be kind", "1h"),)),
        Message("developer", (Text("be brief"),)),
        Message("user", (Text("look", "5m"), Image(data="aGk=", media_type="image/jpeg"), Text(""))),
        Message(
            "assistant", (Reasoning("hm", "sig"), Reasoning(redacted="eA=="), ToolUse("1", "f", '{"a":1.50}'))
        ),
        Message("tool", (ToolResult("1", (Text("42", "1h"),), is_error=True),)),
        Message("tool", (ToolResult("", (), name="g"),)),
        Message("user", (Text("so?"),)),
    )
    body = wire.write_request(call(*messages), CLAUDE)
    assert b'"input":{"a":1.50}' in body
    written = json.loads(body)
    point = {"cachePoint": {"type": "default"}}
    hour = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert written == {
        "system": [{"text": "be kind"}, hour, {"text": "be brief"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "look"},
                    point,
                    {"image": {"format": "jpeg", "source": {"bytes": "aGk="}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
                    {"reasoningContent": {"redactedContent": "eA=="}},
                    {"toolUse": {"toolUseId": "1", "name": "f", "input": {"a": 1.5}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "1", "content": [{"text": "42"}], "status": "error"}},
                    hour,
                    {"toolResult": {"toolUseId": "g", "content": []}},
                    {"text": "so?"},
                ],
            },
        ],
    }


def test_settings_are_written() -> None:
    """Everything that Converse has a field for, and nothing that the client did not say."""
    assert set(write()) == {"messages"}
    written = write(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop=("a",),
        tools=(Tool("f", "d", {"type": "object"}, strict=True, cache="5m"), Tool("g")),
        tool_choice=ToolChoice("tool", "f"),
        output=OutputFormat({"type": "object"}, "n"),
        metadata={"team": "a"},
        user="u",
        service_tier="standard",
        presence_penalty=0.0,
    )
    del written["messages"]
    spec = {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}, "strict": True}
    plain = {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    assert written == {
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 0.9, "stopSequences": ["a"]},
        "additionalModelRequestFields": {"top_k": 3},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "toolConfig": {
            "tools": [{"toolSpec": spec}, {"cachePoint": {"type": "default"}}, {"toolSpec": plain}],
            "toolChoice": {"tool": {"name": "f"}},
        },
        "outputConfig": {
            "textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"schema": '{"type":"object"}', "name": "n"}},
            }
        },
        "requestMetadata": {"team": "a", "user": "u"},
        "serviceTier": {"type": "default"},
    }


@pytest.mark.parametrize(
    ("model", "wish", "additional", "effort"),
    [
        (CLAUDE, ReasoningWish("high"), {"thinking": {"type": "adaptive"}}, "high"),
        (CLAUDE, ReasoningWish("minimal"), {"thinking": {"type": "adaptive"}}, "low"),
        (CLAUDE, ReasoningWish(budget=2000), {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        (CLAUDE, ReasoningWish(budget=10), {"thinking": {"type": "enabled", "budget_tokens": 1024}}, None),
        (CLAUDE, ReasoningWish(enabled=True), {"thinking": {"type": "adaptive"}}, None),
        (CLAUDE, ReasoningWish("none"), {"thinking": {"type": "disabled"}}, None),
        (OLDER_CLAUDE, ReasoningWish("low"), {"thinking": {"type": "enabled", "budget_tokens": 1024}}, None),
        (
            OLDER_CLAUDE,
            ReasoningWish(enabled=True),
            {"thinking": {"type": "enabled", "budget_tokens": 8192}},
            None,
        ),
        (NOVA, ReasoningWish("low"), None, "low"),
        (NOVA, ReasoningWish(budget=9000), None, "high"),
    ],
)
def test_thinking_is_written_in_the_words_of_the_family(
    model: str, wish: ReasoningWish, additional: Any, effort: str | None
) -> None:
    """Newer Claude models take an effort, older ones a budget; Converse has an effort for all others."""
    written = write(model=model, reasoning=wish)
    assert written.get("additionalModelRequestFields") == additional
    assert written.get("outputConfig", {}).get("effort") == effort


def test_one_call_at_a_time() -> None:
    """Claude has a word for it, in place of Converse's choice of tools."""
    written = write(tools=(Tool("f"),), parallel_tool_calls=False, tool_choice=ToolChoice("auto"))
    assert written["additionalModelRequestFields"]["tool_choice"]["disable_parallel_tool_use"] is True
    assert "toolChoice" not in written["toolConfig"]
    assert write(model=NOVA, top_k=4)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 4}}


USED = (Message("user", (Text("x"),)), Message("assistant", (ToolUse("1", "f", ""),)))


def test_no_tool_may_be_called() -> None:
    """Converse has no such choice: the tools are left out, unless the conversation has used one."""
    none = ToolChoice("none")
    assert "toolConfig" not in write(tools=(Tool("f"),), tool_choice=none)
    with pytest.raises(UnsupportedFieldError):
        write(*USED, tools=(Tool("f"),), tool_choice=none)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"cache_key": "k"}, "cache_key"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"temperature": 1.5}, "temperature (above 1)"),
        ({"output": OutputFormat()}, "output (any JSON object; a schema is needed)"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"top_k": 1, "model": "meta.llama3"}, "top_k"),
        ({"reasoning": ReasoningWish(enabled=True), "model": NOVA}, "reasoning"),
        ({"reasoning": ReasoningWish("none"), "model": NOVA}, "reasoning"),
        ({"parallel_tool_calls": False, "tools": (Tool("f"),), "model": NOVA}, "parallel_tool_calls"),
        ({"user": "u", "metadata": {"user": "v"}}, "user (beside another one in metadata)"),
    ],
)
def test_fields_that_converse_cannot_express(fields: Any, param: str) -> None:
    """They are refused by name, never left out."""
    with pytest.raises(UnsupportedFieldError) as caught:
        write(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message("user", (Opaque("x", "hologram"),)), "hologram"),
        (Message("user", (Image(url="https://x/y.png"),)), "fetches no URLs"),
        (Message("user", (Image(data="", media_type="image/bmp"),)), "image/bmp"),
        (Message("user", (Image(data="", media_type="image/png", detail="high"),)), "detail"),
        (Message("user", (Text("a"),), name="bob"), "messages.name"),
        (Message("system", (Image(data="a", media_type="image/png"),)), "system"),
        (Message("assistant", (ToolUse("1", "f", "{"),)), "not a JSON object"),
        (Message("assistant", (ToolUse("1", "f", "[]"),)), "not a JSON object"),
        (Message("assistant", (ToolUse("1", "f", '{"a":' * 100_000),)), "not a JSON object"),
    ],
)
def test_content_that_converse_cannot_express(message: Message, said: str) -> None:
    """It is refused with the reason."""
    with pytest.raises(RequestError, match=said):
        write(message)


def test_an_image_in_s3_can_be_named() -> None:
    """A client of any format may say where it is."""
    (block,) = write(Message("user", (Image(url="s3://bucket/a.PNG"),)))["messages"][0]["content"]
    assert block == {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.PNG"}}}}


def test_unknown_fields_of_another_format_are_refused() -> None:
    """What the client's format alone has cannot be said here."""
    odd = Call(ChatRequest("m", ()), Source("other", b"{}", ("logprobs",)), "1", 0.0)
    with pytest.raises(UnsupportedFieldError, match="logprobs"):
        wire.write_request(odd, "m")
