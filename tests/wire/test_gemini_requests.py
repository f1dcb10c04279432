"""Requests of the Gemini codec, read and written."""

from __future__ import annotations

import contextlib
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
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.model import Call, Source
from firsttoken.wire import gemini as wire
from firsttoken.wire.gemini import vertex
from firsttoken.wire.gemini.signatures import UNSIGNED

TURN: dict[str, Any] = {"role": "user", "parts": [{"text": "hi"}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def read(**fields: Any) -> tuple[ChatRequest, Source]:
    return wire.read_request(json.dumps({"contents": [TURN], **fields}).encode(), "m", stream=False)


def parts(*parts: dict[str, Any], role: str = "user") -> tuple[Any, ...]:
    """Return the parts of one turn as they are read."""
    request, _ = read(contents=[{"role": role, "parts": list(parts)}])
    return tuple(part for message in request.messages for part in message.parts)


def call(*messages: Message, **fields: Any) -> Call:
    """Return a call of a client that speaks another format."""
    request = ChatRequest(model="m", messages=messages or (Message("user", (Text("hi"),)),), **fields)
    return Call(request=request, source=Source("openai-chat", b"{}"), id="1", deadline=0.0)


def sent(
    *messages: Message, model: str = "gemini-3-flash", codec: Any = wire, **fields: Any
) -> dict[str, Any]:
    """Return the body that a target gets."""
    return json.loads(codec.write_request(call(*messages, **fields), model))


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not valid JSON"),
        (b"[]", None, "Expected `object`"),
        (b"{}", "contents", "missing required field"),
        (b'{"contents": []}', "contents", "length >= 1"),
        (b'{"contents": [{"role": "boss", "parts": []}]}', "contents[0].role", "user, model"),
        (b'{"contents": [{"parts": [{"text": 1}]}]}', "contents[0].parts[0].text", "Expected `str"),
        (
            b'{"contents": [{"parts": [{"function_call": {}}]}]}',
            "contents[0].parts[0].functionCall.name",
            "missing required field",
        ),
        (
            b'{"contents": [{"parts": []}], "generation_config": {"temperature": 3}}',
            "generationConfig.temperature",
            "<= 2",
        ),
        (
            b'{"contents": [{"parts": []}], "tools": [{"functionDeclarations": [{"name": ""}]}]}',
            "tools[0].functionDeclarations[0].name",
            "length >= 1",
        ),
        (b'{"contents": [{"parts": [{"text": "\xff"}]}]}', None, "not valid JSON"),
        (b"[" * 100_000, None, "Expected"),
        (b'{"a":' * 100_000, None, "nested too deep"),
    ],
)
def test_bad_requests_name_the_field(body: bytes, param: str | None, said: str) -> None:
    """What is wrong with a request is said with the field's path and what was expected."""
    with pytest.raises(RequestError) as caught:
        wire.read_request(body, "m", stream=True)
    assert caught.value.param == param
    assert said in str(caught.value)


@pytest.mark.parametrize("inner", [b'{"parts":', b'{"parts":[', b'{"tool_call":'])
@pytest.mark.parametrize("depth", [10, 100, 300, 450, 700, 900, 1000, 5000])
def test_depth_is_no_defect(inner: bytes, depth: int) -> None:
    """However deep a body is nested, it is read or refused."""
    ends = b"]}" if inner.endswith(b"[") else b"}"
    body = b'{"contents":[' + inner * depth + b"1" + ends * depth + b"]}"
    with contextlib.suppress(RequestError):
        wire.read_request(body, "m", stream=True)


def test_the_settings_of_a_request() -> None:
    """Every setting with a neutral word is read, in either spelling of its name."""
    config = {
        "temperature": 0.5,
        "topP": 0.9,
        "top_k": 40.0,
        "maxOutputTokens": 100,
        "stop_sequences": ["a", "b"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequency_penalty": 0.2,
        "candidateCount": 1,
        "responseModalities": ["TEXT"],
    }
    request, source = read(
        generationConfig=config,
        system_instruction={"parts": [{"text": "Be"}, {"text": "kind"}]},
        labels={"team": "a_b"},
        serviceTier="SERVICE_TIER_FLEX",
        store=False,
        cachedContent=None,
    )
    assert source == Source("gemini", source.body, ())
    assert request.messages[0] == Message("system", (Text("Be"), Text("kind")))
    assert (request.model, request.temperature, request.top_p, request.top_k) == ("m", 0.5, 0.9, 40)
    assert (request.max_tokens, request.stop, request.seed) == (100, ("a", "b"), 7)
    assert (request.presence_penalty, request.frequency_penalty) == (0.1, 0.2)
    assert (request.metadata, request.service_tier) == ({"team": "a_b"}, "flex")


def test_what_has_no_neutral_word_is_named() -> None:
    """Such fields stay in the bytes and are listed by their path, when they ask for something."""
    _, source = read(
        contents=[{"parts": [{"text": "x", "media_resolution": {"level": "HIGH"}}]}],
        cached_content="cachedContents/1",
        safetySettings=[{"category": "x"}],
        modelArmorConfig={"x": 1},
        generationConfig={
            "candidateCount": 2,
            "responseModalities": ["IMAGE"],
            "responseMimeType": "text/x.enum",
            "thinkingConfig": {"thinkingLevel": "ODD"},
        },
        tools=[{"googleSearch": {}}, {"functionDeclarations": [{"name": "f", "behavior": "NON_BLOCKING"}]}],
        toolConfig={"functionCallingConfig": {"mode": "ODD", "streamFunctionCallArguments": True}},
    )
    assert set(source.unknown) == {
        "contents[0].parts[0].mediaResolution",
        "cachedContent",
        "safetySettings",
        "modelArmorConfig",
        "generationConfig.candidateCount",
        "generationConfig.responseModalities",
        "generationConfig.responseMimeType",
        "generationConfig.thinkingConfig.thinkingLevel",
        "tools[0].googleSearch",
        "tools[1].functionDeclarations[0].behavior",
        "toolConfig.functionCallingConfig.mode",
        "toolConfig.functionCallingConfig.streamFunctionCallArguments",
    }
    here = Call(request=call().request, source=source, id="1", deadline=0.0)
    assert wire.write_request(here, "other") == source.body, "a target of the same format gets the bytes"


def test_pictures_and_other_media() -> None:
    """Pictures are read, base64 in the standard alphabet; other media only this format can express."""
    read_parts = parts(
        {"inlineData": {"mimeType": "image/png", "data": "-_8="}},
        {"fileData": {"fileUri": "gs://b/x", "mime_type": "image/webp"}},
        {"file_data": {"file_uri": "https://x/y.JPG?z"}},
        {"inlineData": {"mimeType": "audio/wav", "data": ""}},
        {"fileData": {"fileUri": "https://x/y.pdf"}},
        {"executableCode": {"code": "1"}},
    )
    assert read_parts[:3] == (
        Image(data="+/8=", media_type="image/png"),
        Image(url="gs://b/x", media_type="image/webp"),
        Image(url="https://x/y.JPG?z"),
    )
    assert [part.kind for part in read_parts[3:] if isinstance(part, Opaque)] == [
        "inlineData part of type audio/wav",
        "fileData part of type unknown",
        "part of type executableCode",
    ]


def test_a_list_of_one_may_be_left_out() -> None:
    """The API takes one element for a list of one; so do examples of its documentation."""
    declared = {"functionDeclarations": {"name": "f"}}
    request, _ = read(contents={"role": "user", "parts": {"text": "hi"}}, tools=declared)
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert request.tools == (Tool("f"),)


def test_turns_of_the_model_in_pieces_are_one() -> None:
    """Clients keep a stream as many contents; text and thoughts are put together, what differs is not."""
    pieces = [
        {"text": "Hm, ", "thought": True},
        {"text": "well.", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "one "},
        {"text": "two"},
        {"functionCall": {"name": "f", "id": "a", "args": {"x": 1.10}}, "thoughtSignature": "c2ln"},
    ]
    request, _ = read(contents=[TURN, TURN, *[{"role": "model", "parts": [piece]} for piece in pieces]])
    assert request.messages == (
        Message("user", (Text("hi"),)),
        Message("user", (Text("hi"),)),
        Message(
            "assistant",
            (Reasoning("Hm, well.", "c2ln"), Text("one two"), ToolUse("a", "f", '{"x": 1.1}', "c2ln")),
        ),
    )


def test_arguments_stay_as_they_were_written() -> None:
    """Spaces and long numbers of a call's arguments are the client's."""
    body = b'{"contents":[{"role":"model","parts":[{"function_call":{"name":"f","args":{ "n": 1.10 }}}]}]}'
    request, _ = wire.read_request(body, "m", stream=False)
    assert request.messages[0].parts == (ToolUse("gcall_1", "f", '{ "n": 1.10 }'),)


def test_responses_find_their_calls() -> None:
    """By id, or by name in the order of the calls; ids that are missing are made, the same every time."""
    calls = [{"functionCall": {"name": name}} for name in ("f", "g", "f")]
    named = [{"functionCall": {"name": "h", "id": "own"}}]
    responses = [
        {"functionResponse": {"name": "f", "response": {"output": "first"}}},
        {"functionResponse": {"name": "f", "response": {"error": "second"}}},
        {"functionResponse": {"name": "g", "response": {"a": [1]}}},
        {"functionResponse": {"name": "h", "response": {"output": {"b": 1}}}},
        {"text": "and?"},
    ]
    request, _ = read(
        contents=[TURN, {"role": "model", "parts": calls + named}, {"role": "user", "parts": responses}]
    )
    assert [m.role for m in request.messages] == ["user", "assistant", "tool", "user"]
    assert [part.id for part in request.messages[1].parts] == ["gcall_1", "gcall_2", "gcall_3", "own"]
    assert request.messages[2].parts == (
        ToolResult("gcall_1", (Text("first"),), "f"),
        ToolResult("gcall_3", (Text("second"),), "f", is_error=True),
        ToolResult("gcall_2", (Text('{"a":[1]}'),), "g"),
        ToolResult("own", (Text('{"b":1}'),), "h"),
    )


def test_pictures_in_responses() -> None:
    """A function may answer with pictures; other media are named."""
    inline = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    answered = {"name": "f", "id": "a", "response": {"output": "see"}, "parts": [inline]}
    assert parts({"functionResponse": answered}) == (
        ToolResult("a", (Text("see"), Image(data="AAAA", media_type="image/png")), "f"),
    )
    answered["parts"] = [{"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]
    _, source = read(contents=[{"parts": [{"functionResponse": answered}]}])
    assert source.unknown == ("functionResponse.parts",)


def test_schemas() -> None:
    """Google's schemas become JSON schemas: types, nullable, order of properties, references, counts."""
    google = {
        "type": "OBJECT",
        "property_ordering": ["b", "a"],
        "required": ["a"],
        "properties": {
            "a": {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}, "minItems": "2"},
            "b": {"any_of": [{"type": "INTEGER"}, {"ref": "#/defs/C"}], "nullable": True},
            "c": {"type": "STRING", "enum": ["x"], "nullable": True, "example": "x"},
            "any_of": {"type": "TYPE_UNSPECIFIED", "additional_properties": {"type": "NUMBER"}},
        },
        "defs": {"C": {"type": "BOOLEAN"}},
    }
    request, _ = read(tools=[{"functionDeclarations": [{"name": "f", "parameters": google}]}])
    schema = request.tools[0].schema
    assert schema == {
        "type": "object",
        "required": ["a"],
        "properties": {
            "b": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/C"}, {"type": "null"}]},
            "a": {"type": "array", "items": {"type": ["string", "null"]}, "minItems": 2},
            "c": {"type": ["string", "null"], "enum": ["x", None], "examples": ["x"]},
            "any_of": {"additionalProperties": {"type": "number"}},
        },
        "$defs": {"C": {"type": "boolean"}},
    }
    assert list(schema["properties"])[:2] == ["b", "a"]


@pytest.mark.parametrize(
    ("calling", "choice", "unknown"),
    [
        ({}, None, False),
        ({"mode": "AUTO"}, ToolChoice("auto"), False),
        ({"mode": "none"}, ToolChoice("none"), False),
        ({"mode": "ANY"}, ToolChoice("required"), False),
        ({"mode": "ANY", "allowedFunctionNames": ["g"]}, ToolChoice("tool", "g"), False),
        ({"mode": "ANY", "allowed_function_names": ["f", "g"]}, ToolChoice("required"), False),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "h"]}, ToolChoice("required"), True),
        ({"mode": "VALIDATED"}, ToolChoice("auto"), False),
    ],
)
def test_tool_choices(calling: dict[str, Any], choice: ToolChoice | None, unknown: bool) -> None:
    """Modes and allowed names are choices; a part of the functions only this format can allow."""
    tools = [{"functionDeclarations": [{"name": "f"}, {"name": "g", "parametersJsonSchema": SCHEMA}]}]
    request, source = read(tools=tools, toolConfig={"functionCallingConfig": calling})
    assert request.tool_choice == choice
    assert bool(source.unknown) == unknown
    strict = True if calling.get("mode") == "VALIDATED" else None
    assert request.tools == (Tool("f", strict=strict), Tool("g", schema=SCHEMA, strict=strict))


@pytest.mark.parametrize(
    ("config", "wish"),
    [
        ({}, None),
        ({"includeThoughts": False}, None),
        ({"includeThoughts": True}, ReasoningWish(enabled=True)),
        ({"thinkingBudget": 0}, ReasoningWish(budget=0, enabled=False)),
        ({"thinking_budget": -1}, ReasoningWish(enabled=True)),
        ({"thinkingBudget": 500}, ReasoningWish(budget=500, enabled=True)),
        ({"thinkingLevel": "HIGH"}, ReasoningWish("high", enabled=True)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
    ],
)
def test_thinking(config: dict[str, Any], wish: ReasoningWish | None) -> None:
    """Levels are efforts, budgets are budgets; no budget switches thinking off, -1 leaves it to the model."""
    if config.get("thinking_budget") == -1:
        config = {**config, "includeThoughts": True}
    assert read(generationConfig={"thinkingConfig": config})[0].reasoning == wish


@pytest.mark.parametrize(
    ("wish", "model", "config"),
    [
        (ReasoningWish("low"), "gemini-3-flash", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (ReasoningWish("low"), "gemini-2.5-pro", {"includeThoughts": True, "thinkingBudget": 1024}),
        (ReasoningWish("xhigh"), "gemini-3-flash", {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        (ReasoningWish(budget=99), "gemini-3-flash", {"includeThoughts": True, "thinkingBudget": 99}),
        (ReasoningWish("none"), "gemini-3-flash", {"thinkingBudget": 0}),
        (ReasoningWish(enabled=False), "gemini-2.5-pro", {"thinkingBudget": 0}),
        (ReasoningWish(enabled=True), "gemini-2.5-pro", {"includeThoughts": True}),
    ],
)
def test_wishes_to_think_are_written(wish: ReasoningWish, model: str, config: dict[str, Any]) -> None:
    """Models from Gemini 3 on take levels, those before take budgets."""
    assert sent(model=model, reasoning=wish)["generationConfig"]["thinkingConfig"] == config


def test_requests_are_written() -> None:
    """A request of another format, with all that this one can express."""
    body = sent(
        Message("system", (Text("Be kind."),)),
        Message("user", (Text("see"), Image(data="AAAA", media_type="image/png"))),
        Message(
            "assistant", (Reasoning("Hm.", "c2ln"), Text("ok"), ToolUse("a", "f", '{ "x": 1.10 }', "c2ln"))
        ),
        Message("tool", (ToolResult("a", (Text("sunny"), Image(url="https://x/y.png"))),)),
        Message("tool", (ToolResult("b", (Text("broken"),), "g", is_error=True),)),
        Message("developer", (Text("Be brief."),)),
        Message("user", (Text("so?"),)),
        temperature=0.5,
        top_k=3,
        max_tokens=9,
        stop=("x",),
        tools=(Tool("f", "Does f.", SCHEMA), Tool("g")),
        tool_choice=ToolChoice("tool", "f"),
        output=OutputFormat(SCHEMA, "name", "It says it.", strict=True),
        metadata={"team": "a"},
        service_tier="default",
        cache_key="k",
    )
    assert body == {
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
                    {"text": "ok"},
                    {
                        "functionCall": {"name": "f", "args": {"x": 1.1}, "id": "a"},
                        "thoughtSignature": "c2ln",
                    },
                ],
            },
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "name": "f",
                            "response": {"output": "sunny"},
                            "parts": [{"fileData": {"fileUri": "https://x/y.png", "mimeType": "image/png"}}],
                            "id": "a",
                        }
                    },
                    {"functionResponse": {"name": "g", "response": {"error": "broken"}, "id": "b"}},
                ],
            },
            {"role": "user", "parts": [{"text": "so?"}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "Does f.", "parametersJsonSchema": SCHEMA},
                    {"name": "g"},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "temperature": 0.5,
            "topK": 3,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
            "responseMimeType": "application/json",
            "responseJsonSchema": {"description": "It says it.", **SCHEMA},
        },
        "labels": {"team": "a"},
        "serviceTier": "standard",
    }


CALLED = Message("assistant", (ToolUse("a", "f", ""), ToolUse("gcall_1", "g", "{}")))


def test_ids_and_signatures_of_calls() -> None:
    """Ids that were made here stay here; the first call of a turn without a signature gets the stand-in."""
    answered = Message("tool", (ToolResult("gcall_1", (Text("x"),)),))
    body = sent(CALLED, answered)["contents"]
    assert body[0]["parts"] == [
        {"functionCall": {"name": "f", "args": {}, "id": "a"}, "thoughtSignature": UNSIGNED},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    assert body[1]["parts"] == [{"functionResponse": {"name": "g", "response": {"output": "x"}}}]
    old = sent(CALLED, model="gemini-2.5-pro")["contents"][0]["parts"]
    assert "thoughtSignature" not in old[0], "models before Gemini 3 need none"
    assert "id" not in sent(CALLED, codec=vertex)["contents"][0]["parts"][0]["functionCall"]


@pytest.mark.parametrize(
    ("message", "fields", "param"),
    [
        (None, {"user": "u"}, "user"),
        (None, {"parallel_tool_calls": False}, "parallel_tool_calls"),
        (None, {"service_tier": "scale"}, "service_tier"),
        (None, {"reasoning": ReasoningWish("extreme")}, "reasoning.effort"),
        (Message("user", (Text("x"),), name="Ann"), {}, "messages.name"),
        (Message("user", (Opaque("anthropic", "document block"),)), {}, "messages"),
        (Message("assistant", (Reasoning(redacted="x"),)), {}, "messages"),
        (Message("assistant", (ToolUse("a", "f", "[1]"),)), {}, "messages"),
        (Message("assistant", (ToolUse("a", "f", '{"x":'),)), {}, "messages"),
        (Message("tool", (ToolResult("a", (Text("x"),)),)), {}, "messages"),
        (Message("system", (Image(url="https://x"),)), {}, "messages"),
    ],
)
def test_what_cannot_be_said_is_refused(message: Message | None, fields: dict[str, Any], param: str) -> None:
    """Nothing is dropped in silence: the error names the field."""
    with pytest.raises(UnsupportedFieldError) as caught:
        sent(*([message] if message else []), **fields)
    assert caught.value.param == param


def test_fields_of_another_format_are_refused() -> None:
    """What only the client's format has cannot be translated."""
    other = Call(
        request=call().request, source=Source("openai-chat", b"{}", ("logprobs",)), id="1", deadline=0
    )
    with pytest.raises(UnsupportedFieldError, match="logprobs"):
        wire.write_request(other, "m")
