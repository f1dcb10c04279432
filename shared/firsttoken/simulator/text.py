"""What a simulated model says: seeded, deterministic, built from the prompt so that tests can check it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Part,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.model import ToolCall
from firsttoken.wire.continued import begun

_TOKEN = re.compile(r"\s*[^\s]{1,8}|\s+")
_WORDS = (
    *(
        "stream",
        "token",
        "cache",
        "region",
        "model",
        "queue",
        "retry",
        "probe",
        "budget",
        "window",
        "latency",
    ),
    *("answer", "prompt", "vector", "index", "tool", "agent"),
    *("naïve", "façade", "東京", "Zürich", "🙂", "smörgås", "λ"),
)
MAX_DEPTH = 32
PER_IMAGE = 85
"""Tokens that a picture costs."""
PER_MESSAGE = 4
"""Tokens that a message, a tool or the result of one costs besides its text (role and separators)."""


def tokens(text: str) -> list[str]:
    """Split ``text`` into simulated tokens: up to eight characters with the space before them.

    Joined they are ``text``.
    """
    return _TOKEN.findall(text)


def count_request(request: ChatRequest) -> int:
    """Return the simulated token count of everything that the model reads: tools and messages."""
    return sum(map(count_tool, request.tools)) + sum(map(count, request.messages))


def count(message: Message) -> int:
    """Return the simulated token count of one message: its text, its pictures, its tool calls."""
    frame = 0 if message.role == "tool" else PER_MESSAGE  # each result has its own
    return frame + sum(map(count_part, message.parts))


def count_part(part: Part) -> int:
    """Return the simulated token count of one part. What the model thought before costs nothing."""
    if isinstance(part, Text):
        return len(tokens(part.text))
    if isinstance(part, ToolUse):
        return (len(part.name) + len("".join(part.arguments.split()))) // 4  # formats space JSON differently
    if isinstance(part, ToolResult):
        return PER_MESSAGE + sum(map(count_part, part.parts))
    return PER_IMAGE if isinstance(part, Image) else 0


def count_tool(tool: Tool) -> int:
    """Return the simulated token count of a tool's description and schema."""
    schema = msgspec.json.encode(tool.schema or {}, order="deterministic").decode()
    return PER_MESSAGE + len(tokens(f"{tool.name} {tool.description} {schema}"))


def answer(request: ChatRequest, seed: int, length: int | None) -> list[str]:
    """Return the tokens of the answer: exactly ``length``, or some more than repeating the prompt takes.

    Structured output is JSON that fits the schema, whatever ``length`` says.
    """
    last = request.messages[-1]
    if request.output is not None:
        value = (
            sample(request.output.schema, last.text()) if request.output.schema else {"answer": last.text()}
        )
        return tokens(msgspec.json.encode(value).decode())
    said = "The tool says" if last.role == "tool" else "You said"
    images = sum(isinstance(part, Image) for part in last.parts)
    seen = f" (and showed {images} image{'s' * (images > 1)})" if images else ""
    spoken = tokens(f"{said}: {last.text()}{seen}")
    rng = random.Random(f"{seed}/{request.seed}/{last.text()}")  # noqa: S311 - text, not secrets
    wanted = length or len(spoken) + 24
    while len(spoken) < wanted:
        spoken.extend(tokens(f" {rng.choice(_WORDS)}"))
    return spoken[:wanted]


def rest(request: ChatRequest, seed: int, length: int | None) -> list[str] | None:
    """Return the tokens behind what ``request`` holds of this very answer; None when it holds nothing of it.

    The answer may be the last turn, or be asked for with `firsttoken.wire.continued.INSTRUCTION`.
    """
    before, said = begun(request)
    if not said or tool_calls(before):
        return None
    whole = "".join(answer(before, seed, length))
    return tokens(whole[len(said) :]) if whole.startswith(said) else None


def thoughts(request: ChatRequest) -> list[str]:
    """Return the tokens of simulated reasoning, none where the request does not ask the model to think."""
    wish = request.reasoning
    if wish is None or wish.enabled is False or wish.effort == "none" or wish.budget == 0:
        return []
    return tokens(f"The last message has {len(tokens(request.messages[-1].text()))} tokens.")


def tool_calls(request: ChatRequest) -> list[ToolCall]:
    """Return the calls that the simulated model makes, none when it answers in words.

    It calls the tool that ``tool_choice`` forces, or those whose names stand in the last user's message: one,
    or all of them where parallel calls are not forbidden.
    """
    last, choice = request.messages[-1], request.tool_choice or ToolChoice("auto")
    if choice.mode == "none" or last.role == "tool":
        return []
    named = [tool for tool in request.tools if tool.name in last.text()]
    if choice.mode == "tool":
        named = [tool for tool in request.tools if tool.name == choice.name]
    elif choice.mode == "required":
        named = named or list(request.tools[:1])
    if request.parallel_tool_calls is False:
        named = named[:1]
    prompt, turn = last.text(), len(request.messages)
    return [
        ToolCall(
            index=index,
            id=f"call_{turn}_{index}",
            name=tool.name,
            arguments=msgspec.json.encode(sample(tool.schema or {}, prompt)).decode(),
        )
        for index, tool in enumerate(named)
    ]


def sample(schema: Any, prompt: str, depth: int = 0) -> Any:
    """Return a value that fits a JSON schema: all of its properties, the prompt for every string."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return prompt
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object" if "properties" in schema or not depth else "string")
    kind = str(kind[0] if isinstance(kind, list) and kind else kind).lower()
    if kind == "object":
        properties = schema.get("properties")
        items = properties.items() if isinstance(properties, Mapping) else ()
        return {name: sample(inner, prompt, depth + 1) for name, inner in items}
    if kind == "array":
        return [sample(schema.get("items"), prompt, depth + 1)]
    return {"integer": 1, "number": 1.5, "boolean": True, "null": None}.get(kind, prompt)
