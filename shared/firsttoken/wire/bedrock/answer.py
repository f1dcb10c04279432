"""Answers of ``Converse``, and the words that its streams share with it: stop reasons, usage, citations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from firsttoken.errors import UpstreamError, UpstreamProtocolError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire.bedrock.content import WIRE, Camel
from firsttoken.wire.chunks import whole

_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Raw])

_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "model_context_window_exceeded": "context_length",
    "refusal": "refusal",
}
_STOP_REASONS: dict[Finish, str] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "content_filter": "content_filtered",
    "refusal": "content_filtered",
    "context_length": "model_context_window_exceeded",
}


class TokenUsage(Camel, frozen=True):
    """Token counts: ``inputTokens`` holds neither what was read from the cache nor what was written to it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_tokens: int = 0
    """Not Bedrock's: how many of the output tokens were reasoning, where the model's provider tells."""

    def neutral(self) -> Usage:
        """Return the counts in neutral words."""
        cached, written = self.cache_read_input_tokens or 0, self.cache_write_input_tokens or 0
        return Usage(
            input=self.input_tokens + cached + written,
            output=self.output_tokens,
            cached=cached,
            cache_write=written,
            reasoning=self.reasoning_tokens,
        )


class _Router(Camel, frozen=True):
    invoked_model_id: str | None = None


class Trace(Camel, frozen=True):
    """What happened on the way; only the model that a prompt router chose is of use here."""

    prompt_router: _Router | None = None

    def model(self) -> str:
        """Return the model that answered, where that is not the one that was asked."""
        return self.prompt_router.invoked_model_id or "" if self.prompt_router else ""


class _Call(Camel, frozen=True):
    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")
    type: str | None = None
    signature: str = ""


class _ReasoningText(Camel, frozen=True):
    text: str = ""
    signature: str | None = None


class _Reasoning(Camel, frozen=True):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class _Generated(Camel, frozen=True):
    text: str = ""


class _Cited(Camel, frozen=True):
    content: tuple[_Generated, ...] = ()
    citations: tuple[dict[str, Any], ...] = ()


class _Block(Camel, frozen=True):
    text: str | None = None
    tool_use: _Call | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None


class _Message(Camel, frozen=True):
    content: tuple[_Block, ...] = ()


class _Output(Camel, frozen=True):
    message: _Message = _Message()


class _Answer(Camel, frozen=True):
    output: _Output
    stop_reason: str
    usage: TokenUsage | None = None
    additional_model_response_fields: Any = None
    trace: Trace | None = None


_answer = msgspec.json.Decoder(_Answer)


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is."""
    try:
        return _chunk(_answer.decode(body), body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The target's answer is not the JSON that was expected: {error}"
        raise UpstreamProtocolError(message) from error


def _chunk(answer: _Answer, body: bytes) -> Chunk:
    blocks = answer.output.message.content
    thoughts = [block.reasoning_content for block in blocks if block.reasoning_content]
    said = [thought.reasoning_text for thought in thoughts if thought.reasoning_text]
    cited = [block.citations_content for block in blocks if block.citations_content]
    calls = [block.tool_use for block in blocks if block.tool_use and not block.tool_use.type]
    return Chunk(
        text="".join([_text(block) for block in blocks]),
        reasoning="".join([thought.text for thought in said]),
        tool_calls=tuple([_read_call(index, call) for index, call in enumerate(calls)]),
        finish=finish_of(answer.stop_reason),
        usage=answer.usage.neutral() if answer.usage else None,
        model=answer.trace.model() if answer.trace else "",
        raw=body,
        wire=WIRE,
        signature="".join([thought.signature or "" for thought in said]),
        redacted="".join([thought.redacted_content or "" for thought in thoughts]),
        citations=tuple([citation for part in cited for citation in part.citations]),
        stopped_by=stopped_by(answer.additional_model_response_fields),
    )


def _text(block: _Block) -> str:
    if block.citations_content:
        return "".join([part.text for part in block.citations_content.content])
    return block.text or ""


def _read_call(index: int, call: _Call) -> ToolCall:
    return ToolCall(index, call.tool_use_id, call.name, bytes(call.input).decode(), call.signature)


def finish_of(reason: str) -> Finish:
    """Return why an answer ended. Raises UpstreamError where it is none that can be used."""
    if reason.startswith("malformed_"):
        raise UpstreamError(f"The model's output was not usable ({reason[:40]}).", code="model_error")
    return _FINISH.get(reason, "stop")


def stop_reason_of(finish: Finish | None) -> str:
    """Return Bedrock's word for why an answer ended."""
    return _STOP_REASONS[finish] if finish else "end_turn"


def stopped_by(fields: Any) -> str:
    """Return the stop sequence that ended an answer, as Claude says it."""
    said = fields.get("stop_sequence") if isinstance(fields, dict) else None
    return said if isinstance(said, str) else ""


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:  # noqa: ARG001 - no field for it
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    answer = whole(chunks)
    body: dict[str, Any] = {
        "metrics": metrics(call),
        "output": {"message": {"content": _write_content(call, answer), "role": "assistant"}},
        "stopReason": stop_reason_of(answer.finish),
        "usage": write_usage(answer.usage or Usage()),
    }
    if answer.stopped_by:
        body["additionalModelResponseFields"] = {"stop_sequence": answer.stopped_by}
    return _encode(body)


def _write_content(call: Call, answer: Chunk) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if answer.reasoning or answer.signature:
        said = {"text": answer.reasoning}
        if answer.signature:
            said["signature"] = answer.signature
        content.append({"reasoningContent": {"reasoningText": said}})
    if answer.redacted:
        content.append({"reasoningContent": {"redactedContent": answer.redacted}})
    text = answer.text + answer.refusal
    if answer.citations:
        cited = {
            "content": [{"text": text}],
            "citations": [write_citation(each) for each in answer.citations],
        }
        content.append({"citationsContent": cited})
    elif text:
        content.append({"text": text})
    content += [{"toolUse": {**tool_head(call, tool), "input": _input(tool)}} for tool in answer.tool_calls]
    return content


def tool_head(call: Call, tool: ToolCall) -> dict[str, Any]:
    """Return id and name of a tool call; one that came without an id gets one."""
    head = {"toolUseId": tool.id or f"tooluse_{call.id}_{tool.index}", "name": tool.name}
    return {**head, "signature": tool.signature} if tool.signature else head


def _input(tool: ToolCall) -> Raw:
    arguments = tool.arguments.strip() or "{}"
    try:
        _object.decode(arguments)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamProtocolError(
            "The arguments of the target's tool call are not a JSON object."
        ) from error
    return Raw(arguments.encode())


def write_usage(usage: Usage) -> dict[str, int]:
    """Return token counts in Bedrock's classes, and the reasoning's in one of ours."""
    written = {
        "inputTokens": max(usage.input - usage.cached - usage.cache_write, 0),
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.cache_write,
    }
    return {**written, "reasoningTokens": usage.reasoning} if usage.reasoning else written


def metrics(call: Call) -> dict[str, int]:
    """Return how long the call took. The record's clock is the event loop's, which is the monotonic one."""
    started = call.record.started
    return {"latencyMs": round((time.monotonic() - started) * 1000) if started else 0}


def write_citation(citation: Mapping[str, Any]) -> dict[str, Any]:
    """Return a citation as Bedrock writes it; it was written by whichever provider gave it."""
    if citation.keys() & {"sourceContent", "location"}:
        return dict(citation)
    inner = citation.get("url_citation")
    said = inner if isinstance(inner, Mapping) else citation
    title = said.get("title") or said.get("document_title")
    url, quoted = said.get("url") or said.get("uri"), said.get("cited_text")
    written: dict[str, Any] = {"title": title} if isinstance(title, str) else {}
    if isinstance(quoted, str):
        written["sourceContent"] = [{"text": quoted}]
    if isinstance(url, str):
        written["location"] = {"web": {"url": url}}
    return written
