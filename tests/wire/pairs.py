"""The five formats as their clients see them, written by hand: no codec of ours takes part.

Each `Format` makes the body of a `Case` and reads an answer into `Seen`, so that the same conversation can be
held in any of them and its answers compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from botocore.eventstream import EventStreamBuffer
from msgspec import Struct

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "string"}},
    "required": ["verdict"],
    "additionalProperties": False,
}
LIMIT = 2000


class Case(Struct, frozen=True):
    """One conversation. ``think``, ``image`` and ``schema`` ask for what their names say."""

    name: str
    prompt: str
    tools: tuple[str, ...] = ()
    limit: int = LIMIT
    past: bool = False
    """Whether a tool was called and has answered."""
    think: bool = False
    image: bool = False
    schema: bool = False
    stop: str = ""


CASES = (
    Case("text", 'Say hello: naïve façade 東京 🙂 "quoted" \\ and\nnew lines'),
    Case("tool", "Please call lookup for Zürich", tools=("lookup",)),
    Case("parallel tools", "Please call lookup and search", tools=("lookup", "search", "unused")),
    Case("tool result", "Please call lookup for Rome", tools=("lookup",), past=True),
    Case("length", "Say more than four tokens", limit=4),
    Case("stop sequence", "Say one two three", stop="two"),
    Case("image", "What is this?", image=True),
    Case("structured", "Is it good?", schema=True),
    Case("reasoning", "Think about it", think=True),
    Case("reasoning and a tool", "Think and call lookup", think=True, tools=("lookup",)),
)


class Seen(Struct):
    """What a client saw of one answer."""

    text: str = ""
    reasoning: str = ""
    tools: list[tuple[str, Any]] = []
    """Names and decoded arguments."""
    finish: str = ""
    usage: tuple[int, int] = (0, 0)


class Format(Struct, frozen=True):
    """How a client of one format asks and reads."""

    path: Callable[..., str]
    """Where to ask, and whether for a stream."""
    body: Callable[..., dict[str, Any]]
    """The body for a `Case`, with ``stream`` as a keyword."""
    whole: Callable[[bytes], Seen]
    stream: Callable[[bytes], Seen]


def _tool(name: str) -> tuple[str, str]:
    return name, f"Does {name}."


# OpenAI Chat Completions

_CHAT_FINISH = {"content_filter": "content_filter"}


def _chat_body(case: Case, *, stream: bool) -> dict[str, Any]:
    content: Any = case.prompt
    if case.image:
        url = {"url": f"data:image/png;base64,{PNG}"}
        content = [{"type": "text", "text": case.prompt}, {"type": "image_url", "image_url": url}]
    messages: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": content}]
    if case.past:
        function = {"name": "lookup", "arguments": '{"city":"Rome","days":1}'}
        called = [{"id": "call_1", "type": "function", "function": function}]
        messages += [
            {"role": "assistant", "content": "Let me see.", "tool_calls": called},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
        ]
    tools = [
        {"type": "function", "function": {"name": name, "description": text, "parameters": SCHEMA}}
        for name, text in map(_tool, case.tools)
    ]
    schema = {"name": "answer", "schema": ANSWER_SCHEMA, "strict": True}
    return {
        "model": "m",
        "messages": messages,
        "max_completion_tokens": case.limit,
        **({"tools": tools} if tools else {}),
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        **({"stop": [case.stop]} if case.stop else {}),
        **({"reasoning_effort": "low"} if case.think else {}),
        **({"response_format": {"type": "json_schema", "json_schema": schema}} if case.schema else {}),
    }


def _chat_usage(usage: dict[str, Any]) -> tuple[int, int]:
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def _chat_whole(body: bytes) -> Seen:
    answer = json.loads(body)
    (choice,) = answer["choices"]
    message = choice["message"]
    return Seen(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content") or "",
        tools=[
            (tool["function"]["name"], json.loads(tool["function"]["arguments"]))
            for tool in message.get("tool_calls") or ()
        ],
        finish=choice["finish_reason"],
        usage=_chat_usage(answer["usage"]),
    )


def _chat_stream(body: bytes) -> Seen:
    sent = list(events(body))
    assert sent.pop() == "[DONE]"
    seen, calls = Seen(), {}
    for event in sent:
        if event.get("usage"):
            seen.usage = _chat_usage(event["usage"])
        for choice in event["choices"]:
            delta = choice["delta"]
            seen.text += delta.get("content") or ""
            seen.reasoning += delta.get("reasoning_content") or ""
            seen.finish = choice["finish_reason"] or seen.finish
            for call in delta.get("tool_calls") or ():
                known = calls.setdefault(call["index"], {"name": "", "arguments": ""})
                for key in known:
                    known[key] += call["function"].get(key) or ""
    seen.tools = [(calls[i]["name"], json.loads(calls[i]["arguments"])) for i in sorted(calls)]
    return seen


# OpenAI Responses


def _responses_body(case: Case, *, stream: bool) -> dict[str, Any]:
    content: list[Any] = [{"type": "input_text", "text": case.prompt}]
    if case.image:
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
        content.append(image)
    items: list[Any] = [{"role": "user", "content": content}]
    if case.past:
        arguments = '{"city":"Rome","days":1}'
        items += [
            {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            {"type": "function_call", "call_id": "call_1", "name": "lookup", "arguments": arguments},
            {"type": "function_call_output", "call_id": "call_1", "output": "It is sunny."},
        ]
    tools = [
        {"type": "function", "name": name, "description": text, "parameters": SCHEMA, "strict": True}
        for name, text in map(_tool, case.tools)
    ]
    schema = {"type": "json_schema", "name": "answer", "schema": ANSWER_SCHEMA, "strict": True}
    return {
        "model": "m",
        "instructions": "Be kind.",
        "input": items,
        "max_output_tokens": case.limit,
        **({"tools": tools} if tools else {}),
        **({"stream": True} if stream else {}),
        **({"reasoning": {"effort": "low", "summary": "auto"}} if case.think else {}),
        **({"text": {"format": schema}} if case.schema else {}),
    }


def _response_seen(response: dict[str, Any]) -> Seen:
    seen = Seen()
    for item in response["output"]:
        if item["type"] == "message":
            seen.text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "reasoning":
            seen.reasoning += "".join(part["text"] for part in item["summary"])
            seen.reasoning += "".join(part["text"] for part in item.get("content") or ())
        elif item["type"] == "function_call":
            seen.tools.append((item["name"], json.loads(item["arguments"])))
    if response["status"] == "incomplete":
        seen.finish = {"max_output_tokens": "length"}[response["incomplete_details"]["reason"]]
    else:
        assert response["status"] == "completed"
        seen.finish = "tool_calls" if seen.tools else "stop"
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    seen.usage = usage["input_tokens"], usage["output_tokens"]
    return seen


def _responses_whole(body: bytes) -> Seen:
    return _response_seen(json.loads(body))


def _responses_stream(body: bytes) -> Seen:
    sent = [event for event in events(body) if event != "[DONE]"]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    assert sent[0]["type"] == "response.created"
    assert sent[-1]["type"] in ("response.completed", "response.incomplete")
    seen = Seen()
    arguments: dict[int, str] = {}
    for event in sent:
        match event["type"]:
            case "response.output_text.delta":
                seen.text += event["delta"]
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                seen.reasoning += event["delta"]
            case "response.function_call_arguments.delta":
                index = event["output_index"]
                arguments[index] = arguments.get(index, "") + event["delta"]
    final = _response_seen(sent[-1]["response"])
    assert (seen.text, seen.reasoning) == (final.text, final.reasoning)
    assert [json.loads(arguments[i]) for i in sorted(arguments)] == [args for _, args in final.tools]
    return final


# Anthropic Messages

_ANTHROPIC_FINISH = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "stop_sequence": "stop_sequence",
}


def _anthropic_body(case: Case, *, stream: bool) -> dict[str, Any]:
    content: list[Any] = [{"type": "text", "text": case.prompt}]
    if case.image:
        source = {"type": "base64", "media_type": "image/png", "data": PNG}
        content.append({"type": "image", "source": source})
    messages: list[Any] = [{"role": "user", "content": content}]
    if case.past:
        call = {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"city": "Rome", "days": 1}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "It is sunny."}
        messages += [
            {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, call]},
            {"role": "user", "content": [result]},
        ]
    tools = [
        {"name": name, "description": text, "input_schema": SCHEMA} for name, text in map(_tool, case.tools)
    ]
    wanted = {"format": {"type": "json_schema", "schema": ANSWER_SCHEMA}}
    return {
        "model": "m",
        "max_tokens": case.limit,
        "system": "Be kind.",
        "messages": messages,
        **({"tools": tools} if tools else {}),
        **({"stream": True} if stream else {}),
        **({"stop_sequences": [case.stop]} if case.stop else {}),
        **({"thinking": {"type": "enabled", "budget_tokens": 1024}} if case.think else {}),
        **({"output_config": wanted} if case.schema else {}),
    }


def _anthropic_usage(usage: dict[str, Any]) -> tuple[int, int]:
    read = usage.get("cache_read_input_tokens") or 0
    wrote = usage.get("cache_creation_input_tokens") or 0
    return usage["input_tokens"] + read + wrote, usage["output_tokens"]


def _anthropic_whole(body: bytes) -> Seen:
    answer = json.loads(body)
    assert (answer["type"], answer["role"]) == ("message", "assistant")
    blocks = answer["content"]
    return Seen(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        tools=[(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        finish=_ANTHROPIC_FINISH[answer["stop_reason"]],
        usage=_anthropic_usage(answer["usage"]),
    )


def _anthropic_stream(body: bytes) -> Seen:
    seen = Seen()
    blocks: list[dict[str, Any]] = []
    usage: dict[str, Any] = {}
    state = "start"
    for event in events(body):
        match event["type"]:
            case "message_start":
                assert state == "start"
                usage, state = event["message"]["usage"], "message"
            case "content_block_start":
                assert (state, event["index"]) == ("message", len(blocks))
                blocks.append({**event["content_block"], "json": ""})
                state = "block"
            case "content_block_delta":
                assert (state, event["index"]) == ("block", len(blocks) - 1)
                _anthropic_delta(blocks[-1], event["delta"])
            case "content_block_stop":
                assert state == "block"
                state = "message"
            case "message_delta":
                assert state == "message"
                seen.finish = _ANTHROPIC_FINISH[event["delta"]["stop_reason"]]
                usage = {**usage, **{k: v for k, v in event["usage"].items() if v is not None}}
                state = "end"
            case "message_stop":
                assert state == "end"
                state = "stopped"
    assert state == "stopped"
    seen.text = "".join(block["text"] for block in blocks if block["type"] == "text")
    seen.reasoning = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    seen.tools = [
        (block["name"], json.loads(block["json"] or "{}")) for block in blocks if block["type"] == "tool_use"
    ]
    seen.usage = _anthropic_usage(usage)
    return seen


def _anthropic_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]


# Gemini


def _gemini_body(case: Case, *, stream: bool) -> dict[str, Any]:
    parts: list[Any] = [{"text": case.prompt}]
    if case.image:
        parts.append({"inlineData": {"mimeType": "image/png", "data": PNG}})
    contents: list[Any] = [{"role": "user", "parts": parts}]
    if case.past:
        called = {"id": "call_1", "name": "lookup", "args": {"city": "Rome", "days": 1}}
        answered = {"id": "call_1", "name": "lookup", "response": {"output": "It is sunny."}}
        contents += [
            {"role": "model", "parts": [{"text": "Let me see."}, {"functionCall": called}]},
            {"role": "user", "parts": [{"functionResponse": answered}]},
        ]
    tools = [
        {"name": name, "description": text, "parametersJsonSchema": SCHEMA}
        for name, text in map(_tool, case.tools)
    ]
    wanted = {"responseMimeType": "application/json", "responseJsonSchema": ANSWER_SCHEMA}
    return {
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": contents,
        "generationConfig": {
            "maxOutputTokens": case.limit,
            **({"stopSequences": [case.stop]} if case.stop else {}),
            **({"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}} if case.think else {}),
            **(wanted if case.schema else {}),
        },
        **({"tools": [{"functionDeclarations": tools}]} if tools else {}),
    }


def _gemini_add(seen: Seen, answer: dict[str, Any]) -> None:
    for candidate in answer.get("candidates") or ():
        for part in candidate.get("content", {}).get("parts", ()):
            if "functionCall" in part:
                seen.tools.append((part["functionCall"]["name"], part["functionCall"].get("args", {})))
            elif part.get("thought"):
                seen.reasoning += part.get("text", "")
            else:
                seen.text += part.get("text", "")
        if reason := candidate.get("finishReason"):
            seen.finish = {"STOP": "stop", "MAX_TOKENS": "length"}[reason]
    if usage := answer.get("usageMetadata"):
        output = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
        assert usage["totalTokenCount"] == usage["promptTokenCount"] + output
        seen.usage = usage["promptTokenCount"], output


def _gemini_end(seen: Seen) -> Seen:
    assert seen.finish
    if seen.tools and seen.finish == "stop":
        seen.finish = "tool_calls"
    return seen


def _gemini_whole(body: bytes) -> Seen:
    seen = Seen()
    _gemini_add(seen, json.loads(body))
    return _gemini_end(seen)


def _gemini_stream(body: bytes) -> Seen:
    seen = Seen()
    for event in events(body):
        _gemini_add(seen, event)
    return _gemini_end(seen)


def _gemini_array(body: bytes) -> Seen:
    seen = Seen()
    for answer in json.loads(body):
        _gemini_add(seen, answer)
    return _gemini_end(seen)


# Bedrock Converse


def _bedrock_body(case: Case, *, stream: bool) -> dict[str, Any]:
    content: list[Any] = [{"text": case.prompt}]
    if case.image:
        content.append({"image": {"format": "png", "source": {"bytes": PNG}}})
    messages: list[Any] = [{"role": "user", "content": content}]
    if case.past:
        call = {"toolUseId": "tooluse_1", "name": "lookup", "input": {"city": "Rome", "days": 1}}
        result = {"toolUseId": "tooluse_1", "content": [{"text": "It is sunny."}], "status": "success"}
        messages += [
            {"role": "assistant", "content": [{"text": "Let me see."}, {"toolUse": call}]},
            {"role": "user", "content": [{"toolResult": result}]},
        ]
    tools = [
        {"toolSpec": {"name": name, "description": text, "inputSchema": {"json": SCHEMA}}}
        for name, text in map(_tool, case.tools)
    ]
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    schema = {"jsonSchema": {"name": "answer", "schema": json.dumps(ANSWER_SCHEMA)}}
    return {
        "system": [{"text": "Be kind."}],
        "messages": messages,
        "inferenceConfig": {
            "maxTokens": case.limit,
            **({"stopSequences": [case.stop]} if case.stop else {}),
        },
        **({"toolConfig": {"tools": tools}} if tools else {}),
        **({"additionalModelRequestFields": thinking} if case.think else {}),
        **(
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": schema}}}
            if case.schema
            else {}
        ),
    }


def _bedrock_whole(body: bytes) -> Seen:
    answer = json.loads(body)
    message = answer["output"]["message"]
    assert message["role"] == "assistant"
    blocks = message["content"]
    thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
    usage = answer["usage"]
    return Seen(
        text="".join(block["text"] for block in blocks if "text" in block),
        reasoning="".join(thought["text"] for thought in thoughts),
        tools=[
            (block["toolUse"]["name"], block["toolUse"]["input"]) for block in blocks if "toolUse" in block
        ],
        finish=_ANTHROPIC_FINISH[answer["stopReason"]],
        usage=_bedrock_usage(usage),
    )


def _bedrock_usage(usage: dict[str, Any]) -> tuple[int, int]:
    read, wrote = usage.get("cacheReadInputTokens") or 0, usage.get("cacheWriteInputTokens") or 0
    total = usage["inputTokens"] + read + wrote
    assert usage["totalTokens"] == total + usage["outputTokens"]
    return total, usage["outputTokens"]


def _bedrock_stream(body: bytes) -> Seen:
    seen = Seen()
    blocks: dict[int, dict[str, Any]] = {}
    kinds = []
    for frame in bedrock_frames(body):
        assert frame.headers[":message-type"] == "event"
        assert frame.headers[":content-type"] == "application/json"
        event = json.loads(frame.payload)
        kinds.append(frame.headers[":event-type"])
        match kinds[-1]:
            case "contentBlockStart":
                blocks[event["contentBlockIndex"]] = {"tool": event["start"]["toolUse"], "input": ""}
            case "contentBlockDelta":
                _bedrock_delta(seen, blocks, event["contentBlockIndex"], event["delta"])
            case "messageStop":
                seen.finish = _ANTHROPIC_FINISH[event["stopReason"]]
            case "metadata":
                seen.usage = _bedrock_usage(event["usage"])
    assert (kinds[0], kinds[-2:]) == ("messageStart", ["messageStop", "metadata"])
    seen.tools = [(block["tool"]["name"], json.loads(block["input"])) for _, block in sorted(blocks.items())]
    return seen


def bedrock_frames(body: bytes) -> list[Any]:
    """Return the frames of a stream as botocore reads them; nothing may be left of an incomplete one."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    frames = list(buffer)
    assert not buffer._data
    return frames


def _bedrock_delta(seen: Seen, blocks: dict[int, Any], index: int, delta: dict[str, Any]) -> None:
    match delta:
        case {"text": text}:
            seen.text += text
        case {"reasoningContent": {"text": text}}:
            seen.reasoning += text
        case {"toolUse": {"input": part}}:
            blocks[index]["input"] += part


def events(body: bytes) -> Iterator[Any]:
    """Yield the data of server-sent events, whatever their line ends; comments are read over."""
    for event in body.decode("utf-8").replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].strip() for line in event.split("\n") if line.startswith("data:")]
        if lines:
            data = "\n".join(lines)
            yield data if data == "[DONE]" else json.loads(data)


def _always(path: str) -> Callable[..., str]:
    return lambda *, stream: path  # noqa: ARG005 - other formats need it


FORMATS = {
    "openai_chat": Format(_always("/v1/chat/completions"), _chat_body, _chat_whole, _chat_stream),
    "openai_responses": Format(
        _always("/v1/responses"), _responses_body, _responses_whole, _responses_stream
    ),
    "anthropic": Format(_always("/v1/messages"), _anthropic_body, _anthropic_whole, _anthropic_stream),
    "gemini": Format(
        lambda stream: f"/v1beta/models/m:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}",
        _gemini_body,
        _gemini_whole,
        _gemini_stream,
    ),
    "bedrock": Format(
        lambda stream: f"/model/m/converse{'-stream' if stream else ''}",
        _bedrock_body,
        _bedrock_whole,
        _bedrock_stream,
    ),
}
INBOUND = {
    **FORMATS,
    "gemini.array": Format(
        lambda stream: f"/v1beta/models/m:{'streamGenerateContent' if stream else 'generateContent'}",
        _gemini_body,
        _gemini_whole,
        _gemini_array,
    ),
}
"""What clients can ask for: the formats, and Gemini's stream as one JSON array."""
