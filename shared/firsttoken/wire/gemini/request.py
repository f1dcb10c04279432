"""Requests of ``generateContent`` and ``streamGenerateContent``, read; `outgoing` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

from firsttoken.chat import ChatRequest, OutputFormat, ReasoningWish, Tool, ToolChoice
from firsttoken.errors import RequestError
from firsttoken.model import Source
from firsttoken.wire import json_body
from firsttoken.wire.gemini.contents import ROLES, WIRE, Content, ContentsReader
from firsttoken.wire.gemini.names import camelised
from firsttoken.wire.gemini.schemas import json_schema

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class _Thinking(Struct, frozen=True, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=-1)] | None = None
    thinking_level: str | None = None


class _Generation(Struct, frozen=True, rename="camel"):
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[float, Meta(ge=0)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    thinking_config: _Thinking | None = None


class _Calling(Struct, frozen=True, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfig(Struct, frozen=True, rename="camel"):
    function_calling_config: _Calling | None = None


class _Declaration(Struct, frozen=True, rename="camel"):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None
    response: Any = None
    """What the function returns, as the next one: told to the model only, without a neutral word."""
    response_json_schema: Any = None


class _Tool(Struct, frozen=True, rename="camel"):
    function_declarations: list[_Declaration] | None = None


class _Request(Struct, frozen=True, rename="camel"):
    """The body, as the API reference describes it."""

    contents: Annotated[list[Content], Meta(min_length=1)]
    system_instruction: Content | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _Generation | None = None
    labels: dict[str, str] | None = None
    service_tier: str | None = None


class _RawCall(Struct, frozen=True):
    args: Raw = Raw(b"{}")


class _RawPart(Struct, frozen=True):
    function_call: _RawCall | None = None
    camel_call: _RawCall | None = field(default=None, name="functionCall")


class _RawContent(Struct, frozen=True):
    parts: list[_RawPart] = []


class _RawRequest(Struct, frozen=True):
    """The arguments of calls as they were written: spaces and long numbers too."""

    contents: list[_RawContent]


_decoder = msgspec.json.Decoder(dict[str, Any])
_raw_decoder = msgspec.json.Decoder(_RawRequest)
_NOTHING: dict[str, tuple[Any, ...]] = {
    "candidateCount": (1,),
    "responseLogprobs": (False,),
    "responseModalities": (["TEXT"],),
    "store": (False,),
    "audioTimestamp": (False,),
    "behavior": ("BLOCKING",),
    "streamFunctionCallArguments": (False,),
    "includeServerSideToolInvocations": (False,),
}
"""Fields that the neutral vocabulary has no word for, each with the value that asks for nothing."""
_TIERS = {"standard": "default", "unspecified": "", "service_tier_unspecified": ""}


def read_request(body: bytes, model: str = "", *, stream: bool | None = None) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    try:
        raw = camelised(json_body.decode(_decoder, body))
        wire = _typed(raw)
        unknown = _unknown(raw)
        reader = ContentsReader(unknown, _arguments(body))
        request = _request(wire, raw, reader, model, stream=bool(stream))
    except RecursionError as error:
        raise RequestError("The body is nested too deep.", code="nested_too_deep") from error
    return request, Source(WIRE, body, tuple(unknown))


def _typed(raw: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(raw, _Request)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        name = path.rstrip("`").removeprefix(".")
        if what.startswith("Object missing required field"):
            name = ".".join(filter(None, (name, what.split("`")[1])))
        if what.startswith("Invalid enum value"):
            what += f"; expected one of {ROLES}"
        raise RequestError(f"{name}: {what}", param=name or None, code="invalid_value") from error


def _arguments(body: bytes) -> Iterator[str]:
    try:
        contents = _raw_decoder.decode(body).contents if b"unction" in body else []
    except msgspec.DecodeError:
        contents = []  # the forms with one element instead of a list: written anew
    for content in contents:
        for part in content.parts:
            if call := part.function_call or part.camel_call:
                yield bytes(call.args).decode()


def _request(
    wire: _Request, raw: dict[str, Any], reader: ContentsReader, model: str, *, stream: bool
) -> ChatRequest:
    unknown = reader.unknown
    config = wire.generation_config or _Generation()
    system = wire.system_instruction
    messages = reader.read(wire.contents, raw["contents"])
    if system and system.parts:
        messages = (reader.system(system, raw["systemInstruction"]), *messages)
    calling = (wire.tool_config or _ToolConfig()).function_calling_config or _Calling()
    tools = tuple([_tool(d, calling) for tool in wire.tools or () for d in tool.function_declarations or ()])
    return ChatRequest(
        model=model,
        messages=messages,
        stream=stream,
        include_usage=True,
        max_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=int(config.top_k) if config.top_k is not None else None,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        stop=tuple(config.stop_sequences or ()),
        seed=config.seed,
        tools=tools,
        tool_choice=_tool_choice(calling, tools, unknown),
        output=_output(config, unknown),
        reasoning=_reasoning(config.thinking_config, unknown) if config.thinking_config else None,
        metadata=wire.labels or None,
        service_tier=_tier(wire.service_tier or ""),
    )


def _unknown(raw: Mapping[str, Any]) -> list[str]:
    """Name the fields without a neutral word that ask for something."""
    found = _extras(raw, _Request, "")
    found += _extras(raw.get("generationConfig"), _Generation, "generationConfig.")
    config = raw.get("toolConfig") or {}
    found += _extras(config, _ToolConfig, "toolConfig.")
    found += _extras(config.get("functionCallingConfig"), _Calling, "toolConfig.functionCallingConfig.")
    thinking = (raw.get("generationConfig") or {}).get("thinkingConfig")
    found += _extras(thinking, _Thinking, "generationConfig.thinkingConfig.")
    for position, tool in enumerate(raw.get("tools") or ()):
        # An empty object switches a tool of Google's on.
        names = [name for name, value in tool.items() if name not in _TOOL_FIELDS and value is not None]
        found += [f"tools[{position}].{name}" for name in names]
        for place, declared in enumerate(tool.get("functionDeclarations") or ()):
            found += _extras(declared, _Declaration, f"tools[{position}].functionDeclarations[{place}].")
    return found


_TOOL_FIELDS = frozenset(_Tool.__struct_encode_fields__)


def _extras(fields: Mapping[str, Any] | None, known: type[Struct], where: str) -> list[str]:
    return [
        where + name
        for name, value in (fields or {}).items()
        if name not in known.__struct_encode_fields__
        and value not in (None, "", [], {}, *_NOTHING.get(name, ()))
    ]


def _tool(wire: _Declaration, calling: _Calling) -> Tool:
    schema = wire.parameters_json_schema
    if schema is None and wire.parameters is not None:
        schema = json_schema(wire.parameters)
    strict = True if (calling.mode or "").upper() == "VALIDATED" else None
    return Tool(wire.name, wire.description or "", schema, strict)


def _tool_choice(calling: _Calling, tools: tuple[Tool, ...], unknown: list[str]) -> ToolChoice | None:
    mode, allowed = (calling.mode or "").upper(), calling.allowed_function_names or []
    if mode == "NONE":
        return ToolChoice("none")
    if mode == "ANY" and len(allowed) == 1:
        return ToolChoice("tool", allowed[0])
    if allowed and {tool.name for tool in tools} != set(allowed):
        unknown.append("toolConfig.functionCallingConfig.allowedFunctionNames")
    if mode == "ANY":
        return ToolChoice("required")
    if mode not in ("", "AUTO", "VALIDATED", "MODE_UNSPECIFIED"):
        unknown.append("toolConfig.functionCallingConfig.mode")
    return ToolChoice("auto") if mode in ("AUTO", "VALIDATED") else None


def _output(config: _Generation, unknown: list[str]) -> OutputFormat | None:
    kind = config.response_mime_type or "text/plain"
    if kind not in ("text/plain", "application/json"):
        unknown.append("generationConfig.responseMimeType")
        return None
    if config.response_json_schema is not None:
        return OutputFormat(config.response_json_schema)
    if config.response_schema is not None:
        return OutputFormat(json_schema(config.response_schema))
    return OutputFormat() if kind == "application/json" else None


def _reasoning(wire: _Thinking, unknown: list[str]) -> ReasoningWish | None:
    """Read how much the model should think; a budget of -1 leaves it to the model, 0 switches it off."""
    budget = wire.thinking_budget
    level = (wire.thinking_level or "").lower().removeprefix("thinking_level_")
    effort = "" if level == "unspecified" else level
    if effort not in ("", "minimal", "low", "medium", "high", "xhigh"):
        unknown.append("generationConfig.thinkingConfig.thinkingLevel")
        effort = ""
    if budget == 0:
        return ReasoningWish(effort, 0, enabled=False)
    if budget is None and not effort and not wire.include_thoughts:
        return None
    return ReasoningWish(effort, budget if budget and budget > 0 else None, enabled=True)


def _tier(tier: str) -> str:
    word = tier.lower().removeprefix("service_tier_")
    return _TIERS.get(word, word)


__all__ = ["WIRE", "read_request"]
