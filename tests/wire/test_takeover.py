"""A writer that takes over behind a target's own bytes: what clients read is one whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from wire.pairs import INBOUND, Seen

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.policies.said import Said
from firsttoken.wire import codec_of
from firsttoken.wire.takeover import resume_writer

LAST = Chunk(finish="stop", usage=Usage(input=11, output=7))
CALLED = replace(LAST, finish="tool_calls")
THOUGHTS = (
    Chunk(reasoning="Let me ", model="theirs"),
    Chunk(reasoning="think"),
    Chunk(signature="c2ln"),
)
TEXT = (Chunk(text="Hel", model="theirs"), Chunk(text="lo \n"), Chunk(text="東京"), Chunk(text=" 🙂"))
TOOLS = (
    Chunk(tool_calls=(ToolCall(0, "call_a", "lookup"),), model="theirs"),
    Chunk(tool_calls=(ToolCall(0, arguments='{"ci'),)),
    Chunk(tool_calls=(ToolCall(0, arguments='ty":"Rome"}'),)),
    Chunk(tool_calls=(ToolCall(1, "call_b", "search", '{"days":'),)),
    Chunk(tool_calls=(ToolCall(1, arguments="1}"),)),
)
ANSWERS = {
    "text": (*TEXT, LAST),
    "thoughts": (*THOUGHTS, *TEXT, LAST),
    "tools": (*TOOLS, CALLED),
    "thoughts, text and tools": (*THOUGHTS, *TEXT, *TOOLS, CALLED),
}
CUTS = [
    pytest.param(wire, name, cut, id=f"{wire}-{name}-{cut}")
    for wire in INBOUND
    for name, chunks in ANSWERS.items()
    for cut in range(1, len(chunks))
    if not (wire.startswith("gemini") and name == "tools")  # whole or not at all, see below
]


def call_of(wire: str, id_: str = "ours") -> Call:
    request = ChatRequest(
        model="m", messages=(Message("user", (Text("Hi"),)),), stream=True, include_usage=True
    )
    return Call(request=request, source=Source(codec_of(wire).WIRE, b"{}"), id=id_, deadline=0.0)


def passed_on(wire: str, chunks: tuple[Chunk, ...]) -> list[Chunk]:
    """The chunks as a target of this format sends them: with its bytes, and with its own ids."""
    codec = codec_of(wire.partition(".")[0])
    writer, reader = codec.open_writer(call_of(wire, "theirs"), 1), codec.open_reader()
    read = []
    for chunk in chunks:
        found = reader.feed(writer.write(chunk))
        while found is not None:
            read.append(found)
            found = reader.feed(b"")
    return read


def taken_over(wire: str, first: list[Chunk], second: list[Chunk]) -> bytes:
    """What the client gets: the bytes of the first half, and the second half behind it."""
    codec, call = codec_of(wire), call_of(wire)
    said = Said(1000)
    writer = codec.open_writer(call, 2)
    sent = []
    for chunk in first:
        sent.append(writer.write(chunk))
        said.note(chunk)
    writer = resume_writer(codec, call, 2, said.joined())
    sent += [writer.write(chunk) for chunk in second]
    return b"".join([*sent, writer.end()])


def rest_of(wire: str, chunks: tuple[Chunk, ...], cut: int) -> list[Chunk]:
    """The second half as a seam leaves it: without thoughts. Gemini's targets say calls at the end only."""
    if wire.startswith("gemini") and TOOLS[0] in chunks[:cut]:
        cut = chunks.index(TOOLS[0])
    rest = [replace(chunk, reasoning="", signature="") for chunk in chunks[cut:]]
    return [chunk for chunk in rest if chunk.has_content()]


@pytest.mark.parametrize(("wire", "name", "cut"), CUTS)
def test_a_taken_over_answer_reads_as_one(wire: str, name: str, cut: int) -> None:
    """Wherever the first target stops, clients see all of the content once, and the end."""
    chunks = ANSWERS[name]
    first = passed_on(wire, chunks[:cut])
    second = rest_of(wire, chunks, cut)
    body = taken_over(wire, first, second)
    said = [*chunks[:cut], *second]
    text = "".join([chunk.text for chunk in chunks])
    seen = INBOUND[wire].stream(body)
    tools = [("lookup", {"city": "Rome"}), ("search", {"days": 1})] if "tools" in name else []
    assert seen == Seen(
        text=text,
        reasoning="".join([chunk.reasoning for chunk in said]),
        tools=tools,
        finish=str(chunks[-1].finish),
        usage=(11, 7),
    )
    if wire == "gemini.array":
        return
    reader = codec_of(wire).open_reader()
    found = reader.feed(body)
    again = ""
    while found is not None:
        again += found.text
        found = reader.feed(b"")
    reader.close()
    assert again == text


def test_a_call_that_gemini_has_said_is_not_said_again() -> None:
    """Its targets' calls are whole when they come."""
    call = {"functionCall": {"name": "lookup", "args": {"city": "Rome"}}}
    event = {"candidates": [{"content": {"role": "model", "parts": [call]}}], "responseId": "theirs"}
    first = codec_of("gemini").open_reader().feed(b"data: %b\r\n\r\n" % json.dumps(event).encode())
    assert first is not None
    for wire in ("gemini", "gemini.array"):
        seen = INBOUND[wire].stream(taken_over(wire, [first], [CALLED]))
        assert seen.tools == [("lookup", {"city": "Rome"})]


def events_of(body: bytes) -> list[dict[str, Any]]:
    data = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


@pytest.mark.parametrize(
    ("wire", "field"), [("openai_chat", "id"), ("openai_chat", "created"), ("gemini", "responseId")]
)
def test_the_answer_keeps_the_ids_it_began_with(wire: str, field: str) -> None:
    """Every event carries the id that the target gave the answer."""
    body = taken_over(wire, passed_on(wire, TEXT[:2]), [*TEXT[2:], LAST])
    assert len({event[field] for event in events_of(body)}) == 1


def test_events_and_items_of_responses_are_numbered_on() -> None:
    """Sequence numbers rise by one, one answer is created, and all deltas name the target's own item."""
    first = passed_on("openai_responses", TEXT[:2])
    events = events_of(taken_over("openai_responses", first, [*TEXT[2:], LAST]))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds.count("response.created") == kinds.count("response.output_item.added") == 1
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert {(event["item_id"], event["output_index"]) for event in deltas} == {("msg_theirs_0", 0)}
    final = events[-1]["response"]
    assert (final["id"], final["output"][0]["id"]) == ("resp_theirs", "msg_theirs_0")
    assert final["output"][0]["content"][0]["text"] == "Hello \n東京 🙂"


def shifted(wire: str, by: int) -> list[Chunk]:
    """A first half whose target counts from ``by``, as behind items that no chunk tells of."""
    moved = []
    for chunk in passed_on(wire, TEXT[:2]):
        raw = chunk.raw
        for name in (b"output_index", b"index"):
            raw = raw.replace(b'"%b":0' % name, b'"%b":%d' % (name, by))
        moved.append(replace(chunk, raw=raw))
    return moved


@pytest.mark.parametrize(("wire", "field"), [("openai_responses", "output_index"), ("anthropic", "index")])
def test_indexes_are_the_targets(wire: str, field: str) -> None:
    """What is open goes on at the index that the target gave it, not where we would have counted it."""
    events = events_of(taken_over(wire, shifted(wire, 2), [*TEXT[2:], *TOOLS, CALLED]))
    indexes = [event[field] for event in events if field in event]
    assert set(indexes) == {2, 3, 4}
    opened = [event[field] for event in events if event["type"].endswith(("item.added", "block_start"))]
    assert opened == [2, 3, 4]


def test_a_block_that_the_target_closed_is_not_closed_again() -> None:
    """Text behind a block's end begins a block of its own."""
    first = passed_on("anthropic", TEXT[:2])
    stop = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    first.append(Chunk(raw=stop, wire="anthropic"))
    events = events_of(taken_over("anthropic", first, [Chunk(text="more"), LAST]))
    blocks = [(event["type"][14:], event["index"]) for event in events if "index" in event]
    assert blocks == [
        *(("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("delta", 1), ("stop", 1)),
    ]
