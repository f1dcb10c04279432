"""What a simulated model says: seeded, deterministic, built from the prompt so that tests can check it."""

from __future__ import annotations

import random
import re
from typing import Any

from firsttoken.chat import ChatRequest, Message
from firsttoken.model import ToolCall

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
PER_MESSAGE = 4
"""Tokens that a message costs besides its text (role and separators)."""


def tokens(text: str) -> list[str]:
    """Split ``text`` into simulated tokens: up to eight characters with the space before them.

    Joined they are ``text``.
    """
    return _TOKEN.findall(text)


def count(message: Message) -> int:
    """Return the simulated token count of one message."""
    return (
        PER_MESSAGE
        + len(tokens(message.text()))
        + sum(len(str(call)) // 4 for call in message.tool_calls or ())
    )


def answer(request: ChatRequest, seed: int, length: int | None) -> list[str]:
    """Return the tokens of the answer: exactly ``length``, or some more than repeating the prompt takes."""
    last = request.messages[-1]
    said = "The tool says" if last.role in ("tool", "function") else "You said"
    spoken = tokens(f"{said}: {last.text()}")
    rng = random.Random(f"{seed}/{request.seed}/{last.text()}")  # noqa: S311 - text, not secrets
    wanted = length or len(spoken) + 24
    while len(spoken) < wanted:
        spoken.extend(tokens(f" {rng.choice(_WORDS)}"))
    return spoken[:wanted]


def tool_call(request: ChatRequest) -> ToolCall | None:
    """Return the call that the simulated model makes, or None when it answers in words.

    It calls the tool that ``tool_choice`` forces, or the first one whose name stands in the last user's
    message.
    """
    functions = [tool.get("function") for tool in request.tools or ()]
    named = {f["name"]: f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str)}
    last = request.messages[-1]
    if not named or request.tool_choice == "none" or last.role in ("tool", "function"):
        return None
    function = named.get(_forced(request.tool_choice) or "")
    if function is None and request.tool_choice == "required":
        function = next(iter(named.values()))
    if function is None:
        function = next((f for name, f in named.items() if name in last.text()), None)
    if function is None:
        return None
    return ToolCall(
        id=f"call_{len(request.messages)}", name=function["name"], arguments=_arguments(function, last.text())
    )


def _forced(choice: str | dict[str, Any] | None) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _arguments(function: dict[str, Any], prompt: str) -> str:
    import msgspec

    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    samples: dict[str, Any] = {
        "string": prompt,
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "array": [],
        "object": {},
    }
    values = {
        name: samples.get(schema.get("type", "string")) if isinstance(schema, dict) else prompt
        for name, schema in (properties.items() if isinstance(properties, dict) else ())
    }
    return msgspec.json.encode(values).decode()
