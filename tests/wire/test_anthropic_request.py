"""Requests of the Anthropic Messages codec, read from clients and written to targets."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from firsttoken.chat import Image, Message, Opaque, Reasoning, Text, ToolChoice, ToolResult, ToolUse
from firsttoken.errors import (
    RequestError,
    UnsupportedFieldError,
)
from firsttoken.model import Call
from firsttoken.settings import VertexProvider
from firsttoken.wire import anthropic as wire
from firsttoken.wire import openai_chat

BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
EPHEMERAL = {"type": "ephemeral"}


def call(**fields: Any) -> Call:
    request, source = wire.read_request(json.dumps({**BODY, **fields}).encode())
    return Call(request=request, source=source, id="req_1", deadline=0.0)


def foreign(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    request, source = openai_chat.read_request(json.dumps(body).encode())
    return Call(request=request, source=source, id="req_1", deadline=0.0)


def sent(asked: Call, **settings: Any) -> Any:
    """Return the body that a target gets, of a client that speaks another format."""
    asked.source = msgspec.structs.replace(asked.source, wire="another")
    return json.loads(wire.Dialect(**settings).write_request(asked, "big"))


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"model": 1}, "model", "Expected `str`"),
        ({"messages": []}, "messages", "length >= 1"),
        ({"max_tokens": None}, "max_tokens", "Expected `int`"),
        ({"max_tokens": -1}, "max_tokens", ">= 0"),
        ({"temperature": 1.5}, "temperature", "<= 1"),
        ({"messages": [{"role": "boss", "content": ""}]}, "messages[0].role", "user, assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", ""),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
            "Expected",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages[0].content[0].source.data",
            "needs it",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]},
            "messages[0].content[0].source",
            "an object",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
            "messages[0].content[0].tool_use_id",
            "needs it",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": {}}]}
                ]
            },
            "messages[0].content[0].content",
            "text or a list",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": 1}],
                    }
                ]
            },
            "messages[0].content[0].input",
            "an object",
        ),
        (
            {"system": [{"type": "text", "text": "s", "cache_control": {"ttl": "2h"}}]},
            "system[0].cache_control.ttl",
            "5m",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "needs it"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", ">= 1"),
    ],
)
def test_bad_requests_name_the_field(fields: dict[str, Any], param: str, said: str) -> None:
    """What is wrong with a request is said with the field's path and what was expected."""
    with pytest.raises(RequestError) as caught:
        call(**fields)
    assert caught.value.param == param
    assert said in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":"\xff"}', b'{"a":' * 100_000])
def test_bodies_that_are_no_json_are_refused(body: bytes) -> None:
    """What cannot be decoded is the client's mistake, never a defect of ours."""
    with pytest.raises(RequestError):
        wire.read_request(body)


def test_every_kind_of_block_is_read() -> None:
    """Blocks become neutral parts; those without a neutral word stay, named, for targets of this format."""
    result = [
        {"type": "text", "text": "r"},
        {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}},
        {"type": "search_result", "source": "s", "title": "t", "content": []},
    ]
    request = call(
        system=[{"type": "text", "text": "s", "cache_control": {**EPHEMERAL, "ttl": "1h"}}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": EPHEMERAL},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="},
                    },
                    {"type": "document", "source": {"type": "text", "data": "d", "media_type": "text/plain"}},
                    {"type": "image", "source": {"type": "file", "file_id": "f"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "enc"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1.50}},
                    {"type": "server_tool_use", "id": "u", "name": "web_search", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": result, "is_error": True},
                    {"type": "tool_result", "tool_use_id": "v", "content": "plain"},
                    {"type": "text", "text": "go on"},
                ],
            },
            {"role": "system", "content": "now"},
        ],
    )
    assert request.request.messages == (
        Message("system", (Text("s", "1h"),)),
        Message(
            "user",
            (
                Text("a", "5m"),
                Image(data="QQ==", media_type="image/png"),
                Opaque("anthropic", "content block of type document"),
                Opaque("anthropic", "image with a source of type file or with transformations"),
            ),
        ),
        Message(
            "assistant",
            (
                Reasoning("hm", "sig"),
                Reasoning(redacted="enc"),
                ToolUse("t", "f", '{"x": 1.5}'),
                Opaque("anthropic", "content block of type server_tool_use"),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult("t", (Text("r"), Image(url="http://x/y.png")), is_error=True),
                ToolResult("v", (Text("plain"),)),
            ),
        ),
        Message("user", (Text("go on"),)),
        Message("system", (Text("now"),)),
    )
    assert request.source.unknown == ("messages[2].content[0].content[2]",)


def test_fields_without_a_neutral_word_are_named() -> None:
    """A field that only this format has is listed when it asks for something."""
    read_here = call(
        inference_geo="us",
        container=None,
        speed="standard",
        anthropic_version="v",
        future=1,
        tools=[
            {"type": "web_search_20250305", "name": "web_search"},
            {"name": "f", "input_schema": {}, "defer_loading": True, "input_examples": []},
        ],
        tool_choice={"type": "x"},
        thinking={"type": "between_tools"},
        output_config={"format": {"type": "x"}},
    )
    assert set(read_here.source.unknown) == {
        *("inference_geo", "future", "tools[0]", "tools[1].defer_loading", "tool_choice", "thinking"),
        "output_config",
    }
    assert call(max_tokens=0).source.unknown == ("max_tokens",)
    assert call(temperature=1, top_p=0.5, top_k=3, stop_sequences=["x"]).source.unknown == ()


def test_a_marker_on_the_request_stands_behind_the_last_block() -> None:
    """Automatic caching marks what the API would mark."""
    request = call(cache_control=EPHEMERAL).request
    assert request.messages[-1].parts == (Text("hi", "5m"),)


@pytest.mark.parametrize(
    ("choice", "neutral", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": False}, ToolChoice("tool", "f"), True),
        ({"type": "none"}, ToolChoice("none"), None),
    ],
)
def test_tool_choice_both_ways(choice: Any, neutral: ToolChoice, parallel: bool | None) -> None:
    """Each way to choose a tool has a neutral word, and goes back to what it was."""
    asked = call(tool_choice=choice, tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert (asked.request.tool_choice, asked.request.parallel_tool_calls) == (neutral, parallel)
    assert sent(asked)["tool_choice"] == choice


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
        {"thinking": {"type": "disabled"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"system": "short"},
        {"system": [{"type": "text", "text": "s", "cache_control": {**EPHEMERAL, "ttl": "1h"}}]},
        {"temperature": 0.5, "top_p": 0.5, "top_k": 4, "stop_sequences": ["a", "b"], "stream": True},
        {"metadata": {"user_id": "u"}, "service_tier": "standard_only"},
        {"tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "redacted_thinking", "data": "e"},
                        {"type": "text", "text": "well"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": [1, {"y": None}]}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": "r", "is_error": True},
                        {
                            "type": "tool_result",
                            "tool_use_id": "u",
                            "content": "",
                            "cache_control": EPHEMERAL,
                        },
                        {"type": "text", "text": "go on"},
                    ],
                },
            ]
        },
    ],
)
def test_what_is_read_is_written(fields: dict[str, Any]) -> None:
    """A request that went through the neutral words asks for the same."""
    assert sent(call(**fields)) == {**BODY, "model": "big", **fields}


def test_the_client_s_bytes_reach_the_target() -> None:
    """Nothing of the body changes; a different model name is the only thing replaced."""
    body = b'{ "model":"m" , "x": 1.10, "max_tokens":1, "messages":[{"role":"user","content":"\\u00e9"}]}'
    request, source = wire.read_request(body)
    here = Call(request=request, source=source, id="1", deadline=0.0)
    assert wire.write_request(here, "m") == body
    assert wire.write_request(here, "big") == (
        b'{"model":"big","x":1.10,"max_tokens":1,"messages":[{"role":"user","content":"\\u00e9"}]}'
    )


def test_vertex_wants_a_version_and_no_model() -> None:
    """The body for Claude on Vertex AI names its version; the model stands in the address."""
    codec = wire.vertex_codec(VertexProvider(project="p", anthropic_version="v1", max_tokens=7))
    own = json.loads(codec.write_request(call(stream=True), "claude"))
    assert own == {"anthropic_version": "v1", "max_tokens": 9, "messages": BODY["messages"], "stream": True}
    translated = json.loads(codec.write_request(foreign(stream=True), "claude"))
    assert translated == {**own, "max_tokens": 7}


def test_other_formats_are_translated() -> None:
    """System turns are hoisted, tool results join the user's turn, and a limit of tokens is there."""
    function = {"name": "f", "parameters": {"properties": {}}}
    body = sent(
        foreign(
            messages=[
                {"role": "system", "content": "be"},
                {"role": "user", "content": "do"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "t", "function": function | {"arguments": '{"a":1}'}}],
                },
                {"role": "tool", "tool_call_id": "t", "content": "r"},
                {"role": "tool", "tool_call_id": "u", "content": "q"},
                {"role": "developer", "content": "brief"},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}],
                },
            ],
            tools=[{"type": "function", "function": function}],
            parallel_tool_calls=False,
            reasoning_effort="minimal",
            presence_penalty=0,
            user="u",
            stop="end",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}},
            },
        ),
        max_tokens=77,
    )
    assert body == {
        "model": "big",
        "max_tokens": 77,
        "system": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}],
        "messages": [
            {"role": "user", "content": "do"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": "r"},
                    {"type": "tool_result", "tool_use_id": "u", "content": "q"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="},
                    },
                ],
            },
        ],
        "stop_sequences": ["end"],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "adaptive"},
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {"type": "object", "description": "d"}},
        },
        "metadata": {"user_id": "u"},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning_effort": "heroic"}, "reasoning.effort"),
        ({"response_format": {"type": "json_object"}}, "output (JSON without a schema)"),
        ({"messages": [{"role": "user", "name": "Ann", "content": "x"}]}, "messages.name"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        (
            {
                "messages": [
                    {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
                ]
            },
            "messages",
        ),
    ],
)
def test_what_this_format_cannot_say_is_refused(fields: dict[str, Any], param: str) -> None:
    """Nothing of another format is dropped in silence."""
    with pytest.raises(UnsupportedFieldError) as caught:
        wire.write_request(foreign(**fields), "big")
    assert caught.value.param == param


def test_fields_of_this_format_alone_do_not_leave_it() -> None:
    """Other formats refuse by name what only this one has."""
    with pytest.raises(UnsupportedFieldError, match="inference_geo"):
        openai_chat.write_request(call(inference_geo="us"), "m")


@pytest.mark.parametrize(
    ("arguments", "written"),
    [("", {}), ('{"a": 1}', {"a": 1}), ('{"a', {"INVALID_JSON": '{"a'}), ("[1]", {"INVALID_JSON": "[1]"})],
)
def test_arguments_are_objects(arguments: str, written: Any) -> None:
    """A tool's input is an object here; what is none is wrapped."""
    calls = [{"id": "t", "function": {"name": "f", "arguments": arguments}}]
    body = sent(foreign(messages=[{"role": "assistant", "tool_calls": calls}]))
    assert body["messages"][0]["content"][0]["input"] == written


def test_thoughts_that_nobody_signed_stay_here() -> None:
    """The API refuses thinking without its signature, so that of other models is left out."""
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert sent(foreign(messages=[said]))["messages"] == [{"role": "assistant", "content": "a"}]


def test_a_budget_has_room_under_the_limit() -> None:
    """Thinking counts towards the limit, so that our own default grows by it; too little is rounded up."""
    asked = call(thinking={"type": "enabled", "budget_tokens": 100})
    asked.request = msgspec.structs.replace(asked.request, max_tokens=None)
    body = sent(asked, max_tokens=50)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (150, 1024)
