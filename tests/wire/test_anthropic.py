"""The Anthropic Messages codec: streams, answers and errors, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsttoken.errors import (
    AuthenticationError,
    BodyTooLargeError,
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
from firsttoken.model import Call, Chunk, ToolCall, Usage
from firsttoken.wire import anthropic as wire
from firsttoken.wire import sse

BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def call(**fields: Any) -> Call:
    request, source = wire.read_request(json.dumps({**BODY, **fields}).encode())
    return Call(request=request, source=source, id="req_1", deadline=0.0)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(index: int = 0, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta=fields)


def text(said: str) -> bytes:
    return delta(type="text_delta", text=said)


USAGE = {
    "input_tokens": 3,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 7,
    "output_tokens": 1,
}
START = event("message_start", message={"type": "message", "model": "big", "content": [], "usage": USAGE})
STOP = event("message_stop")


def ending(reason: str = "end_turn", **fields: Any) -> bytes:
    stop = {"stop_reason": reason, "stop_sequence": None, **fields}
    return event("message_delta", delta=stop, usage={"output_tokens": 8})


def read(*events: bytes) -> list[Chunk]:
    """Read events of one network read, whatever order they are in."""
    reader = wire.StreamReader()
    found, received = [], b"".join(events)
    while (chunk := reader.feed(received)) is not None:
        found.append(chunk)
        received = b""
    reader.close()
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_stream_is_read_the_same_however_it_is_cut(size: int, ends: bytes) -> None:
    """Text, bytes and end of a stream do not depend on how the network cut it."""
    body = START + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    body += event("ping") + text("né") + event("future") + text(" 東京🙂")
    body += event("content_block_stop", index=0) + ending()
    body = body.replace(b"\n", ends)
    received = body + STOP.replace(b"\n", ends) + b"data: late\n\n"
    reader = wire.StreamReader()
    chunks = [c for i in range(0, len(received), size) if (c := reader.feed(received[i : i + size]))]
    reader.close()
    assert reader.done
    assert "".join(chunk.text for chunk in chunks) == "né 東京🙂"
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"]
    assert chunks[-1].usage == Usage(input=15, output=8, cached=5, cache_write=7)
    assert b"".join(chunk.raw for chunk in chunks).replace(b"\r", b"") == body.replace(b"\r", b"")
    assert next(chunk.model for chunk in chunks if chunk.model) == "big"


def test_tools_thoughts_and_citations_are_read() -> None:
    """Blocks become fragments with an index of their own; each delta keeps its kind."""
    cited = {"type": "char_location", "cited_text": "x", "document_index": 0}
    chunks = read(
        START,
        event(
            "content_block_start",
            index=0,
            content_block={"type": "thinking", "thinking": "", "signature": ""},
        ),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="sig"),
        event("content_block_start", index=1, content_block={"type": "redacted_thinking", "data": "enc"}),
        event("content_block_start", index=2, content_block={"type": "text", "text": "a"}),
        delta(2, type="citations_delta", citation=cited),
        event(
            "content_block_start", index=3, content_block={"type": "server_tool_use", "id": "s", "name": "w"}
        ),
        delta(3, type="input_json_delta", partial_json="{}"),
        event(
            "content_block_start",
            index=4,
            content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}},
        ),
        delta(4, type="input_json_delta", partial_json='{"a'),
        delta(4, type="input_json_delta", partial_json='":1}'),
        event(
            "content_block_start",
            index=5,
            content_block={"type": "tool_use", "id": "u", "name": "g", "input": {"b": 2}},
        ),
        ending("tool_use"),
        STOP,
    )
    assert len(chunks) == 1
    found = chunks[0]
    assert (found.reasoning, found.signature, found.redacted, found.text) == ("hm", "sig", "enc", "a")
    assert found.citations == (cited,)
    assert found.tool_calls == (
        ToolCall(0, "t", "f"),
        ToolCall(0, arguments='{"a'),
        ToolCall(0, arguments='":1}'),
        ToolCall(1, "u", "g", '{"b": 2}'),
    )
    assert found.finish == "tool_calls"


def test_the_order_of_blocks_survives_one_read() -> None:
    """What one chunk cannot say in order comes as several, each with its own bytes, and nothing is lost."""
    thought = [
        delta(0, type="thinking_delta", thinking="a"),
        delta(0, type="signature_delta", signature="s1"),
    ]
    again = [delta(1, type="thinking_delta", thinking="b"), delta(1, type="signature_delta", signature="s2")]
    tool = event("content_block_start", index=3, content_block={"type": "tool_use", "id": "t", "name": "f"})
    events = [START, *thought, *again, text("one"), tool, event("ping"), text("two"), ending(), STOP]
    chunks = read(*events)
    assert [(c.reasoning, c.signature, c.text, len(c.tool_calls)) for c in chunks] == [
        ("a", "s1", "", 0),
        ("b", "s2", "one", 1),
        ("", "", "two", 0),
    ]
    assert b"".join(chunk.raw for chunk in chunks) == b"".join(events[:-1])
    assert chunks[1].raw.endswith(event("ping"))


def test_held_parts_wait_for_later_bytes() -> None:
    """Bytes that come while parts are held are read after them, and closing too early is a defect."""
    reader = wire.StreamReader()
    tool = event("content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "name": "f"})
    assert reader.feed(START + tool + text("one"))
    with pytest.raises(InternalError):
        reader.close()
    held = reader.feed(text(" two"))
    assert held
    assert held.text == "one"
    later = reader.feed(ending() + STOP)
    assert later
    assert (later.text, later.finish) == (" two", "stop")
    reader.close()


@pytest.mark.parametrize(
    ("reason", "finish", "back"),
    [
        ("end_turn", "stop", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("stop_sequence", "stop_sequence", "stop_sequence"),
        ("tool_use", "tool_calls", "tool_use"),
        ("pause_turn", "length", "max_tokens"),
        ("refusal", "refusal", "refusal"),
        ("model_context_window_exceeded", "context_length", "model_context_window_exceeded"),
        ("something_new", "stop", "end_turn"),
    ],
)
def test_stop_reasons_both_ways(reason: str, finish: str, back: str) -> None:
    """Each stop reason has a neutral word, and every neutral word one of this format's."""
    chunk = read(START, ending(reason, stop_sequence="x"), STOP)[0]
    assert (chunk.finish, chunk.stopped_by) == (finish, "x")
    written = json.loads(wire.write_answer(call(), [Chunk(finish=chunk.finish, stopped_by="x")], 0))
    assert (written["stop_reason"], written["stop_sequence"]) == (back, "x")


def test_why_a_request_was_refused_is_kept() -> None:
    """The explanation of a refusal is its text, in both directions."""
    details = {"type": "refusal", "category": None, "explanation": "no"}
    chunk = read(START, ending("refusal", stop_details=details), STOP)[0]
    assert chunk.refusal == "no"
    written = json.loads(
        wire.write_answer(call(), [Chunk(refusal="n"), Chunk(refusal="o", finish="stop")], 0)
    )
    assert (written["stop_reason"], written["stop_details"]) == ("refusal", details)


OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


@pytest.mark.parametrize(
    ("received", "error"),
    [
        (b"event: x\ndata: {broken\n\n", UpstreamProtocolError),
        (b"data: {}\n\n", UpstreamProtocolError),
        (
            b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":1}}\n\n',
            UpstreamProtocolError,
        ),
        (b'data: {"type":"\xff"}\n\n', UpstreamProtocolError),
        (OVERLOADED, UpstreamError),
        (event("error", error={"type": "rate_limit_error", "message": "slow"}), UpstreamRateLimitError),
        (event("error", error={"type": "authentication_error", "message": "x"}), UpstreamAuthError),
        (event("error", error={"type": "invalid_request_error", "message": "x"}), UpstreamRefusedError),
        (event("error", error={"type": "timeout_error", "message": "x"}), UpstreamTimeoutError),
        (event("error"), UpstreamError),
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
    chunk = reader.feed(text("good") + received)
    assert chunk is not None
    assert (chunk.text, chunk.raw) == ("good", text("good"))
    with pytest.raises(error):
        reader.close()


@pytest.mark.parametrize("received", [b"", START + text("half"), START + text("half") + b"event: mess"])
def test_a_stream_that_just_ends_was_cut(received: bytes) -> None:
    """Without a stop reason the answer is not whole."""
    reader = wire.StreamReader()
    reader.feed(received)
    with pytest.raises(UpstreamClosedError):
        reader.close()


def test_a_whole_answer_is_read() -> None:
    """All blocks of an answer are one chunk, with its own bytes."""
    body = {
        "type": "message",
        "model": "big",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
            {"type": "text", "text": "b"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {**USAGE, "output_tokens_details": {"thinking_tokens": 1}},
    }
    raw = json.dumps(body).encode()
    assert wire.read_answer(raw) == Chunk(
        text="ab",
        reasoning="hm",
        signature="sig",
        citations=({"type": "char_location"},),
        tool_calls=(ToolCall(0, "t", "f", '{"x": 1}'),),
        finish="tool_calls",
        usage=Usage(input=15, output=1, cached=5, cache_write=7, reasoning=1),
        model="big",
        raw=raw,
        wire="anthropic",
    )


def test_several_thoughts_in_one_answer_have_no_signature() -> None:
    """Joined text would not be what any of the signatures signs."""
    thoughts = [{"type": "thinking", "thinking": word, "signature": word} for word in "ab"]
    chunk = wire.read_answer(json.dumps({"content": thoughts, "stop_reason": "end_turn"}).encode())
    assert (chunk.reasoning, chunk.signature) == ("ab", "")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", UpstreamProtocolError),
        (b'{"content": "x"}', UpstreamProtocolError),
        (b'{"content": [{"type": "text", "text": "\xff"}]}', UpstreamProtocolError),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', UpstreamError),
    ],
)
def test_broken_answers_are_errors(body: bytes, error: type[FirstTokenError]) -> None:
    """What is no message is an error of the target."""
    with pytest.raises(error):
        wire.read_answer(body)


def test_chunks_become_one_answer() -> None:
    """A whole answer has a block for each kind of content, and counts tokens as this format does."""
    chunks = [
        Chunk(reasoning="hm", model="big"),
        Chunk(signature="sig"),
        Chunk(text="a"),
        Chunk(citations=({"x": 1},)),
        Chunk(tool_calls=(ToolCall(0, "t", "f"), ToolCall(0, arguments='{"x":1}'), ToolCall(1, "u", "g"))),
        Chunk(finish="tool_calls", usage=Usage(input=15, output=8, cached=5, cache_write=7, reasoning=2)),
    ]
    assert json.loads(wire.write_answer(call(), chunks, 7)) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "a", "citations": [{"x": 1}]},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "u", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 7,
            "cache_read_input_tokens": 5,
            "output_tokens": 8,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }


def written(*chunks: Chunk) -> list[Any]:
    """Write chunks and return the events, each checked to be named like its type."""
    writer = wire.StreamWriter(call(stream=True), 0)
    found = []
    for item in (b"".join([writer.write(chunk) for chunk in chunks]) + writer.end()).split(b"\n\n")[:-1]:
        name, data = item.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def test_chunks_become_blocks() -> None:
    """Each kind of content opens a block of its own, one at a time; the last event says why and how much."""
    events = written(
        Chunk(reasoning="h", model="big", usage=Usage(input=4)),
        Chunk(reasoning="m", signature="sig"),
        Chunk(redacted="enc"),
        Chunk(text='a"é'),
        Chunk(text="b"),
        Chunk(tool_calls=(ToolCall(0, "t", "f"), ToolCall(0, arguments="{}"))),
        Chunk(tool_calls=(ToolCall(1, "u", "g", '{"x":1}'),)),
        Chunk(text="c", citations=({"x": 1},)),
        Chunk(finish="tool_calls"),
        Chunk(usage=Usage(input=4, output=9, cached=1)),
    )
    start, *middle, last, stop = events
    assert start["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }
    shown = [
        (e["index"], e["content_block"] if "content_block" in e else e.get("delta", "stop")) for e in middle
    ]
    assert shown == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "thinking_delta", "thinking": "h"}),
        (0, {"type": "thinking_delta", "thinking": "m"}),
        (0, {"type": "signature_delta", "signature": "sig"}),
        (0, "stop"),
        (1, {"type": "redacted_thinking", "data": "enc"}),
        (1, "stop"),
        (2, {"type": "text", "text": ""}),
        (2, {"type": "text_delta", "text": 'a"é'}),
        (2, {"type": "text_delta", "text": "b"}),
        (2, "stop"),
        (3, {"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        (3, {"type": "input_json_delta", "partial_json": "{}"}),
        (3, "stop"),
        (4, {"type": "tool_use", "id": "u", "name": "g", "input": {}}),
        (4, {"type": "input_json_delta", "partial_json": '{"x":1}'}),
        (4, "stop"),
        (5, {"type": "text", "text": ""}),
        (5, {"type": "text_delta", "text": "c"}),
        (5, {"type": "citations_delta", "citation": {"x": 1}}),
        (5, "stop"),
    ]
    assert last["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (3, 9)
    assert stop == {"type": "message_stop"}


def test_an_empty_answer_is_an_answer() -> None:
    """Clients expect a beginning and an end whatever is between them."""
    assert [e["type"] for e in written()] == ["message_start", "message_delta", "message_stop"]
    assert [e["type"] for e in written(Chunk(finish="length"))][-2:] == ["message_delta", "message_stop"]


def test_mixed_fragments_of_tools_are_an_error() -> None:
    """One block is open at a time: a fragment of one that has ended cannot be written."""
    writer = wire.StreamWriter(call(stream=True), 0)
    writer.write(Chunk(tool_calls=(ToolCall(0, "t", "f"), ToolCall(1, "u", "g"))))
    with pytest.raises(UpstreamProtocolError, match="mixed"):
        writer.write(Chunk(tool_calls=(ToolCall(0, arguments="{}"),)))


def test_what_is_written_is_read_back() -> None:
    """Reading what was written gives the same content, finish and usage."""
    said = [
        Chunk(reasoning="hm", signature="s", model="big"),
        Chunk(text="a"),
        Chunk(tool_calls=(ToolCall(0, "t", "f", '{"a":1}'),)),
        Chunk(text="b"),
        Chunk(finish="stop_sequence", stopped_by="x", usage=Usage(9, 8, 3, 2, 1)),
    ]
    writer = wire.StreamWriter(call(stream=True), 0)
    chunks = read(b"".join([writer.write(chunk) for chunk in said]) + writer.end())
    assert [(c.reasoning, c.text, c.tool_calls) for c in chunks] == [
        ("hm", "a", (ToolCall(0, "t", "f"), ToolCall(0, arguments='{"a":1}'))),
        ("", "b", ()),
    ]
    assert (chunks[-1].finish, chunks[-1].stopped_by) == ("stop_sequence", "x")
    assert chunks[-1].usage == Usage(9, 8, 3, 2, 1)


def test_bytes_of_the_same_format_pass_unchanged() -> None:
    """A chunk that came in this format leaves as it came, and only the end mark is added."""
    writer = wire.StreamWriter(call(stream=True), created=0)
    assert writer.write(Chunk(text="x", raw=b"data: x\n\n", wire=wire.WIRE)) == b"data: x\n\n"
    assert writer.end() == STOP.replace(b': "', b':"')
    assert wire.write_answer(call(), [Chunk(raw=b"{ }", wire=wire.WIRE)], 0) == b"{ }"


def test_a_broken_answer_ends_with_an_error_event() -> None:
    """The last event is an error, and a heartbeat is this format's own."""
    writer = wire.StreamWriter(call(stream=True), 0)
    writer.write(Chunk(text="half"))
    name, data = writer.error(UpstreamClosedError("cut"), "req_1").strip().split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "cut", "code": "upstream_closed"},
        "request_id": "req_1",
    }
    assert wire.StreamReader().feed(writer.heartbeat()) == Chunk(raw=writer.heartbeat(), wire=wire.WIRE)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("x"), "invalid_request_error"),
        (AuthenticationError("x"), "authentication_error"),
        (NotFoundError("x"), "not_found_error"),
        (BodyTooLargeError("x"), "request_too_large"),
        (UpstreamRefusedError("x", status=422), "invalid_request_error"),
        (UpstreamRateLimitError("x"), "rate_limit_error"),
        (DeadlineError("x"), "timeout_error"),
        (UpstreamError("x"), "api_error"),
        (UpstreamError("x", status=529), "overloaded_error"),
        (InternalError("x"), "api_error"),
    ],
)
def test_errors_have_this_format_s_types(error: FirstTokenError, kind: str) -> None:
    """The type of an error follows its status."""
    body = json.loads(wire.write_error(error, "req_1"))
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "req_1")


def failed(kind: str, message: str = "words", **fields: Any) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error", "shown", "answered"),
    [
        (400, failed("invalid_request_error"), UpstreamRefusedError, "words", 400),
        (422, failed("invalid_request_error"), UpstreamRefusedError, "words", 422),
        (401, failed("authentication_error", "key sk-123"), UpstreamAuthError, "credentials", 502),
        (402, failed("billing_error"), UpstreamAuthError, "limits", 502),
        (403, failed("permission_error"), UpstreamAuthError, "credentials", 502),
        (
            400,
            failed("invalid_request_error", "Your credit balance is too low"),
            UpstreamAuthError,
            "limits",
            502,
        ),
        (404, failed("not_found_error"), UpstreamRefusedError, "words", 404),
        (413, b"<html>", UpstreamRefusedError, "413", 413),
        (429, failed("rate_limit_error"), UpstreamRateLimitError, "words", 429),
        (
            429,
            failed("rate_limit_error", details={"error_code": "contract_spend_limit_reached"}),
            UpstreamAuthError,
            "limits",
            502,
        ),
        (500, failed("api_error", "at 10.0.0.1"), UpstreamError, "api_error", 502),
        (500, failed("overloaded_error"), UpstreamError, "overloaded", 529),
        (504, failed("timeout_error"), UpstreamTimeoutError, "slow", 504),
        (529, failed("overloaded_error"), UpstreamError, "overloaded", 529),
        (503, b"", UpstreamError, "overloaded", 503),
        (418, b'{"error":"teapot"}', UpstreamRefusedError, "teapot", 418),
        (302, b"", UpstreamError, "api_error", 502),
    ],
)
def test_error_answers_are_told_apart(
    status: int, body: bytes, error: type[UpstreamError], shown: str, answered: int
) -> None:
    """A refusal keeps the target's words; credentials and internals of the target are never shown."""
    found = wire.error_from(status, {"retry-after": "2"}, body)
    assert (type(found), found.status) == (error, answered)
    assert shown in str(found)
    assert "sk-123" not in str(found)
    assert "10.0.0.1" not in str(found)
    if error is UpstreamRateLimitError or answered == 529:
        assert found.retry_after == 2.0


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 9 tokens > 8 maximum",
        "input length and `max_tokens` exceed context limit: 9 + 8 > 8",
    ],
)
def test_a_prompt_that_does_not_fit_is_told_apart(message: str) -> None:
    """Other targets may have a larger window: the code says so."""
    assert (
        wire.error_from(400, {}, failed("invalid_request_error", message)).code == "context_length_exceeded"
    )
