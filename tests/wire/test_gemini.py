"""Answers of the Gemini codec, whole and streamed, read and written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.errors import (
    FirstTokenError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.wire import gemini as wire
from firsttoken.wire.gemini import array
from firsttoken.wire.gemini.signatures import UNSIGNED, pack, pack_redacted, unpack


def call() -> Call:
    """Return a call of a client that speaks another format."""
    request = ChatRequest(model="m", messages=(Message("user", (Text("hi"),)),))
    return Call(request=request, source=Source("openai-chat", b"{}"), id="1", deadline=0.0)


def event(*parts: dict[str, Any], finish: str = "", **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return b"data: " + json.dumps({"candidates": [candidate], **fields}).encode() + b"\r\n\r\n"


def items(events: bytes) -> list[dict[str, Any]]:
    return [json.loads(e.removeprefix(b"data: ")) for e in events.split(b"\r\n\r\n") if e]


@pytest.mark.parametrize("signature", ["", "c2ln", "a+/=", "a-_b", "no base64 at all 東京", "abc"])
def test_signatures_survive_a_client(signature: str) -> None:
    """The SDK decodes base64 and sends it back in the other alphabet; the signature comes back as it was."""
    packed = pack(signature)
    back = base64.urlsafe_b64encode(base64.b64decode(packed, validate=True)).decode()
    assert unpack(back) == (signature, "")
    redacted = pack_redacted(signature)
    assert unpack(base64.urlsafe_b64encode(base64.b64decode(redacted)).decode()) == ("", signature)


def test_broken_signatures_are_kept() -> None:
    """A mark with nothing readable behind it is a signature like any other."""
    broken = pack_redacted("x")[:-3] + "!!!"
    assert unpack(broken) == ("", broken)
    assert unpack(UNSIGNED) == ("", "")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_stream_is_read_the_same_however_it_is_cut(size: int, ends: bytes) -> None:
    """Text, bytes and end of a stream do not depend on how the network cut it."""
    counts = {"promptTokenCount": 7, "toolUsePromptTokenCount": 1, "candidatesTokenCount": 2}
    counts |= {"thoughtsTokenCount": 3, "cachedContentTokenCount": 5}
    stream = (
        event({"text": "Hm.", "thought": True}, modelVersion="big")
        + event({"text": "né"})
        + b"\r\n"
        + event({"text": " 東京🙂", "thoughtSignature": "c2ln"})
        + event({"text": ""}, finish="STOP", usageMetadata=counts)
    ).replace(b"\r\n", ends)
    reader = wire.open_reader()
    chunks = [c for i in range(0, len(stream), size) if (c := reader.feed(stream[i : i + size]))]
    while chunk := reader.feed(b""):
        chunks.append(chunk)
    reader.close()
    assert "".join(chunk.text for chunk in chunks) == "né 東京🙂"
    assert "".join(chunk.reasoning for chunk in chunks) == "Hm."
    assert "".join(chunk.signature for chunk in chunks) == "c2ln"
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"]
    assert chunks[-1].usage == Usage(input=8, output=5, cached=5, reasoning=3)
    assert {chunk.wire for chunk in chunks} == {"gemini"}
    raw = b"".join(chunk.raw for chunk in chunks)
    assert raw.replace(b"\r", b"").replace(b"\n", b"") == stream.replace(b"\r", b"").replace(b"\n", b"")


def test_calls_of_functions_are_read() -> None:
    """Each call has an index, an id, and its arguments as they were written; the answer ends for them."""
    reader = wire.open_reader()
    one = {"functionCall": {"name": "f", "args": {"a": [1]}}, "thoughtSignature": "c2ln"}
    two = {"functionCall": {"name": "g", "id": "own"}}
    first = reader.feed(event({"text": "Let me see."}, one, responseId="r/1"))
    second = reader.feed(event(two, finish="STOP"))
    assert first is not None
    assert second is not None
    assert first.tool_calls == (ToolCall(0, "gcall_r1_0", "f", '{"a": [1]}', "c2ln"),)
    assert second.tool_calls == (ToolCall(1, "own", "g", "{}"),)
    assert second.finish == "tool_calls"


def test_made_ids_differ_between_answers() -> None:
    """Clients tell calls of one conversation apart by their ids, also where the target sends none."""
    ids = set()
    for arguments in ({"a": 1}, {"a": 2}):
        body = json.dumps(
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": arguments}}]}}]}
        )
        ids |= {call.id for call in wire.read_answer(body.encode()).tool_calls}
    assert len(ids) == 2
    assert all(0 < len(made) <= 40 for made in ids)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("SOME_NEW_WORD", "content_filter"),
    ],
)
def test_reasons_to_finish(reason: str, finish: str) -> None:
    """Whatever is no good end says that something was withheld."""
    chunk = wire.open_reader().feed(event({"text": "x"}, finish=reason))
    assert chunk is not None
    assert chunk.finish == finish


def test_a_blocked_prompt_is_a_whole_answer() -> None:
    """There is no candidate then, and nothing more comes."""
    body = b'{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}'
    assert wire.read_answer(body).finish == "content_filter"
    reader = wire.open_reader()
    reader.feed(b"data: " + body + b"\r\n\r\n")
    reader.close()


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"])
def test_answers_that_cannot_be_used_are_errors(reason: str) -> None:
    """The model failed: another try may do better, so it is not passed off as an answer."""
    with pytest.raises(UpstreamError) as caught:
        wire.open_reader().feed(event({"text": ""}, finish=reason))
    assert (caught.value.code, caught.value.retryable) == (reason.lower(), True)


def test_other_candidates_are_not_mixed_in() -> None:
    """Only the first candidate is the answer."""
    candidates = [
        {"index": 1, "content": {"parts": [{"text": "no"}]}},
        {"index": 0, "content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"},
    ]
    assert wire.read_answer(json.dumps({"candidates": candidates}).encode()).text == "yes"
    assert wire.read_answer(json.dumps({"candidates": candidates[:1]}).encode()).text == ""


def test_citations_are_read() -> None:
    """Citations and sources of a search come as the provider wrote them."""
    candidate = {
        "content": {"parts": [{"text": "x"}]},
        "citationMetadata": {"citationSources": [{"uri": "https://a"}]},
        "groundingMetadata": {"groundingChunks": [{"web": {"uri": "https://b"}}]},
    }
    chunk = wire.read_answer(json.dumps({"candidates": [candidate]}).encode())
    assert chunk.citations == ({"uri": "https://a"}, {"web": {"uri": "https://b"}})


SAID = json.dumps(
    {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, indent=2
).encode()


@pytest.mark.parametrize(
    ("received", "error"),
    [
        (b"data: {broken\r\n\r\n", UpstreamProtocolError),
        (b'data: {"candidates": "x"}\r\n\r\n', UpstreamProtocolError),
        (event({"functionCall": {"name": "f", "args": [1]}}), UpstreamProtocolError),
        (b"data: \xff\r\n\r\n", UpstreamProtocolError),
        (b"data: " + SAID.replace(b"\n", b"") + b"\r\n\r\n", UpstreamError),
        (SAID + b"\r\n\r\n", UpstreamError),
        (event({"text": ""}, finish="MISSING_THOUGHT_SIGNATURE"), UpstreamRefusedError),
    ],
)
def test_broken_streams_are_errors(received: bytes, error: type[FirstTokenError]) -> None:
    """A frame that is not what was agreed on never reaches the client, and what came before it does."""
    with pytest.raises(error):
        wire.open_reader().feed(received)
    good = event({"text": "good"})
    reader = wire.open_reader()
    chunk = reader.feed(good + received)
    assert chunk is not None
    assert (chunk.text, chunk.raw.replace(b"\r", b"")) == ("good", good.replace(b"\r", b""))
    with pytest.raises(error):
        reader.close()
    with pytest.raises(error):
        reader.feed(b"")


@pytest.mark.parametrize("tail", [b"", b"data: {", SAID, SAID[:30]])
def test_a_stream_without_a_reason_to_finish_was_cut(tail: bytes) -> None:
    """It may end in the bare JSON of an error."""
    reader = wire.open_reader()
    reader.feed(event({"text": "half"}))
    reader.feed(tail)
    with pytest.raises(UpstreamError) as caught:
        reader.close()
    assert isinstance(caught.value, UpstreamClosedError) != tail.startswith(b"{")
    assert caught.value.status == (503 if tail == SAID else 502)


def test_own_chunks_become_events() -> None:
    """Thoughts, text and calls are parts; reason to finish and counts come together at the end."""
    writer = wire.open_writer(call(), 0)
    first = writer.write(Chunk(reasoning="Hm.", model="big")) + writer.write(Chunk(signature="c2ln"))
    first += writer.write(Chunk(redacted="secret")) + writer.write(Chunk(text='a"é'))
    assert writer.write(Chunk(tool_calls=(ToolCall(0, "c", "f"),))) == b""
    assert (
        writer.write(Chunk(tool_calls=(ToolCall(0, arguments='{"x":\n 1.10}'), ToolCall(1, "d", "g")))) == b""
    )
    second = writer.write(Chunk(text="b"))
    assert writer.write(Chunk(finish="tool_calls")) == b""
    assert writer.write(Chunk(usage=Usage(10, 5, 4, 2, 3))) == b""
    end = items(writer.end())
    written = items(first + second)
    assert {(item["modelVersion"], item["responseId"]) for item in [*written, *end]} == {("big", "1")}
    assert [item["candidates"][0]["content"]["parts"] for item in written] == [
        [{"text": "Hm.", "thought": True}],
        [{"text": "", "thought": True, "thoughtSignature": "c2ln"}],
        [{"text": "", "thought": True, "thoughtSignature": pack_redacted("secret")}],
        [{"text": 'a"é'}],
        [
            {"functionCall": {"id": "c", "name": "f", "args": {"x": 1.1}}},
            {"functionCall": {"id": "d", "name": "g", "args": {}}},
        ],
        [{"text": "b"}],
    ]
    assert b'{"x":1.10}' in second, "arguments lose their line breaks only"
    assert end[0]["candidates"][0]["finishReason"] == "STOP"
    assert end[0]["usageMetadata"] == {
        "promptTokenCount": 10,
        "candidatesTokenCount": 2,
        "totalTokenCount": 15,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
    }


@pytest.mark.parametrize(
    ("finish", "word", "message"),
    [
        ("stop", "STOP", None),
        ("length", "MAX_TOKENS", None),
        ("content_filter", "SAFETY", None),
        ("refusal", "SAFETY", "The model refused."),
        ("context_length", "MAX_TOKENS", "The context window is full."),
        ("stop_sequence", "STOP", "A stop sequence was met. It was 'x'."),
    ],
)
def test_reasons_to_finish_are_written(finish: Any, word: str, message: str | None) -> None:
    """What the word does not tell stands in the message, which another endpoint of ours understands."""
    chunks = [Chunk(text="a"), Chunk(finish=finish, stopped_by="x" if finish == "stop_sequence" else "")]
    body = wire.write_answer(call(), chunks, 0)
    candidate = json.loads(body)["candidates"][0]
    assert (candidate["finishReason"], candidate.get("finishMessage")) == (word, message)
    assert wire.read_answer(body).finish == finish
    writer = wire.open_writer(call(), 0)
    streamed = items(b"".join([*map(writer.write, chunks), writer.end()]))[-1]["candidates"][0]
    assert (streamed["finishReason"], streamed.get("finishMessage")) == (word, message)


@pytest.mark.parametrize(
    ("finish", "word"), [("length", "MAX_TOKENS"), ("tool_calls", "MALFORMED_FUNCTION_CALL")]
)
def test_arguments_that_were_cut_are_told(finish: Any, word: str) -> None:
    """This format cannot hold half of a call: the message does."""
    chunks = [Chunk(tool_calls=(ToolCall(0, "c", "f", '{"x": "ha'),)), Chunk(finish=finish)]
    candidate = json.loads(wire.write_answer(call(), chunks, 0))["candidates"][0]
    assert candidate["content"]["parts"] == [{"text": ""}]
    assert candidate["finishReason"] == word
    assert '{"x": "ha' in candidate["finishMessage"]


def test_chunks_become_one_answer() -> None:
    """A whole answer joins thoughts, text, refusals, fragments of calls and citations."""
    chunks = [
        Chunk(reasoning="Hm.", signature="c2ln", model="big"),
        Chunk(text="a"),
        Chunk(
            text="b",
            citations=({"type": "url_citation", "url_citation": {"url": "https://a", "title": "A"}},),
        ),
        Chunk(refusal="no", citations=({"document_title": "D", "start_char_index": 1},)),
        Chunk(tool_calls=(ToolCall(0, "c", "f", '{"x":', "c2ln"), ToolCall(0, arguments="1}"))),
        Chunk(finish="tool_calls", usage=Usage(1, 1)),
    ]
    assert json.loads(wire.write_answer(call(), chunks, 0)) == {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "ab"},
                        {"text": "no"},
                        {
                            "functionCall": {"id": "c", "name": "f", "args": {"x": 1}},
                            "thoughtSignature": "c2ln",
                        },
                    ],
                },
                "finishReason": "STOP",
                "index": 0,
                "citationMetadata": {
                    "citations": [
                        {"uri": "https://a", "title": "A"},
                        {"uri": "D", "title": "D", "startIndex": 1},
                    ]
                },
            }
        ],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": "big",
        "responseId": "1",
    }


def test_bytes_of_the_same_format_pass_unchanged() -> None:
    """A chunk that came in this format leaves as it came, and nothing is added at the end."""
    writer = wire.open_writer(call(), 0)
    assert writer.write(Chunk(text="x", raw=b"data: x\r\n\r\n", wire=wire.WIRE)) == b"data: x\r\n\r\n"
    assert writer.end() == b""
    assert wire.write_answer(call(), [Chunk(raw=b"{ }", wire=wire.WIRE)], 0) == b"{ }"


def test_an_empty_answer_has_an_end() -> None:
    """Without any chunk there is still a reason to finish."""
    assert items(wire.open_writer(call(), 0).end())[0]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("same_format", [False, True])
def test_a_stream_as_an_array(same_format: bool) -> None:
    """Without ``alt=sse`` the events are the items of one array, also those of a target that sends events."""
    writer = array.open_writer(call(), 0)
    chunks = [Chunk(text="one"), Chunk(text=" two", finish="stop")]
    if same_format:
        raws = [event({"text": "one"}), event({"text": " two"}, finish="STOP")]
        chunks = [Chunk(raw=raw, wire=wire.WIRE) for raw in raws]
    body = writer.heartbeat() + b"".join([writer.write(chunk) + writer.heartbeat() for chunk in chunks])
    answers = json.loads(body + writer.end())
    texts = [part["text"] for item in answers for part in item["candidates"][0]["content"]["parts"]]
    assert "".join(texts) == "one two"
    assert answers[-1]["candidates"][0]["finishReason"] == "STOP"
    assert wire.read_answer(body + b"]").text == "one two"


def test_an_array_that_breaks() -> None:
    """Its last item is the error, whatever came before."""
    writer = array.open_writer(call(), 0)
    assert json.loads(writer.error(UpstreamError("x"), "r"))[0]["error"]["status"] == "UNAVAILABLE"
    writer = array.open_writer(call(), 0)
    body = writer.write(Chunk(text="a")) + writer.error(UpstreamError("x"), "r")
    assert [*json.loads(body)[-1]] == ["error"]
    assert json.loads(array.open_writer(call(), 0).end())
