"""The OpenAI Chat Completions codec: requests, streams and answers, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsttoken.errors import (
    FirstTokenError,
    RequestError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, ToolCall, Usage
from firsttoken.wire import openai_chat as wire
from firsttoken.wire import sse
from firsttoken.wire.openai_chat import answer as answers
from firsttoken.wire.openai_chat import errors as openai_errors

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def call(**fields: Any) -> Call:
    request, source = wire.read_request(json.dumps({**BODY, **fields}).encode())
    return Call(request=request, source=source, id="1", deadline=0.0)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event(
        {"model": "big", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    )


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not valid JSON"),
        (b"[]", None, "Expected `object`"),
        (b"{}", "model", "missing required field"),
        (b'{"model": 1}', "model", "Expected `str`"),
        (b'{"model": "m"}', "messages", "missing required field"),
        (b'{"model": "m", "messages": []}', "messages", "length >= 1"),
        (
            b'{"model": "m", "messages": [{"role": "boss", "content": ""}]}',
            "messages[0].role",
            "user, assistant",
        ),
        (b'{"model": "m", "messages": [{"content": ""}]}', "messages[0]", "role"),
        (b'{"model": "m", "messages": [{"role": "user"}], "temperature": 3}', "temperature", "<= 2"),
        (b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens", ">= 1"),
        (b'{"model": "m", "messages": [{"role": "user"}], "stream": "yes"}', "stream", "Expected `bool"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}', None, "not valid JSON"),
        (b'{"model": "m", "messages": [{"role": "user"}], "stop": 1}', "stop", "Expected"),
        (b"[" * 100_000, None, "Expected"),
        (b'{"a":' * 100_000, None, "nested too deep"),
    ],
)
def test_bad_requests_name_the_field(body: bytes, param: str | None, said: str) -> None:
    """What is wrong with a request is said with the field's path and what was expected."""
    with pytest.raises(RequestError) as caught:
        wire.read_request(body)
    assert caught.value.param == param
    assert said in str(caught.value)


def test_unknown_fields_are_kept_and_named() -> None:
    """A field without a word for it stays in the bytes and is listed."""
    assert call(future=1, another={"x": 1}).source.unknown == ("future", "another")
    assert call(temperature=1).source.unknown == ()
    assert call(future=None, n=1, logprobs=False, modalities=["text"]).source.unknown == ()
    assert call(n=2, tools=[{"type": "custom"}], tool_choice={"type": "x"}).source.unknown == (
        "n",
        "tools[0]",
        "tool_choice",
    )


def test_every_documented_field_is_accepted() -> None:
    """The fields of the API reference pass; those without a neutral word are listed for translators."""
    fields = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 5,
        "n": 1,
        "stop": ["a"],
        "seed": 1,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
        "verbosity": "low",
        "logit_bias": {"1": 1},
        "modalities": ["text"],
        "audio": {"voice": "x"},
        "reasoning_effort": "low",
        "prediction": {"type": "content", "content": ""},
        "store": False,
        "service_tier": "auto",
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "temperature": 1,
        "top_p": 0.5,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }
    read = call(**fields)
    assert set(read.source.unknown) == {
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "audio",
        "verbosity",
        "prediction",
    } | {"safety_identifier"}
    assert (read.request.max_tokens, read.request.include_usage) == (5, True)


def test_the_client_s_bytes_reach_the_target() -> None:
    """Nothing of the body changes; a different model name is the only thing replaced."""
    body = b'{ "model":"m" , "x": 1.10, "messages":[{"role":"user","content":"\\u00e9"}]}'
    request, source = wire.read_request(body)
    here = Call(request=request, source=source, id="1", deadline=0.0)
    assert wire.write_request(here, "m") == body
    assert wire.write_request(here, "big") == (
        b'{"model":"big","x":1.10,"messages":[{"role":"user","content":"\\u00e9"}]}'
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_stream_is_read_the_same_however_it_is_cut(size: int, ends: bytes) -> None:
    """Text, bytes and end of a stream do not depend on how the network cut it, inside of a character too."""
    head = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    body = (head + b": ping\n\n" + delta("né") + delta(" 東京🙂", "stop") + usage).replace(b"\n", ends)
    whole = body + b"data: [DONE]" + ends * 2
    reader = wire.StreamReader()
    chunks = [c for i in range(0, len(whole), size) if (c := reader.feed(whole[i : i + size]))]
    reader.close()
    assert reader.done
    assert "".join(chunk.text for chunk in chunks) == "né 東京🙂"
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage] == [Usage(input=3, output=2)]
    raw = b"".join(chunk.raw for chunk in chunks)
    if size < 5:
        return  # a comment that comes alone is not passed on
    assert raw.replace(b"\r", b"").replace(b": ping\n\n", b"") == body.replace(b"\r", b"").replace(
        b": ping\n\n", b""
    )


def test_tool_call_fragments_are_read() -> None:
    """Fragments of tool calls keep their index, id, name and arguments."""
    reader = wire.StreamReader()
    function = {"name": "f", "arguments": '{"a'}
    calls = [{"index": 1, "id": "c", "type": "function", "function": function}]
    chunk = reader.feed(event({"choices": [{"delta": {"tool_calls": calls}}]}))
    assert chunk is not None
    assert chunk.tool_calls == (ToolCall(index=1, id="c", name="f", arguments='{"a'),)


@pytest.mark.parametrize(
    ("received", "error"),
    [
        (b"data: {broken\n\n", UpstreamProtocolError),
        (b'data: {"choices": "x"}\n\n', UpstreamProtocolError),
        (b"data: \xff\n\n", UpstreamProtocolError),
        (event({"error": {"message": "overloaded", "type": "overloaded_error"}}), UpstreamError),
        (event({"error": "plain"}), UpstreamError),
        (b"x" * (sse.MAX_EVENT_BYTES + 1), UpstreamProtocolError),
    ],
)
def test_broken_streams_are_errors(received: bytes, error: type[FirstTokenError]) -> None:
    """A frame that is not what was agreed on never reaches the client, and what came before it does."""
    with pytest.raises(error):
        wire.StreamReader().feed(received)
    if not received.endswith(b"\n\n"):
        return
    reader = wire.StreamReader()
    chunk = reader.feed(delta("good") + received)
    assert chunk is not None
    assert (chunk.text, chunk.raw) == ("good", delta("good"))
    with pytest.raises(error):
        reader.close()


@pytest.mark.parametrize("received", [b"", delta("half"), delta("half") + b"data: {"])
def test_a_stream_that_just_ends_was_cut(received: bytes) -> None:
    """Without a finish reason or an end mark the answer is not whole."""
    reader = wire.StreamReader()
    reader.feed(received)
    with pytest.raises(UpstreamClosedError):
        reader.close()


def test_a_finish_reason_ends_a_stream_too() -> None:
    """Some servers send no end mark."""
    reader = wire.StreamReader()
    reader.feed(delta("all", "stop"))
    reader.close()


def test_own_chunks_become_events() -> None:
    """Text, tool calls, finish and usage are written in the shape that clients read."""
    writer = wire.StreamWriter(call(stream=True, stream_options={"include_usage": True}), created=7)
    first = writer.write(Chunk(text='a"é', model="big"))
    rest = writer.write(Chunk(tool_calls=(ToolCall(id="c", name="f", arguments="{}"),)))
    rest += writer.write(Chunk(finish="tool_calls", usage=Usage(input=3, output=2, cached=1)))
    end = writer.end()
    events = [
        json.loads(e.removeprefix(b"data: "))
        for e in (first + rest + end.removesuffix(answers.DONE)).split(b"\n\n")
        if e
    ]
    assert {(e["id"], e["object"], e["created"], e["model"]) for e in events} == {
        ("chatcmpl-1", "chat.completion.chunk", 7, "big")
    }
    deltas = [e["choices"][0]["delta"] for e in events[:-1]]
    assert deltas[:2] == [{"role": "assistant", "content": ""}, {"content": 'a"é'}]
    assert deltas[2]["tool_calls"] == [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-1]["usage"]["total_tokens"] == 5
    assert events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    assert end.endswith(answers.DONE)


def test_bytes_of_the_same_format_pass_unchanged() -> None:
    """A chunk that came in this format leaves as it came."""
    writer = wire.StreamWriter(call(stream=True), created=0)
    assert writer.write(Chunk(text="x", raw=b"data: x\n\n", wire=wire.WIRE)) == b"data: x\n\n"
    assert writer.end() == answers.DONE
    assert wire.write_answer(call(), [Chunk(raw=b"{ }", wire=wire.WIRE)], 0) == b"{ }"


def test_chunks_become_one_answer() -> None:
    """A whole answer joins text and tool call fragments."""
    chunks = [
        Chunk(text="a", model="big"),
        Chunk(tool_calls=(ToolCall(id="c", name="f"),)),
        Chunk(tool_calls=(ToolCall(arguments='{"x":'),)),
        Chunk(tool_calls=(ToolCall(arguments="1}"),)),
        Chunk(finish="tool_calls", usage=Usage(input=1, output=1)),
    ]
    answer = json.loads(wire.write_answer(call(), chunks, 7))
    message = answer["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
    assert (message["content"], answer["choices"][0]["finish_reason"]) == ("a", "tool_calls")
    assert answer["usage"]["total_tokens"] == 2


@pytest.mark.parametrize(
    ("status", "body", "error", "shown"),
    [
        (400, b'{"error": {"message": "bad x", "param": "x", "code": "c"}}', UpstreamRefusedError, "bad x"),
        (404, b"<html>", UpstreamRefusedError, "404"),
        (401, b'{"error": {"message": "key sk-123 is wrong"}}', UpstreamAuthError, "credentials"),
        (429, b'{"error": {"message": "slow down"}}', UpstreamRateLimitError, "slow down"),
        (503, b"", UpstreamError, "503"),
        (500, b'{"error": "boom at 10.0.0.1"}', UpstreamError, "500"),
        (302, b"", UpstreamError, "302"),
    ],
)
def test_error_answers_are_told_apart(
    status: int, body: bytes, error: type[FirstTokenError], shown: str
) -> None:
    """A refusal keeps the target's words; credentials and internals of the target are never shown."""
    found = openai_errors.error_from(status, {"retry-after": "2"}, body)
    assert type(found) is error
    assert shown in str(found)
    assert "sk-123" not in str(found)
    assert "10.0.0.1" not in str(found)
    assert found.status != 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds and dates are understood; nonsense is no wait."""
    assert openai_errors.retry_after(headers) == seconds
