"""Requests of ``generateContent`` and ``streamGenerateContent``, written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import UnsupportedFieldError
from firsttoken.model import Call
from firsttoken.wire import json_body
from firsttoken.wire.gemini.contents import MADE_ID, WIRE, media_type_of
from firsttoken.wire.gemini.names import camelised
from firsttoken.wire.gemini.signatures import UNSIGNED

_BUDGETS = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}
"""Thinking tokens for models before Gemini 3. Source: the Gemini API guide, "OpenAI compatibility"."""
_LEVELS = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_TIERS = {
    "auto": None,
    "default": "standard",
    "standard_only": "standard",
    "flex": "flex",
    "priority": "priority",
}

_object = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder(dict[str, Any])


def write_request(call: Call, model: str) -> bytes:
    """Return the body to send: the client's own if it speaks this format."""
    return call.source.body if call.source.wire == WIRE else _write(call, model, ids=True)


def write_request_without_ids(call: Call, model: str) -> bytes:
    """Return the body for Vertex AI, whose API has no ids of calls and refuses them."""
    if call.source.wire != WIRE:
        return _write(call, model, ids=False)
    return _without_ids(call.source.body) if b'"id"' in call.source.body else call.source.body


def _write(call: Call, model: str, *, ids: bool) -> bytes:
    json_body.refuse_unknown(call.source, WIRE)
    request = call.request
    json_body.refuse(request, WIRE, "user")
    if request.parallel_tool_calls is False:
        raise json_body.unsupported("parallel_tool_calls", WIRE)
    writer = _ContentsWriter(ids=ids, signed=not _is_old(model))
    body = {
        "contents": writer.write(request.messages),
        "systemInstruction": _system(request.messages),
        "tools": [{"functionDeclarations": [_tool(t) for t in request.tools]}] if request.tools else None,
        "toolConfig": _tool_config(request.tool_choice) if request.tool_choice else None,
        "generationConfig": _generation(request, model) or None,
        "labels": request.metadata or None,
        "serviceTier": _tier(request.service_tier),
    }
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def _generation(request: ChatRequest, model: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        **(_output(request.output) if request.output else {}),
        "thinkingConfig": _thinking(request.reasoning, model) if request.reasoning else None,
    }
    return {name: value for name, value in config.items() if value is not None}


def _system(messages: tuple[Message, ...]) -> dict[str, Any] | None:
    """Write all system and developer messages, in their order, as the one instruction that there can be."""
    parts = [part for m in messages if m.role in ("system", "developer") for part in m.parts]
    for part in parts:
        if not isinstance(part, Text):
            raise _unsupported(f"{_kind(part)} in a system message")
    written = [{"text": part.text} for part in parts if isinstance(part, Text)]
    return {"parts": written} if written else None


class _ContentsWriter:
    """Writes the turns in their order; a response names the function of the call that it answers."""

    def __init__(self, *, ids: bool, signed: bool) -> None:
        self._ids = ids
        self._signed = signed
        self._names: dict[str, str] = {}

    def write(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Return the contents: all responses to the calls of one turn are one content."""
        contents: list[dict[str, Any]] = []
        before = ""
        for message in messages:
            if message.role in ("system", "developer"):
                continue
            if message.name:
                raise json_body.unsupported("messages.name", WIRE)
            parts = self._parts(message)
            if message.role == before == "tool":
                contents[-1]["parts"] += parts
            else:
                contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
            before = message.role
        return contents

    def _parts(self, message: Message) -> list[dict[str, Any]]:
        written = []
        signed = not self._signed
        for part in message.parts:
            if isinstance(part, ToolUse):
                written.append(self._call(part, needs_signature=not signed))
                signed = True
            elif not (isinstance(part, Text) and not part.text and len(message.parts) > 1):
                written.append(self._part(part))
        return written or [{"text": ""}]

    def _part(self, part: Part) -> dict[str, Any]:
        if isinstance(part, Text):
            return {"text": part.text}
        if isinstance(part, Image):
            return _image(part)
        if isinstance(part, ToolResult):
            return self._result(part)
        if isinstance(part, Reasoning) and not part.redacted:
            written: dict[str, Any] = {"text": part.text}
            if part.text:
                written["thought"] = True
            if part.signature:
                written["thoughtSignature"] = part.signature
            return written
        raise _unsupported(_kind(part))

    def _call(self, part: ToolUse, *, needs_signature: bool) -> dict[str, Any]:
        self._names[part.id] = part.name
        written = {"functionCall": {"name": part.name, "args": _arguments(part), **self._id(part.id)}}
        signature = part.signature or (UNSIGNED if needs_signature else "")
        return {**written, "thoughtSignature": signature} if signature else written

    def _result(self, part: ToolResult) -> dict[str, Any]:
        name = self._names.get(part.id) or part.name
        if not name:
            raise _unsupported(f"tool result without a call ({part.id!r})")
        text = "".join([inner.text for inner in part.parts if isinstance(inner, Text)])
        written: dict[str, Any] = {"name": name, "response": {"error" if part.is_error else "output": text}}
        if images := [_image(inner) for inner in part.parts if isinstance(inner, Image)]:
            written["parts"] = images
        return {"functionResponse": {**written, **self._id(part.id)}}

    def _id(self, id_: str) -> dict[str, str]:
        return {"id": id_} if self._ids and id_ and not id_.startswith(MADE_ID) else {}


def _arguments(call: ToolUse) -> Raw:
    text = call.arguments.encode() or b"{}"
    try:
        _object.decode(text)
    except msgspec.DecodeError as error:
        message = (
            f"messages: the arguments of the call of {call.name!r} are no JSON object, which {WIRE} needs."
        )
        raise UnsupportedFieldError(message, param="messages") from error
    return Raw(text)


def _image(part: Image) -> dict[str, Any]:
    if part.url:
        kind = part.media_type or media_type_of(part.url)
        return {"fileData": {"fileUri": part.url, **({"mimeType": kind} if kind else {})}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}


def _kind(part: Part) -> str:
    if isinstance(part, Opaque):
        return part.kind
    return "encrypted reasoning" if isinstance(part, Reasoning) else type(part).__name__


def _unsupported(what: str) -> UnsupportedFieldError:
    return UnsupportedFieldError(f"messages: a target that speaks {WIRE} has no {what}.", param="messages")


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.schema is not None:
        written["parametersJsonSchema"] = tool.schema
    return written


def _tool_config(choice: ToolChoice) -> dict[str, Any]:
    calling: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode == "tool":
        calling["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": calling}


def _output(output: OutputFormat) -> dict[str, Any]:
    written: dict[str, Any] = {"responseMimeType": "application/json"}
    if output.schema is not None:
        told = {"description": output.description} if output.description else {}
        written["responseJsonSchema"] = {**told, **output.schema}
    return written


def _thinking(wish: ReasoningWish, model: str) -> dict[str, Any]:
    """Write how much to think: Gemini 3 and later take levels, those before take budgets."""
    if wish.enabled is False or wish.budget == 0 or (wish.effort == "none" and wish.budget is None):
        return {"thinkingBudget": 0}
    config: dict[str, Any] = {"includeThoughts": True}
    if wish.budget is not None:
        return {**config, "thinkingBudget": wish.budget}
    if not wish.effort:
        return config
    if wish.effort not in _LEVELS:
        raise json_body.unsupported("reasoning.effort", WIRE)
    if _is_old(model):
        return {**config, "thinkingBudget": _BUDGETS[wish.effort]}
    return {**config, "thinkingLevel": _LEVELS[wish.effort]}


def _is_old(model: str) -> bool:
    return model.rpartition("/")[2].startswith(("gemini-1", "gemini-2"))


def _tier(tier: str) -> str | None:
    if tier and tier not in _TIERS:
        raise json_body.unsupported("service_tier", WIRE)
    return _TIERS.get(tier)


def _without_ids(body: bytes) -> bytes:
    """Return a client's body without the ids of calls and responses; all else is what the client wrote."""
    fields = json_body.fields(body)
    contents = camelised(_any.decode(b'{"contents":' + bytes(fields["contents"]) + b"}"))["contents"]
    for content in contents:
        for part in content.get("parts", ()):
            for kind in ("functionCall", "functionResponse"):
                part.get(kind, {}).pop("id", None)
    return msgspec.json.encode({**fields, "contents": contents})


__all__ = ["write_request", "write_request_without_ids"]
