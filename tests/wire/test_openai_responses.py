"""The OpenAI Responses codec: requests, streams and answers, read and written."""

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
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import (
    FirstTokenError,
    RequestError,
    UnsupportedFieldError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.wire import openai_chat
from firsttoken.wire import openai_responses as wire

BODY: dict[str, Any] = {"model": "m", "input": "hi"}
WORDS = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hm."}]}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
TOLD = {"type": "function_call_output", "call_id": "c1", "output": "42"}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
    "encrypted_content": "gAAA",
}


def call(**fields: Any) -> Call:
    request, source = wire.read_request(json.dumps({**BODY, **fields}).encode())
    return Call(request=request, source=source, id="1", deadline=0.0)


def foreign(*messages: Message, **fields: Any) -> Call:
    """A request that came in another format."""
    request = ChatRequest(model="m", messages=messages or (Message("user", (Text("hi"),)),), **fields)
    return Call(request=request, source=Source("other", b"{}"), id="1", deadline=0.0)


def sent(*messages: Message, **fields: Any) -> Any:
    return json.loads(wire.write_request(foreign(*messages, **fields), "big"))


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def events(stream: bytes) -> list[Any]:
    return [json.loads(e.partition(b"data: ")[2]) for e in stream.split(b"\n\n") if e]


def turns(*items: Any) -> list[Message]:
    return list(call(input=list(items)).request.messages)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"model": ""}, "model", "length >= 1"),
        ({"input": 1}, "input", "Expected"),
        ({"input": []}, "input", "at least one item"),
        ({"input": None}, "input", "at least one item"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role", "Invalid enum value"),
        ({"input": [WORDS, {"role": "user"}]}, "input[1]", "content"),
        ({"input": [{**CALLED, "arguments": {}}]}, "input[0].arguments", "Expected `str`"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]", "call_id"),
        ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
        ({"truncation": "some"}, "truncation", "auto, disabled"),
        ({"text": {"format": {"type": "json_schema", "schema": 1}}}, "text.format.schema", "Expected"),
    ],
)
def test_bad_requests_name_the_field(fields: Any, param: str, said: str) -> None:
    """What is wrong with a request is said with the field's path and what was expected."""
    with pytest.raises(RequestError) as caught:
        call(**fields)
    assert caught.value.param == param
    assert said in str(caught.value)


def test_every_documented_field_is_accepted() -> None:
    """The fields of the API reference pass; those without a neutral word are listed for translators."""
    asking = {
        "conversation": "c",
        "include": ["file_search_call.results"],
        "max_tool_calls": 2,
        "previous_response_id": "resp_1",
        "prompt": {"id": "p"},
        "store": True,
        "top_logprobs": 3,
        "truncation": "auto",
    }
    neutral = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "temperature": 1,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 0.5,
        "user": "u",
        "include": ["reasoning.encrypted_content"],
    }
    assert call(**neutral).source.unknown == ()
    assert set(call(**asking).source.unknown) == set(asking)
    assert call(background=True, store=True).source.unknown == ()  # what we do ourselves
    nothing = {"store": False, "background": False, "truncation": "disabled", "previous_response_id": None}
    assert call(**nothing, top_logprobs=0).source.unknown == ()
    read = call(**neutral).request
    assert (read.max_tokens, read.user, read.cache_key, read.stream) == (9, "s", "k", True)
    assert read.reasoning == ReasoningWish("low")
    assert read.messages[0] == Message("system", (Text("Be brief."),))
    verbose = call(text={"verbosity": "low"}, reasoning={"context": "all_turns", "mode": "pro"})
    assert verbose.source.unknown == ("text.verbosity", "reasoning.context", "reasoning.mode")


def test_tools_and_choices() -> None:
    """Functions are flat here; hosted tools and what only this format says of a function are named."""
    function = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    read = call(
        tools=[function, {"type": "web_search"}, {**function, "defer_loading": True}],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    )
    assert read.request.tools[0] == Tool("f", "", {"type": "object"}, strict=True)
    assert read.source.unknown == ("tools[1]", "tools[2].defer_loading")
    assert read.request.tool_choice == ToolChoice("tool", "f")
    assert read.request.output == OutputFormat({"type": "object"}, "n", "", strict=True)
    assert call(tool_choice={"type": "web_search"}).source.unknown == ("tool_choice",)


def test_the_client_s_bytes_reach_the_target() -> None:
    """Nothing of the body changes; a different model name is the only thing replaced."""
    body = b'{ "model":"m" , "previous_response_id":"r", "temperature": 1.10, "input":"\\u00e9"}'
    request, source = wire.read_request(body)
    here = Call(request=request, source=source, id="1", deadline=0.0)
    assert wire.write_request(here, "m") == body
    assert wire.write_request(here, "big") == (
        b'{"model":"big","previous_response_id":"r","temperature":1.10,"input":"\\u00e9"}'
    )


def test_items_of_one_turn_are_one_message() -> None:
    """Thoughts, words and calls in a row are one turn of the assistant; tools' answers follow it."""
    read = turns({"role": "user", "content": "q"}, THOUGHT, WORDS, CALLED, {**CALLED, "call_id": "c2"}, TOLD)
    assert [message.role for message in read] == ["user", "assistant", "tool"]
    assert read[1].parts == (
        Reasoning("One.\n\nTwo.", redacted="gAAA"),
        Text("Hm."),
        ToolUse("c1", "f", "{}"),
        ToolUse("c2", "f", "{}"),
    )
    assert read[2].parts == (ToolResult("c1", (Text("42"),)),)
    assert [len(message.parts) for message in turns(WORDS, WORDS, CALLED, WORDS)] == [1, 3]


def test_parts_of_messages() -> None:
    """Text, pictures, refusals and cache markers have neutral words; the rest is opaque, never refused."""
    mark = {"mode": "explicit", "ttl": "12h"}
    content = [
        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": mark},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "high"},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "refusal", "refusal": "No."},
    ]
    (message,) = turns({"role": "user", "content": content})
    assert message.parts == (
        Text("a", cache="1h"),
        Image(data="AAAA", media_type="image/png"),
        Image(url="https://x/y.png", detail="high"),
        Opaque(wire.WIRE, "input_image by file_id"),
        Opaque(wire.WIRE, "content part of type input_file"),
        Text("No."),
    )
    (other,) = turns({"type": "item_reference", "id": "x"})
    assert other.parts == (Opaque(wire.WIRE, "input item of type item_reference"),)
    told = {**TOLD, "output": [{"type": "input_text", "text": "1"}, {"type": "input_file", "file_id": "f"}]}
    assert call(input=[told]).source.unknown == ("input[0].output",)


def test_requests_of_other_formats() -> None:
    """A conversation of another format becomes items; nothing is stored that nobody asked to store."""
    body = sent(
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("q"), Image(data="AAAA", media_type="image/png"))),
        Message("assistant", (Reasoning("hm", redacted="gAAA"), Text("Hm."), ToolUse("c1", "f", "{}"))),
        Message("tool", (ToolResult("c1", (Text("42"),)), ToolResult("c2", (Image(url="https://x/y"),)))),
        max_tokens=5,
        tools=(Tool("f"),),
        tool_choice=ToolChoice("tool", "f"),
        output=OutputFormat({"type": "object"}),
        reasoning=ReasoningWish(budget=2000),
        user="u",
        stream=True,
    )
    assert body["input"] == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "q"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "gAAA",
        },
        WORDS,
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        TOLD,
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_image", "image_url": "https://x/y", "detail": "auto"}],
        },
    ]
    assert (body["store"], body["stream"], body["max_output_tokens"]) == (False, True, 5)
    assert body["tools"][0]["strict"] is False
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"]["format"]["strict"] is True
    assert body["reasoning"] == {"effort": "medium"}
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["safety_identifier"] == "u"
    assert wire.read_request(json.dumps(body).encode())[1].unknown == ()


@pytest.mark.parametrize(
    ("here", "param"),
    [
        (foreign(top_k=3), "top_k"),
        (foreign(stop=("x",)), "stop"),
        (foreign(seed=1), "seed"),
        (foreign(presence_penalty=0.5), "presence_penalty"),
        (foreign(Message("user", (Text("x"),), name="Ann")), "messages.name"),
        (foreign(Message("user", (Opaque("other", "video"),))), "messages"),
    ],
)
def test_what_this_format_cannot_say_is_refused(here: Call, param: str) -> None:
    """Nothing is dropped in silence; a penalty of zero asks for nothing."""
    with pytest.raises(UnsupportedFieldError) as caught:
        wire.write_request(here, "big")
    assert caught.value.param == param
    assert "presence_penalty" not in sent(presence_penalty=0.0)


def test_unknown_fields_reach_no_other_format() -> None:
    """A target of another format refuses by name what it cannot honour."""
    with pytest.raises(UnsupportedFieldError, match="previous_response_id"):
        openai_chat.write_request(call(previous_response_id="r"), "big")
    assert b'"messages":[{"role":"user","content":"hi"}]' in openai_chat.write_request(call(), "big")


STREAM = b"".join(
    [
        event("response.created", response={"model": "big", "status": "in_progress", "output": []}),
        event("response.output_item.added", output_index=0, item={"type": "reasoning", "summary": []}),
        event("response.reasoning_summary_part.added", summary_index=0),
        event("response.reasoning_summary_text.delta", summary_index=0, delta="One."),
        event("response.reasoning_summary_part.added", summary_index=1),
        event("response.reasoning_summary_text.delta", summary_index=1, delta="Two."),
        event("response.output_item.done", output_index=0, item=THOUGHT),
        event("response.output_item.added", output_index=1, item={"type": "message", "content": []}),
        event("response.output_text.delta", output_index=1, delta="n\u00e9", logprobs=[], obfuscation="x"),
        event("response.output_text.annotation.added", annotation={"type": "url_citation", "url": "u"}),
        event("response.output_item.added", output_index=2, item={**CALLED, "arguments": ""}),
        event("response.function_call_arguments.delta", output_index=2, delta='{"a":'),
        event("response.function_call_arguments.delta", output_index=2, delta="1}"),
        event("response.function_call_arguments.done", output_index=2, arguments='{"a":1}'),
        event("response.output_item.done", output_index=2, item={**CALLED, "arguments": '{"a":1}'}),
        event("response.output_item.added", output_index=3, item={"type": "web_search_call", "action": 1}),
        event(
            "response.completed",
            response={
                "model": "big",
                "status": "completed",
                "usage": {
                    "input_tokens": 20,
                    "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 4},
                    "output_tokens": 9,
                    "output_tokens_details": {"reasoning_tokens": 3},
                },
            },
        ),
    ]
)


@pytest.mark.parametrize("size", [1, 3, 50, 100_000])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_stream_is_read_however_it_is_cut(size: int, ends: bytes) -> None:
    """All kinds of content, finish, model and usage are read; hosted tools' items pass by."""
    reader = wire.open_reader()
    stream = STREAM.replace(b"\n", ends)
    chunks = [c for i in range(0, len(stream), size) if (c := reader.feed(stream[i : i + size]))]
    while (held := reader.feed(b"")) is not None:
        chunks.append(held)
    reader.close()
    assert "".join(chunk.reasoning for chunk in chunks) == "One.\n\nTwo."
    assert "".join(chunk.redacted for chunk in chunks) == "gAAA"
    assert "".join(chunk.text for chunk in chunks) == "né"
    assert [c for chunk in chunks for c in chunk.citations] == [{"type": "url_citation", "url": "u"}]
    fragments = [fragment for chunk in chunks for fragment in chunk.tool_calls]
    assert fragments[0] == ToolCall(0, "c1", "f")
    assert "".join(fragment.arguments for fragment in fragments) == '{"a":1}'
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["tool_calls"]
    assert [chunk.usage for chunk in chunks if chunk.usage] == [Usage(20, 9, 5, 4, 3)]
    assert next(chunk.model for chunk in chunks if chunk.model) == "big"
    if size > 1:
        assert b"".join(chunk.raw for chunk in chunks).replace(b"\r", b"") == STREAM


@pytest.mark.parametrize(
    "late",
    [
        [event("response.function_call_arguments.done", output_index=0, arguments="{}")],
        [event("response.output_item.done", output_index=0, item={**CALLED, "signature": "s"})],
        [],
    ],
    ids=["done", "item done", "only done"],
)
def test_servers_that_send_no_deltas(late: list[bytes]) -> None:
    """Arguments that come only at the end of a call are read once."""
    begin = event("response.output_item.added", output_index=0, item={**CALLED, "arguments": ""})
    done = event("response.output_item.done", output_index=0, item=CALLED)
    reader = wire.open_reader()
    chunks = [reader.feed(e) for e in ([begin, *late, done] if late else [done, done])]
    fragments = [fragment for chunk in chunks if chunk for fragment in chunk.tool_calls]
    assert "".join(fragment.id for fragment in fragments) == "c1"
    assert "".join(fragment.arguments for fragment in fragments) == "{}"


@pytest.mark.parametrize(
    ("received", "error"),
    [
        (b"data: {broken\n\n", UpstreamProtocolError),
        (b"data: \xff\n\n", UpstreamProtocolError),
        (event("response.output_text.delta", delta={"a": 1}), UpstreamProtocolError),
        (event("response.function_call_arguments.delta", output_index=9, delta="x"), UpstreamProtocolError),
        (event("response.output_item.added", item={"type": "function_call"}), UpstreamProtocolError),
        (event("response.completed"), UpstreamProtocolError),
        (event("error", code="server_error", message="boom at 10.0.0.1"), UpstreamError),
        (event("error", error={"code": "rate_limit_exceeded", "message": "x"}), UpstreamRateLimitError),
        (
            event("response.failed", response={"status": "failed", "error": {"code": "server_error"}}),
            UpstreamError,
        ),
        (
            event("error", error={"code": "context_length_exceeded", "message": "too long"}),
            UpstreamRefusedError,
        ),
        (event("error", message=[1]), UpstreamError),
    ],
)
def test_broken_streams_are_errors(received: bytes, error: type[FirstTokenError]) -> None:
    """What is not as agreed on, and what the target says of itself, never passes for an answer."""
    with pytest.raises(error) as caught:
        wire.open_reader().feed(received)
    assert type(caught.value) is error
    assert "10.0.0.1" not in str(caught.value)
    good = event("response.output_text.delta", delta="good")
    reader = wire.open_reader()
    chunk = reader.feed(good + received)
    assert chunk is not None
    assert (chunk.text, chunk.raw) == ("good", good)
    with pytest.raises(error):
        reader.close()


def test_a_stream_that_just_ends_was_cut() -> None:
    """Only the last event makes an answer whole."""
    reader = wire.open_reader()
    reader.feed(STREAM[: STREAM.index(b"event: response.completed")])
    with pytest.raises(UpstreamClosedError):
        reader.close()


def test_own_chunks_become_events() -> None:
    """Items open and close around what they hold, each event with the next number."""
    writer = wire.open_writer(call(stream=True, temperature=0.5), 7)
    stream = b"".join(
        [
            writer.write(Chunk(reasoning="Hm", model="big")),
            writer.write(Chunk(signature="sig")),
            writer.write(Chunk(redacted="gAAA")),
            writer.write(Chunk(text='a"é')),
            writer.write(Chunk(text="!")),
            writer.write(Chunk(refusal="No.")),
            writer.write(Chunk(tool_calls=(ToolCall(0, "c1", "f", "{"), ToolCall(1, "c2", "g")))),
            writer.write(Chunk(tool_calls=(ToolCall(1, arguments="[]"), ToolCall(0, arguments="}")))),
            writer.write(Chunk(finish="tool_calls")),
            writer.write(Chunk(usage=Usage(20, 9, 5, 4, 3))),
            writer.end(),
        ]
    )
    got = events(stream)
    assert [e["sequence_number"] for e in got] == list(range(len(got)))
    assert [e["delta"] for e in got if e["type"] == "response.output_text.delta"] == ['a"é', "!"]
    answer = got[-1]["response"]
    assert (got[-1]["type"], answer["status"], answer["model"]) == ("response.completed", "completed", "big")
    assert (answer["id"], answer["created_at"], answer["temperature"]) == ("resp_1", 7, 0.5)
    thought, words, first, second = answer["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert (thought["encrypted_content"], thought["signature"]) == ("gAAA", "sig")
    assert [part["type"] for part in words["content"]] == ["output_text", "refusal"]
    assert (first["call_id"], first["arguments"]) == ("c1", "{}")
    assert (second["call_id"], second["arguments"]) == ("c2", "[]")
    done = {e["output_index"]: e["item"] for e in got if e["type"] == "response.output_item.done"}
    assert [done[index] for index in range(4)] == answer["output"]
    assert answer["usage"]["total_tokens"] == 29
    assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 5, "cache_write_tokens": 4}
    again = turns(*answer["output"], TOLD)
    assert again[0].parts[0] == Reasoning("Hm", "sig", "gAAA")


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("stop_sequence", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("context_length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("refusal", "incomplete", "content_filter"),
    ],
)
def test_why_an_answer_ended(finish: Any, status: str, reason: str | None) -> None:
    """Whole and streamed answers say it the same way, and it is read back."""
    chunks = [Chunk(text="a"), Chunk(finish=finish, usage=Usage(1, 1))]
    writer = wire.open_writer(call(stream=True), 7)
    stream = b"".join([writer.write(chunk) for chunk in chunks]) + writer.end()
    last = events(stream)[-1]
    assert last["type"] == f"response.{status}"
    for answer in (last["response"], json.loads(wire.write_answer(call(), chunks, 7))):
        assert answer["status"] == status
        assert answer["output"][0]["status"] == status
        assert (answer["incomplete_details"] or {}).get("reason") == reason
        read = wire.read_answer(json.dumps(answer).encode()).finish
        assert read == {"max_output_tokens": "length", "content_filter": "content_filter"}.get(reason, "stop")


def test_an_empty_answer_is_an_answer() -> None:
    """Without any content there is a message without words."""
    got = events(wire.open_writer(call(stream=True), 7).end())
    assert got[-1]["response"]["output"][0]["content"][0]["text"] == ""
    assert json.loads(wire.write_answer(call(), [Chunk(finish="stop")], 7))["output"][0]["type"] == "message"


def test_a_broken_answer_ends_with_an_error() -> None:
    """An error event, flat and nested, then the failed answer; after passed bytes the numbers go on."""
    writer = wire.open_writer(call(stream=True), 7)
    writer.write(Chunk(text="half"))
    error, failed = events(writer.error(UpstreamClosedError("It was cut."), "req_1"))
    assert (error["type"], error["code"], error["message"]) == ("error", "upstream_closed", "It was cut.")
    assert error["error"]["request_id"] == "req_1"
    assert failed["sequence_number"] == error["sequence_number"] + 1
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    passed = wire.open_writer(call(stream=True), 7)
    raw = event("response.output_text.delta", delta="x", sequence_number=41)
    passed.write(Chunk(raw=raw, wire=wire.WIRE))
    (error,) = events(passed.error(UpstreamClosedError("It was cut."), "req_1"))
    assert (error["type"], error["sequence_number"]) == ("error", 42)


def test_bytes_of_the_same_format_pass_unchanged() -> None:
    """A chunk that came in this format leaves as it came, its last event included."""
    writer = wire.open_writer(call(stream=True), 0)
    chunk = wire.open_reader().feed(STREAM)
    assert chunk is not None
    assert writer.write(Chunk(raw=STREAM, wire=wire.WIRE)) == STREAM
    assert writer.end() == b""
    assert wire.write_answer(call(), [Chunk(raw=b"{ }", wire=wire.WIRE)], 0) == b"{ }"


def test_whole_answers_are_read() -> None:
    """All kinds of items; several encrypted blocks stay apart and go back as several items."""
    output = [THOUGHT, {**THOUGHT, "summary": [], "encrypted_content": "gBBB"}, WORDS, CALLED]
    body = json.dumps({"model": "big", "status": "completed", "output": output}).encode()
    chunk = wire.read_answer(body)
    assert (chunk.reasoning, chunk.redacted, chunk.text) == ("One.\n\nTwo.", "gAAA\ngBBB", "Hm.")
    assert (chunk.tool_calls, chunk.finish) == ((ToolCall(0, "c1", "f", "{}"),), "tool_calls")
    back = sent(Message("assistant", (Reasoning(chunk.reasoning, redacted=chunk.redacted),)))["input"]
    assert [item["encrypted_content"] for item in back] == ["gAAA", "gBBB"]
    written = json.loads(wire.write_answer(call(), [Chunk(redacted=chunk.redacted, finish="stop")], 7))
    assert [item.get("encrypted_content") for item in written["output"]] == ["gAAA", "gBBB", None]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", UpstreamProtocolError),
        (b'{"output": [{"type": "function_call"}], "status": "completed"}', UpstreamProtocolError),
        (b'{"status": "failed", "error": {"code": "server_error", "message": "x"}}', UpstreamError),
        (b'{"error": {"code": "invalid_prompt", "message": "blocked"}}', UpstreamRefusedError),
    ],
)
def test_whole_answers_that_are_none(body: bytes, error: type[FirstTokenError]) -> None:
    """What is no answer is an error."""
    with pytest.raises(error) as caught:
        wire.read_answer(body)
    assert type(caught.value) is error


def test_citations_are_flat_here_and_nested_there() -> None:
    """OpenAI's two formats write a cited page differently; each gets its own."""
    flat = {"type": "url_citation", "url": "u", "title": "t"}
    nested = {"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}
    for citation in (flat, nested):
        chunks = [Chunk(text="a", citations=(citation,), finish="stop")]
        here = json.loads(wire.write_answer(call(), chunks, 7))
        assert here["output"][0]["content"][0]["annotations"] == [flat]
        there = json.loads(openai_chat.write_answer(call(), chunks, 7))
        assert there["choices"][0]["message"]["annotations"] == [nested]
