"""Answers, streams and errors of Bedrock's Converse, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from firsttoken.chat import ChatRequest
from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    InternalError,
    NotFoundError,
    RequestError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.wire import bedrock as wire
from firsttoken.wire.eventstream import Framer

DEEP = b'{"a":' * 100_000


def call(**fields: Any) -> Call:
    return Call(ChatRequest("m", (), **fields), Source("other", b"{}"), "1", 0.0)


def event(name: str, value: Any) -> bytes:
    return Framer({":event-type": name, ":content-type": "application/json", ":message-type": "event"})(
        json.dumps(value).encode()
    )


def delta(value: dict[str, Any], index: int = 0) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": value, "p": "abcdef"})


def begin(index: int, name: str, **more: Any) -> bytes:
    tool = {"toolUseId": f"id-{name}", "name": name, **more}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": tool}})


def exception(name: str, words: str) -> bytes:
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return Framer(headers)(json.dumps({"message": words}).encode())


STOP = event("messageStop", {"stopReason": "end_turn"})


def frames(data: bytes) -> list[tuple[str, Any]]:
    """Read frames as AWS's own client does."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [
        (m.headers.get(":event-type") or m.headers[":exception-type"], json.loads(m.payload)) for m in buffer
    ]


WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
                {"reasoningContent": {"redactedContent": "eA=="}},
                {"text": "a"},
                {"citationsContent": {"content": [{"text": "b"}], "citations": [{"title": "t"}]}},
                {"toolUse": {"toolUseId": "s", "name": "web", "input": {}, "type": "server_tool_use"}},
                {"toolUse": {"toolUseId": "1", "name": "f", "input": {"a": 1}}},
                {"hologram": {}},
            ],
        }
    },
    "stopReason": "stop_sequence",
    "usage": {
        "inputTokens": 3,
        "outputTokens": 2,
        "totalTokens": 12,
        "cacheReadInputTokens": 5,
        "cacheWriteInputTokens": 2,
    },
    "metrics": {"latencyMs": 1},
    "additionalModelResponseFields": {"stop_sequence": "END"},
    "trace": {"promptRouter": {"invokedModelId": "chosen"}},
}


def test_a_whole_answer_is_read() -> None:
    """All of its parts, its usage in all classes, and its own bytes."""
    body = json.dumps(WHOLE).encode()
    assert wire.read_answer(body) == Chunk(
        text="ab",
        reasoning="hm",
        tool_calls=(ToolCall(0, "1", "f", '{"a": 1}'),),
        finish="stop_sequence",
        usage=Usage(input=10, output=2, cached=5, cache_write=2),
        model="chosen",
        raw=body,
        wire=wire.WIRE,
        signature="sig",
        redacted="eA==",
        citations=({"title": "t"},),
        stopped_by="END",
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"output": 1}', b"\xff", b"<html>", DEEP])
def test_a_broken_answer(body: bytes) -> None:
    """What is no answer is the target's fault."""
    with pytest.raises(UpstreamProtocolError):
        wire.read_answer(body)


def test_a_malformed_output_is_an_error() -> None:
    """The model's output cannot be used: another try may help."""
    answer = {**WHOLE, "stopReason": "malformed_tool_use"}
    with pytest.raises(UpstreamError, match="malformed_tool_use") as caught:
        wire.read_answer(json.dumps(answer).encode())
    assert caught.value.retryable
    with pytest.raises(UpstreamError):
        wire.open_reader().feed(event("messageStop", {"stopReason": "malformed_model_output"}))


def test_a_whole_answer_is_written() -> None:
    """Blocks in the order of the model's own, usage as Bedrock counts it."""
    chunks = [
        Chunk(reasoning="hm", signature="sig", redacted="eA=="),
        Chunk(text="a", citations=({"type": "url_citation", "url_citation": {"title": "t", "url": "u"}},)),
        Chunk(tool_calls=(ToolCall(0, "", "f"), ToolCall(0, arguments='{"a":1}'))),
        Chunk(finish="context_length", usage=Usage(10, 4, cached=5, cache_write=2, reasoning=1)),
    ]
    answer = json.loads(wire.write_answer(call(), chunks, 7))
    assert answer["output"]["message"] == {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
            {"reasoningContent": {"redactedContent": "eA=="}},
            {
                "citationsContent": {
                    "content": [{"text": "a"}],
                    "citations": [{"title": "t", "location": {"web": {"url": "u"}}}],
                }
            },
            {"toolUse": {"toolUseId": "tooluse_1_0", "name": "f", "input": {"a": 1}}},
        ],
    }
    assert answer["stopReason"] == "model_context_window_exceeded"
    assert answer["usage"] == {
        "inputTokens": 3,
        "outputTokens": 4,
        "totalTokens": 14,
        "cacheReadInputTokens": 5,
        "cacheWriteInputTokens": 2,
        "reasoningTokens": 1,
    }


def test_arguments_that_are_no_json_cannot_be_written() -> None:
    """A whole answer holds them as JSON: a target that sent something else failed."""
    for arguments in ("{", "[]", DEEP.decode()):
        with pytest.raises(UpstreamProtocolError):
            wire.write_answer(call(), [Chunk(tool_calls=(ToolCall(0, "1", "f", arguments),))], 7)


def test_whole_answers_of_the_same_format_pass_unchanged() -> None:
    """Not a byte changes."""
    assert wire.write_answer(call(), [Chunk(raw=b"{ }", wire=wire.WIRE)], 0) == b"{ }"


def drained(reader: wire.StreamReader, data: bytes) -> list[Chunk]:
    chunks = [reader.feed(data)]
    while chunks[-1] is not None:
        chunks.append(reader.feed(b""))
    return [chunk for chunk in chunks if chunk is not None]


def test_events_are_read() -> None:
    """All kinds of events; unknown ones and padding are passed on without a meaning."""
    data = b"".join(
        [
            event("messageStart", {"role": "assistant"}),
            event("initial-response", {}),
            delta({"reasoningContent": {"text": "h"}}),
            delta({"reasoningContent": {"signature": "sig"}}),
            delta({"text": "né"}, 1),
            delta({"citation": {"title": "t"}}, 1),
            event("contentBlockStop", {"contentBlockIndex": 1}),
            begin(2, "web", type="server_tool_use"),
            delta({"toolUse": {"input": "{}"}}, 2),
            begin(3, "f"),
            delta({"toolUse": {"input": '{"a"'}}, 3),
            begin(4, "g", signature="gs"),
            delta({"toolUse": {"input": ":1}"}}, 3),
            delta({"hologram": {}}, 5),
            event("messageStop", {"stopReason": "tool_use", "additionalModelResponseFields": {"x": 1}}),
            event(
                "metadata",
                {
                    "usage": {
                        "inputTokens": 3,
                        "outputTokens": 2,
                        "totalTokens": 5,
                        "cacheReadInputTokens": 4,
                    },
                    "metrics": {"latencyMs": 1},
                    "trace": {"promptRouter": {"invokedModelId": "chosen"}},
                },
            ),
        ]
    )
    reader = wire.open_reader()
    chunk = reader.feed(data)
    assert chunk == Chunk(
        text="né",
        reasoning="h",
        tool_calls=(
            ToolCall(0, "id-f", "f"),
            ToolCall(0, arguments='{"a"'),
            ToolCall(1, "id-g", "g", signature="gs"),
            ToolCall(0, arguments=":1}"),
        ),
        finish="tool_calls",
        usage=Usage(input=7, output=2, cached=4),
        model="chosen",
        raw=data,
        wire=wire.WIRE,
        signature="sig",
        citations=({"title": "t"},),
    )
    assert reader.feed(b"") is None
    reader.close()


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_the_order_of_blocks_is_kept(size: int) -> None:
    """Text behind a tool call is a chunk of its own, in one read too, and every byte is passed on once."""
    data = delta({"text": "a"}) + begin(1, "f") + delta({"text": "b"}, 2) + begin(3, "g") + STOP
    reader = wire.open_reader()
    chunks = [c for at in range(0, len(data), size) for c in drained(reader, data[at : at + size])]
    reader.close()
    assert b"".join(chunk.raw for chunk in chunks) == data
    said = [(c.text, [tool.name for tool in c.tool_calls]) for c in chunks if c.text or c.tool_calls]
    if size < 10_000:
        assert [word for text, names in said for word in (text, *names) if word] == ["a", "f", "b", "g"]
    else:
        assert said == [("a", ["f"]), ("b", ["g"])]


def test_bytes_wait_for_chunks_that_were_not_taken() -> None:
    """Who does not drain the reader loses nothing; ending then is a defect of ours."""
    reader = wire.open_reader()
    first = reader.feed(begin(0, "f") + delta({"text": "a"}, 1))
    with pytest.raises(InternalError):
        reader.close()
    second, third = reader.feed(delta({"text": "b"}, 1) + STOP), reader.feed(b"")
    assert first is not None
    assert second is not None
    assert third is not None
    assert [first.tool_calls[0].name, second.text, third.text, third.finish] == ["f", "a", "b", "stop"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (event("contentBlockDelta", {"delta": 1}), UpstreamProtocolError),
        (event("contentBlockDelta", []), UpstreamProtocolError),
        (event("messageStop", {}), UpstreamProtocolError),
        (delta({"toolUse": {"input": "x"}}, 9), UpstreamProtocolError),
        (Framer({":message-type": "event", ":event-type": "metadata"})(b"{"), UpstreamProtocolError),
        (Framer({":message-type": "event", ":event-type": "metadata"})(b"\xff"), UpstreamProtocolError),
        (Framer({":message-type": "event", ":event-type": "metadata"})(DEEP), UpstreamProtocolError),
        (Framer({})(b"{}"), UpstreamProtocolError),
        (Framer({":message-type": "odd"})(b"{}"), UpstreamProtocolError),
        (b"HTTP/1.1 502 Bad Gateway\r\n", UpstreamProtocolError),
        (exception("throttlingException", "Too many tokens"), UpstreamRateLimitError),
        (exception("validationException", "Bad"), UpstreamRefusedError),
        (exception("modelStreamErrorException", "Boom"), UpstreamError),
        (exception("internalServerException", "Boom"), UpstreamError),
        (exception("serviceUnavailableException", "Boom"), UpstreamError),
        (exception("modelTimeoutException", "Slow"), UpstreamTimeoutError),
        (exception("oddException", "Boom"), UpstreamError),
        (Framer({":message-type": "exception"})(b""), UpstreamError),
        (
            Framer({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "x"})(b""),
            UpstreamError,
        ),
    ],
)
def test_broken_streams_are_errors(data: bytes, error: type[FirstTokenError]) -> None:
    """A frame that is not what was agreed on reaches nobody, and what came before it does."""
    with pytest.raises(error) as caught:
        wire.open_reader().feed(data)
    assert type(caught.value) is error
    reader = wire.open_reader()
    chunk = reader.feed(delta({"text": "good"}) + data)
    assert chunk is not None
    assert (chunk.text, chunk.raw) == ("good", delta({"text": "good"}))
    for again in (lambda: reader.feed(b""), reader.close):
        with pytest.raises(error):
            again()


@pytest.mark.parametrize("data", [b"", delta({"text": "half"}), delta({"text": "half"}) + STOP[:-1]])
def test_a_stream_that_just_ends_was_cut(data: bytes) -> None:
    """Without a stop reason the answer is not whole."""
    reader = wire.open_reader()
    reader.feed(data)
    with pytest.raises(UpstreamClosedError):
        reader.close()


def test_token_counts_may_be_missing() -> None:
    """An answer that said why it ended is whole, whatever becomes of the last event."""
    reader = wire.open_reader()
    reader.feed(STOP + event("metadata", {})[:9])
    reader.close()


def test_own_chunks_become_events() -> None:
    """Blocks have numbers and follow one another; the end and the token counts come last."""
    writer = wire.open_writer(call(stream=True), 7)
    chunks = [
        Chunk(reasoning="h"),
        Chunk(reasoning="m", signature="sig"),
        Chunk(redacted="eA=="),
        Chunk(text='a"é'),
        Chunk(text="b", citations=({"cited_text": "q", "document_title": "d"},)),
        Chunk(tool_calls=(ToolCall(0, "1", "f"),)),
        Chunk(tool_calls=(ToolCall(0, arguments="{"), ToolCall(0, arguments="}"), ToolCall(1, "2", "g"))),
        Chunk(refusal="no"),
        Chunk(finish="stop_sequence", stopped_by="END"),
        Chunk(usage=Usage(5, 2, cached=1)),
    ]
    found = frames(b"".join([writer.write(chunk) for chunk in chunks]) + writer.end())
    assert [name for name, _ in found] == [
        *("messageStart", "contentBlockDelta", "contentBlockDelta", "contentBlockDelta", "contentBlockStop"),
        *("contentBlockDelta", "contentBlockStop"),
        *("contentBlockDelta", "contentBlockDelta", "contentBlockDelta", "contentBlockStop"),
        *("contentBlockStart", "contentBlockDelta", "contentBlockDelta", "contentBlockStop"),
        *("contentBlockStart", "contentBlockStop"),
        *("contentBlockDelta", "contentBlockStop", "messageStop", "metadata"),
    ]
    deltas = [value["delta"] for name, value in found if name == "contentBlockDelta"]
    assert deltas == [
        {"reasoningContent": {"text": "h"}},
        {"reasoningContent": {"text": "m"}},
        {"reasoningContent": {"signature": "sig"}},
        {"reasoningContent": {"redactedContent": "eA=="}},
        {"text": 'a"é'},
        {"text": "b"},
        {"citation": {"title": "d", "sourceContent": [{"text": "q"}]}},
        {"toolUse": {"input": "{"}},
        {"toolUse": {"input": "}"}},
        {"text": "no"},
    ]
    numbers = [value["contentBlockIndex"] for name, value in found if name.startswith("contentBlock")]
    assert numbers == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5]
    assert found[-2][1] == {
        "stopReason": "stop_sequence",
        "additionalModelResponseFields": {"stop_sequence": "END"},
    }
    assert found[-1][1]["usage"]["cacheReadInputTokens"] == 1
    assert found[-1][1]["usage"]["inputTokens"] == 4


def test_an_empty_answer_is_complete() -> None:
    """It begins and ends like any other."""
    assert [name for name, _ in frames(wire.open_writer(call(), 7).end())] == ["messageStart", "messageStop"]


def test_frames_of_the_same_format_pass_unchanged() -> None:
    """A chunk that came in this format leaves as it came, and nothing is added."""
    writer = wire.open_writer(call(stream=True), 0)
    assert writer.write(Chunk(text="x", raw=STOP, wire=wire.WIRE)) is STOP
    assert writer.end() == b""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamRateLimitError("wait"), "throttlingException"),
        (UpstreamError("full", status=503), "serviceUnavailableException"),
        (UpstreamClosedError("cut"), "modelStreamErrorException"),
        (DeadlineError("late"), "modelStreamErrorException"),
        (RequestError("bad"), "validationException"),
        (InternalError("oops"), "internalServerException"),
    ],
)
def test_a_broken_answer_ends_with_an_exception(error: FirstTokenError, kind: str) -> None:
    """Clients raise it, with our words; it is no end of an answer."""
    data = wire.open_writer(call(), 0).error(error, "req_1")
    ((name, value),) = frames(data)
    assert (name, value["message"], value["requestId"]) == (kind, str(error), "req_1")


def test_heartbeats_are_read_over() -> None:
    """They are frames of their own, without a meaning."""
    reader = wire.open_reader()
    chunk = reader.feed(wire.open_writer(call(), 0).heartbeat())
    assert chunk is not None
    assert (chunk.text, chunk.finish) == ("", None)


def answered(name: str, words: str = "boom at 10.0.0.1", status: int = 400, **headers: str) -> UpstreamError:
    body = json.dumps({"message": words}).encode()
    return wire.error_from(status, {"x-amzn-errortype": name, **headers}, body)


@pytest.mark.parametrize(
    ("name", "status", "error", "expected"),
    [
        ("ValidationException", 400, UpstreamRefusedError, (400, False, False)),
        ("ThrottlingException", 429, UpstreamRateLimitError, (429, True, True)),
        ("ServiceQuotaExceededException", 400, UpstreamRateLimitError, (429, False, True)),
        ("ModelNotReadyException", 429, UpstreamError, (503, True, True)),
        ("ModelTimeoutException", 408, UpstreamTimeoutError, (504, True, True)),
        ("ModelErrorException", 424, UpstreamError, (502, True, True)),
        ("ModelStreamErrorException", 424, UpstreamError, (502, True, True)),
        ("ServiceUnavailableException", 503, UpstreamError, (503, True, True)),
        ("InternalServerException", 500, UpstreamError, (502, True, True)),
        ("AccessDeniedException", 403, UpstreamAuthError, (502, False, True)),
        ("ExpiredTokenException", 403, UpstreamAuthError, (502, False, True)),
        ("UnrecognizedClientException", 403, UpstreamAuthError, (502, False, True)),
        ("ResourceNotFoundException", 404, UpstreamRefusedError, (404, False, True)),
        ("ConflictException", 400, UpstreamError, (502, True, True)),
        ("com.amazon#ThrottlingException:http://x", 429, UpstreamRateLimitError, (429, True, True)),
        ("OddException", 429, UpstreamRateLimitError, (429, True, True)),
        ("OddException", 403, UpstreamAuthError, (502, False, True)),
        ("OddException", 422, UpstreamRefusedError, (422, False, False)),
        ("", 504, UpstreamTimeoutError, (504, True, True)),
        ("", 503, UpstreamError, (503, True, True)),
        ("", 302, UpstreamError, (502, True, True)),
    ],
)
def test_errors_are_told_apart(
    name: str, status: int, error: type[UpstreamError], expected: tuple[int, bool, bool]
) -> None:
    """Each kind has its class, status, and whether another try or another target may help."""
    found = answered(name, status=status)
    assert type(found) is error
    assert (found.status, found.retryable, found.failover) == expected
    if error not in (UpstreamRefusedError, UpstreamRateLimitError):
        assert "10.0.0.1" not in str(found)


@pytest.mark.parametrize(
    ("name", "words", "code", "said"),
    [
        (
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn\u2019t supported. Retry your request ...",
            "inference_profile_required",
            "inference profile",
        ),
        (
            "ValidationException",
            "The provided model doesn't support on-demand throughput.",
            "inference_profile_required",
            "us., eu., apac. or global.",
        ),
        (
            "ValidationException",
            "Input is too long for requested model.",
            "context_length_exceeded",
            "too long",
        ),
        (
            "ValidationException",
            "prompt is too long: 9 tokens > 2 maximum",
            "context_length_exceeded",
            "9 tokens",
        ),
        ("ThrottlingException", "Too many tokens per day, please wait.", "daily_quota_exceeded", "per day"),
    ],
)
def test_words_that_say_more_than_the_kind(name: str, words: str, code: str, said: str) -> None:
    """They are told apart by what they say."""
    found = answered(name, words)
    assert found.code == code
    assert said in str(found)
    assert not found.retryable


@pytest.mark.parametrize(
    "body",
    [
        b'{"__type": "x#ThrottlingException", "message": "m"}',
        b'{"code": "ThrottlingException", "Message": "m"}',
    ],
)
def test_the_body_may_name_the_kind(body: bytes) -> None:
    """As AWS's restJson1 protocol allows."""
    found = wire.error_from(400, {"retry-after": "3"}, body)
    assert isinstance(found, UpstreamRateLimitError)
    assert (str(found), found.retry_after) == ("m", 3.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"message": 1}', DEEP])
def test_a_body_that_says_nothing(body: bytes) -> None:
    """The status decides."""
    assert isinstance(wire.error_from(500, {}, body), UpstreamError)
    assert "400" in str(wire.error_from(400, {}, body))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("bad"), "ValidationException"),
        (NotFoundError("none"), "ResourceNotFoundException"),
        (UpstreamRateLimitError("wait"), "ThrottlingException"),
        (UpstreamError("fails"), "ModelErrorException"),
        (DeadlineError("late"), "ModelTimeoutException"),
        (InternalError("oops"), "InternalServerException"),
    ],
)
def test_our_errors_as_bedrock_writes_them(error: FirstTokenError, kind: str) -> None:
    """The kind stands in the body, where every AWS client looks when no header names it."""
    body = json.loads(wire.write_error(error, "req_1"))
    assert body == {"__type": kind, "message": str(error), "requestId": "req_1"}
