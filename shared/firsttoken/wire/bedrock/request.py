"""Requests of Bedrock's ``Converse`` and ``ConverseStream``; the model stands in the path, not in them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from firsttoken.chat import (
    ChatRequest,
    Message,
    OutputFormat,
    ReasoningWish,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import RequestError
from firsttoken.model import Call, Source
from firsttoken.wire import json_body
from firsttoken.wire.bedrock.content import (
    WIRE,
    Block,
    CachePoint,
    Camel,
    Turn,
    cache_point,
    read_parts,
    read_turn,
    write_messages,
)
from firsttoken.wire.bedrock.extra import Extra, is_claude, read_extra, write_extra

STOP_SEQUENCE = "/stop_sequence"
"""Where Claude says which stop sequence ended the answer; Converse passes that on when it is asked to."""

_Share = Annotated[float, Meta(ge=0, le=1)]
_ENUMS = {"role": "user, assistant, system", "ttl": "5m, 1h"}


class _Inference(Camel, frozen=True):
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: _Share | None = None
    top_p: _Share | None = None
    stop_sequences: list[str] | None = None


class _InputSchema(Camel, frozen=True):
    json: dict[str, Any] | None = None


class _ToolSpec(Camel, frozen=True):
    name: str
    description: str | None = None
    input_schema: _InputSchema = _InputSchema()
    strict: bool | None = None


class _Tool(Camel, frozen=True):
    tool_spec: _ToolSpec | None = None
    cache_point: CachePoint | None = None


class _Name(Camel, frozen=True):
    name: str


class _Choice(Camel, frozen=True):
    auto: dict[str, Any] | None = None
    any: dict[str, Any] | None = None
    tool: _Name | None = None


class _ToolConfig(Camel, frozen=True):
    tools: tuple[_Tool, ...] = ()
    tool_choice: _Choice | None = None


class _JsonSchema(Camel, frozen=True):
    schema: str
    name: str | None = None
    description: str | None = None


class _Structure(Camel, frozen=True):
    json_schema: _JsonSchema | None = None


class _TextFormat(Camel, frozen=True):
    structure: _Structure
    type: str = "json_schema"


class _OutputConfig(Camel, frozen=True):
    text_format: _TextFormat | None = None
    effort: str | None = None


class _Tier(Camel, frozen=True):
    type: str


class _Performance(Camel, frozen=True):
    latency: str | None = None


class _Request(Camel, frozen=True):
    """The body, as AWS's service model describes it."""

    messages: list[Turn] | None = None
    system: list[Block] | None = None
    inference_config: _Inference | None = None
    tool_config: _ToolConfig | None = None
    additional_model_request_fields: dict[str, Any] | None = None
    additional_model_response_field_paths: list[str] | None = None
    request_metadata: dict[str, str] | None = None
    performance_config: _Performance | None = None
    service_tier: _Tier | None = None
    output_config: _OutputConfig | None = None


_decoder = msgspec.json.Decoder(_Request)
_schema = msgspec.json.Decoder(dict[str, Any])
_OURS = frozenset(_Request.__struct_encode_fields__)
_NOTHING = (b"null", b"{}", b"[]")


def read_request(body: bytes, model: str = "", *, stream: bool | None = None) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    wire = json_body.decode(_decoder, body, _ENUMS)
    extra = read_extra(wire.additional_model_request_fields or {})
    inference = wire.inference_config or _Inference()
    tools = wire.tool_config or _ToolConfig()
    output = wire.output_config or _OutputConfig()
    unknown = [*_unknown(wire, body, model), *extra.unknown]
    request = ChatRequest(
        model=model,
        messages=_read_messages(wire),
        stream=bool(stream),
        include_usage=True,
        max_tokens=inference.max_tokens,
        temperature=inference.temperature,
        top_p=inference.top_p,
        top_k=extra.top_k,
        stop=tuple(inference.stop_sequences or ()),
        tools=_read_tools(tools, unknown),
        tool_choice=_read_choice(tools.tool_choice, unknown) if tools.tool_choice else None,
        parallel_tool_calls=extra.parallel,
        output=_read_output(output.text_format, unknown) if output.text_format else None,
        reasoning=_read_wish(extra, output.effort or ""),
        metadata=wire.request_metadata,
        service_tier=wire.service_tier.type if wire.service_tier else "",
    )
    return request, Source(WIRE, body, tuple(unknown))


def _unknown(wire: _Request, body: bytes, model: str) -> list[str]:
    """Name what has no neutral word and asks for something."""
    names = [
        name
        for name, raw in json_body.fields(body).items()
        if name not in _OURS and bytes(raw) not in _NOTHING
    ]
    if wire.performance_config and wire.performance_config.latency not in (None, "standard"):
        names.append("performanceConfig")
    if set(wire.additional_model_response_field_paths or ()) - {STOP_SEQUENCE}:
        names.append("additionalModelResponseFieldPaths")
    if not wire.messages:
        if ":prompt/" not in model:
            raise RequestError(
                "messages: expected at least one message.", param="messages", code="invalid_value"
            )
        names.append("modelId (a stored prompt)")
    return names


def _read_messages(wire: _Request) -> tuple[Message, ...]:
    system = [Message("system", tuple(read_parts(wire.system)))] if wire.system else []
    return (*system, *[message for turn in wire.messages or () for message in read_turn(turn)])


def _read_wish(extra: Extra, effort: str) -> ReasoningWish | None:
    extra.effort = extra.effort or effort
    return extra.wish()


def _read_tools(config: _ToolConfig, unknown: list[str]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for position, tool in enumerate(config.tools):
        if tool.cache_point and tools:
            tools[-1] = msgspec.structs.replace(tools[-1], cache=tool.cache_point.ttl)
        elif tool.tool_spec is None:
            unknown.append(f"toolConfig.tools[{position}]")
        else:
            spec = tool.tool_spec
            tools.append(Tool(spec.name, spec.description or "", spec.input_schema.json, spec.strict))
    return tuple(tools)


def _read_choice(choice: _Choice, unknown: list[str]) -> ToolChoice | None:
    if choice.tool is not None:
        return ToolChoice("tool", choice.tool.name)
    if choice.any is not None:
        return ToolChoice("required")
    if choice.auto is None:
        unknown.append("toolConfig.toolChoice")
    return ToolChoice("auto")


def _read_output(wire: _TextFormat, unknown: list[str]) -> OutputFormat | None:
    said = wire.structure.json_schema
    if said is None:
        unknown.append("outputConfig.textFormat")
        return None
    try:
        schema = _schema.decode(said.schema)
    except (msgspec.DecodeError, RecursionError) as error:
        name = "outputConfig.textFormat.structure.jsonSchema.schema"
        message = f"{name}: expected the text of a JSON schema: {error}."
        raise RequestError(message, param=name, code="invalid_value") from error
    return OutputFormat(schema, said.name or "", said.description or "")


def write_request(call: Call, model: str) -> bytes:
    """Return the body to send: the client's own, if it speaks this format. The model belongs in the path."""
    if call.source.wire == WIRE:
        return call.source.body
    json_body.refuse_unknown(call.source, WIRE)
    request = call.request
    json_body.refuse(request, WIRE, "seed", "cache_key")
    if request.presence_penalty or request.frequency_penalty:
        raise json_body.unsupported(
            "presence_penalty" if request.presence_penalty else "frequency_penalty", WIRE
        )
    system, turns = write_messages(request.messages)
    additional, effort = write_extra(request, model)
    asks_for_stop = bool(request.stop) and is_claude(model)
    body: dict[str, Any] = {
        "messages": turns,
        "system": system,
        "inferenceConfig": _write_inference(request),
        "toolConfig": _write_tools(request, parallel="tool_choice" not in additional),
        "outputConfig": _write_output(request.output, effort),
        "additionalModelRequestFields": additional,
        "additionalModelResponseFieldPaths": [STOP_SEQUENCE] if asks_for_stop else None,
        "requestMetadata": _write_metadata(request),
        "serviceTier": _write_tier(request.service_tier),
    }
    return msgspec.json.encode({name: value for name, value in body.items() if value or name == "messages"})


def _write_inference(request: ChatRequest) -> dict[str, Any]:
    if request.temperature is not None and request.temperature > 1:
        raise json_body.unsupported("temperature (above 1)", WIRE)
    values = {
        "maxTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": list(request.stop) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _write_tools(request: ChatRequest, *, parallel: bool) -> dict[str, Any] | None:
    choice = request.tool_choice
    if not request.tools:
        return None
    if choice and choice.mode == "none":
        parts = [part for turn in request.messages for part in turn.parts]
        if any(isinstance(part, ToolUse | ToolResult) for part in parts):
            raise json_body.unsupported("tool_choice (none, after tools were used)", WIRE)
        return None
    tools = [written for tool in request.tools for written in (_write_tool(tool), *cache_point(tool.cache))]
    if choice is None or not parallel:
        return {"tools": tools}
    words: dict[str, Any] = {
        "auto": {"auto": {}},
        "required": {"any": {}},
        "tool": {"tool": {"name": choice.name}},
    }
    return {"tools": tools, "toolChoice": words[choice.mode]}


def _write_tool(tool: Tool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description or None,
        "inputSchema": {"json": tool.schema or {"type": "object", "properties": {}}},
        "strict": tool.strict,
    }
    return {"toolSpec": {name: value for name, value in spec.items() if value is not None}}


def _write_output(output: OutputFormat | None, effort: str) -> dict[str, Any]:
    written: dict[str, Any] = {"effort": effort} if effort else {}
    if output is None:
        return written
    if output.schema is None:
        raise json_body.unsupported("output (any JSON object; a schema is needed)", WIRE)
    schema = {
        "schema": msgspec.json.encode(output.schema).decode(),
        "name": output.name or None,
        "description": output.description or None,
    }
    structure = {"jsonSchema": {name: value for name, value in schema.items() if value is not None}}
    return {**written, "textFormat": {"type": "json_schema", "structure": structure}}


def _write_metadata(request: ChatRequest) -> dict[str, str]:
    metadata = dict(request.metadata or {})
    if request.user and metadata.setdefault("user", request.user) != request.user:
        raise json_body.unsupported("user (beside another one in metadata)", WIRE)
    return metadata


_TIERS = {"default": "default", "standard": "default", "standard_only": "default"}
_TIERS |= {name: name for name in ("priority", "flex", "reserved")}


def _write_tier(tier: str) -> dict[str, str] | None:
    if tier in ("", "auto"):
        return None
    if tier not in _TIERS:
        raise json_body.unsupported("service_tier", WIRE)
    return {"type": _TIERS[tier]}


__all__ = ["STOP_SEQUENCE", "WIRE", "read_request", "write_request"]
