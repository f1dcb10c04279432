"""Properties of requests: what one codec writes for another client's request, it reads as that request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.request_strategies import CAN, requests, told
from wire.strategies import CODECS, values

from firsttoken.chat import ChatRequest, Message, Text, ToolResult, ToolUse
from firsttoken.errors import FirstTokenError, RequestError
from firsttoken.model import Call, Source
from firsttoken.wire import codec_of

bounded = settings(max_examples=60, deadline=None, derandomize=True)
formats = pytest.mark.parametrize("name", CODECS)


@formats
@bounded
@given(data=st.data())
def test_a_request_comes_back(name: str, data: st.DataObject) -> None:
    """Messages, tools, choices and settings that a format can express survive it."""
    codec, can = codec_of(name), CAN[name]
    request = data.draw(requests(can))
    call = Call(request=request, source=Source("none", b"{}"), id="1", deadline=0.0)
    body = codec.write_request(call, can.model)
    got, source = codec.read_request(body, can.model, stream=request.stream)
    assert (source.wire, source.unknown) == (codec.WIRE, ())
    assert told(got) == told(request)


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in CODECS for b in CODECS if a != b])
@settings(bounded, max_examples=30)
@given(data=st.data())
def test_another_format_refuses_by_name_or_says_the_same(
    first: str, second: str, data: st.DataObject
) -> None:
    """A request of one format is written in another so that the conversation is the same, or is refused."""
    one, other = codec_of(first), codec_of(second)
    request = data.draw(requests(CAN[first]))
    call = Call(request=request, source=Source("none", b"{}"), id="1", deadline=0.0)
    model = CAN[second].model
    read, source = one.read_request(one.write_request(call, CAN[first].model), "m", stream=False)
    again = Call(request=read, source=source, id="1", deadline=0.0)
    try:
        body = other.write_request(again, model)
    except RequestError:
        return
    got, _ = other.read_request(body, model, stream=False)
    assert [turn.text() for turn in got.messages if turn.text()] or not request.messages
    assert "".join(turn.text() for turn in got.messages) == "".join(turn.text() for turn in read.messages)
    assert [tool.name for tool in got.tools] == [tool.name for tool in read.tools] or (
        read.tool_choice and read.tool_choice.mode == "none"
    )
    assert got.max_tokens == read.max_tokens


@formats
@bounded
@given(junk=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_noise_is_refused(name: str, junk: bytes) -> None:
    """Whatever a client sends is a request or a clean refusal."""
    codec = codec_of(name)
    try:
        codec.read_request(junk, "m", stream=True)
    except RequestError:
        return


@formats
def test_invalid_utf8_is_refused(name: str) -> None:
    """Anywhere in a request, in the arguments of a call too."""
    codec, can = codec_of(name), CAN[name]
    call = ToolUse("c", "f", '{"a":"~~~~"}')
    messages = (
        Message("user", (Text("~~~~"),)),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("c", (Text("~~~~"),)),)),
    )
    request = ChatRequest(model=can.model, messages=messages, max_tokens=5)
    here = Call(request=request, source=Source("none", b"{}"), id="1", deadline=0.0)
    pieces = codec.write_request(here, can.model).split(b"~~~~")
    assert len(pieces) == 4
    for position in range(1, 4):
        body = b"~~~~".join(pieces[:position]) + b"~\xff\xfe~" + b"~~~~".join(pieces[position:])
        with pytest.raises(RequestError):
            codec.read_request(body, can.model, stream=False)


_SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "role", "content", "text", "parts", "source", "input", "name", "id", "data"),
                    *(
                        "toolUse",
                        "toolResult",
                        "image",
                        "functionCall",
                        "functionResponse",
                        "inlineData",
                        "args",
                    ),
                    *("image_url", "url", "output", "arguments", "call_id", "reasoningContent", "cachePoint"),
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
_FIELDS = {
    "openai_chat": ("messages", "tools", "tool_choice", "response_format", "stop"),
    "openai_responses": ("input", "tools", "tool_choice", "text", "reasoning"),
    "anthropic": ("messages", "system", "tools", "tool_choice", "thinking", "output_config"),
    "gemini": ("contents", "systemInstruction", "tools", "toolConfig", "generationConfig"),
    "bedrock": ("messages", "system", "toolConfig", "outputConfig", "additionalModelRequestFields"),
}
_START: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "openai_responses": {"model": "m", "input": "x"},
    "anthropic": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    "gemini": {"contents": [{"parts": [{"text": "x"}]}]},
    "bedrock": {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
}
_ROLES = st.sampled_from(["user", "assistant", "model", "tool", "system"])
_MESSAGE = st.fixed_dictionaries({"role": _ROLES, "content": _SHAPES, "parts": st.lists(_SHAPES, max_size=2)})


@formats
@settings(bounded, max_examples=200)
@given(data=st.data())
def test_nearly_right_requests_are_read_or_refused(name: str, data: st.DataObject) -> None:
    """One field of any shape: a request or a clean refusal, and writing it elsewhere is as clean."""
    codec = codec_of(name)
    field = data.draw(st.sampled_from(_FIELDS[name]))
    value = data.draw(_SHAPES | st.lists(_MESSAGE, max_size=2))
    body = json.dumps({**_START[name], field: value}).encode()
    try:
        request, source = codec.read_request(body, "m", stream=True)
    except RequestError:
        return
    call = Call(request=request, source=source, id="1", deadline=0.0)
    for other in CODECS:
        try:
            codec_of(other).write_request(call, "m")
        except FirstTokenError:
            continue
