"""The OpenAI Chat Completions codec: requests, streams and answers, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsttoken.chat import Opaque, Reasoning, Text, ToolResult, ToolUse
from firsttoken.errors import (
    FirstTokenError,
    RequestError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Call, Chunk, ToolCall, Usage
from firsttoken.wire import openai_chat as wire
from firsttoken.wire import sse
from firsttoken.wire.openai_chat import answer as answers
from firsttoken.wire.openai_chat import errors as openai_errors
from firsttoken.wire.retry_after import retry_after

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


SLOW = {"message": "slow down"}
QUOTA = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": None}
AZURE_QUOTA = {"code": "429", "message": "Requests have exceeded token rate limit of your S0 tier."}
AZURE_BUSY = {"code": "429", "message": "The system is currently experiencing high demand."}
TOO_LARGE = {"code": "rate_limit_exceeded", "message": "Request too large for m on tokens per min (TPM)."}
CONTEXT = {"message": "Too long.", "code": "context_length_exceeded"}
VLLM = {"message": "This model's maximum context length is 4096 tokens.", "code": 400}
FILTER = {"message": "Filtered.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}


@pytest.mark.parametrize(
    ("status", "said", "error", "code", "policy"),
    [
        (429, SLOW, UpstreamRateLimitError, "rate_limit_exceeded", (True, True)),
        (429, AZURE_QUOTA, UpstreamRateLimitError, "rate_limit_exceeded", (True, True)),
        (429, AZURE_BUSY, UpstreamRateLimitError, "system_capacity", (True, True)),
        (429, TOO_LARGE, UpstreamRateLimitError, "request_too_large", (False, True)),
        (429, QUOTA, UpstreamRateLimitError, "insufficient_quota", (False, True)),
        (400, CONTEXT, UpstreamRefusedError, "context_length_exceeded", (False, False)),
        (400, VLLM, UpstreamRefusedError, "context_length_exceeded", (False, False)),
        (400, {"code": "content_filter"}, UpstreamRefusedError, "content_filter", (False, False)),
        (400, FILTER, UpstreamRefusedError, "content_filter", (False, False)),
        (403, {"message": "country"}, UpstreamAuthError, "upstream_auth", (False, True)),
        (408, {}, UpstreamTimeoutError, "upstream_timeout", (True, True)),
        (503, {"message": "slow down"}, UpstreamError, "upstream_error", (True, True)),
        (500, {"message": "x"}, UpstreamError, "upstream_error", (True, True)),
        (
            openai_errors.IN_STREAM,
            {"code": "rate_limit_exceeded"},
            UpstreamRateLimitError,
            "rate_limit_exceeded",
            (True, True),
        ),
        (
            openai_errors.IN_STREAM,
            {"type": "invalid_request_error"},
            UpstreamRefusedError,
            None,
            (False, False),
        ),
        (
            openai_errors.IN_STREAM,
            {"code": "content_filter"},
            UpstreamRefusedError,
            "content_filter",
            (False, False),
        ),
        (openai_errors.IN_STREAM, {"type": "server_error"}, UpstreamError, "upstream_error", (True, True)),
    ],
)
def test_each_error_has_its_row(
    status: int, said: Any, error: type[FirstTokenError], code: str | None, policy: tuple[bool, bool]
) -> None:
    """Class, code and what may be tried next follow from status, code, type and words."""
    found = openai_errors.error_from(status, {}, json.dumps({"error": said}).encode())
    assert type(found) is error
    assert (found.code, (found.retryable, found.failover)) == (code, policy)
    assert str(found)
    assert found.status >= 400


def test_every_row_has_a_source_and_can_be_reached() -> None:
    """The table says where each of its rows comes from; the last one fits everything."""
    assert all(row.source for row in openai_errors.ROWS)
    last = openai_errors.ROWS[-1]
    assert (last.statuses, last.codes, last.says) == ((), (), "")


def test_a_target_that_asks_not_to_be_retried() -> None:
    """OpenAI's header wins over the table."""
    assert not openai_errors.error_from(500, {"x-should-retry": "false"}, b"").retryable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds and dates are understood; nonsense is no wait."""
    assert retry_after(headers) == seconds


def padded(text: str, padding: Any = "abc", **fields: Any) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    envelope = {"model": "big", **fields, "choices": choices, "usage": None, "obfuscation": padding}
    return b"data: " + json.dumps(envelope, separators=(",", ":")).encode() + b"\n\n"


def test_events_alike_are_read_as_all_others() -> None:
    """Whether an event is decoded or compared with the one before makes no difference."""
    odd = ["a", 'q"\\', "a", "é\n", '"content":', "", "🙂", "obfuscation", ',"obfuscation":"x"}']
    stream = [delta(text) for text in odd] + [padded(text, text) for text in odd]
    reader = wire.StreamReader()
    one_by_one = [chunk for event in stream if (chunk := reader.feed(event))]
    assert [chunk.text for chunk in one_by_one] == odd * 2
    assert {(chunk.model, chunk.wire) for chunk in one_by_one} == {("big", wire.WIRE)}
    assert [chunk.raw for chunk in one_by_one] == stream
    together = wire.StreamReader().feed(b"".join(stream))
    assert together is not None
    assert together.text == "".join(odd * 2)


@pytest.mark.parametrize(
    "last",
    [
        padded("x").replace(b'"x"', b'"x'),
        padded("x").replace(b'"x"', b'"\xff"'),
        padded("x").replace(b'"x"', b'"x\n"'),
        padded("x").replace(b"abc", b"a\xffc"),
        padded("x").replace(b'abc"}', b'abc"]'),
        padded("x").replace(b'abc"}', b"abc}"),
        padded("x").replace(b'"x"', b'"x"},"delta":{"content":"y" "z"'),
        padded("x", 7).replace(b"7}", b"}"),
    ],
)
def test_a_broken_event_between_events_alike(last: bytes) -> None:
    """The short way lets nothing pass that is not JSON."""
    reader = wire.StreamReader()
    for event in [padded("a"), padded("b"), padded("c")]:
        reader.feed(event)
    with pytest.raises(UpstreamProtocolError):
        reader.feed(last)


def test_what_ends_an_answer_is_never_taken_for_text() -> None:
    """An event that is alike but for its finish, its tool call or its error is decoded."""
    reader = wire.StreamReader()
    for text in "abc":
        reader.feed(delta(text))
    chunk = reader.feed(delta("d", "length"))
    assert chunk is not None
    assert (chunk.text, chunk.finish) == ("d", "length")
    reader.close()


def test_reasoning_is_signed_in_extension_fields() -> None:
    """What a provider signed or encrypted comes back from a client that returns the message as it was."""
    chunks = [
        Chunk(reasoning="Hm", signature="sig", redacted="enc", model="big"),
        Chunk(tool_calls=(ToolCall(0, "c", "f", "{}", "called"),)),
        Chunk(finish="stop_sequence", stopped_by="END", usage=Usage(3, 2, cache_write=1)),
    ]
    answer = json.loads(wire.write_answer(call(), chunks, 7))
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
    assert answer["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 1
    again = call(messages=[choice["message"]]).request.messages[0]
    assert again.parts == (Reasoning("Hm", "sig", "enc"), ToolUse("c", "f", "{}", "called"))
    writer = wire.StreamWriter(call(stream=True), 7)
    stream = b"".join([writer.write(chunk) for chunk in chunks]) + writer.end()
    got = wire.StreamReader().feed(stream)
    assert got is not None
    assert (got.reasoning, got.signature, got.redacted) == ("Hm", "sig", "enc")
    assert (got.finish, got.stopped_by, got.tool_calls[0].signature) == ("stop_sequence", "END", "called")


def test_parts_of_tool_messages_are_not_lost() -> None:
    """What a tool's answer holds besides text and pictures is kept by name; cache markers are read."""
    content = [{"type": "text", "text": "x"}, {"type": "file", "file": {}}]
    message = call(messages=[{"role": "tool", "tool_call_id": "c", "content": content}]).request.messages[0]
    assert message.parts == (
        ToolResult("c", (Text("x"),)),
        Opaque(wire.WIRE, "content part of type file"),
    )
    marked = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert call(messages=[{"role": "user", "content": [marked]}]).request.messages[0].parts == (
        Text("x", cache="5m"),
    )
