"""The vocabulary of a conversation: what a client asks for, whatever wire format it speaks.

The codecs in ``wire`` translate each format into these words and back. What a format says that has no word
here is named in `Source.unknown`: a target of the same format gets it unchanged, any other refuses it by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""``tool`` messages hold `ToolResult` parts only; ``developer`` is a system message by another name."""

Ttl = Literal["", "5m", "1h"]
"""A cache marker behind a part, and how long the provider is asked to keep the prefix; empty is no marker."""


class Text(Struct, frozen=True, tag="text"):
    """Plain text."""

    text: str
    cache: Ttl = ""


class Image(Struct, frozen=True, tag="image"):
    """A picture: by ``url``, or inline as base64 ``data`` of a ``media_type``."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    detail: str = ""
    cache: Ttl = ""


class ToolUse(Struct, frozen=True, tag="tool_use"):
    """A call that the assistant made; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str
    signature: str = ""
    cache: Ttl = ""


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What a tool answered to the call ``id``. ``name`` is the tool's, where the format tells."""

    id: str
    parts: tuple[Text | Image, ...]
    name: str = ""
    is_error: bool = False
    cache: Ttl = ""


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """What the assistant thought, with the provider's signature of it; ``redacted`` is its encrypted form."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


class Opaque(Struct, frozen=True, tag="opaque"):
    """A part that only the format ``wire`` can express, called ``kind`` there."""

    wire: str
    kind: str


Part = Text | Image | ToolUse | ToolResult | Reasoning | Opaque


class Message(Struct, frozen=True):
    """One turn."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""

    def text(self) -> str:
        """Return the text of this turn, that of tool results included; other parts are left out."""
        return "".join([_text(part) for part in self.parts])


def _text(part: Part) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, ToolResult):
        return "".join([inner.text for inner in part.parts if isinstance(inner, Text)])
    return ""


class Tool(Struct, frozen=True):
    """A function that the model may call; ``schema`` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    cache: Ttl = ""


class ToolChoice(Struct, frozen=True):
    """Whether tools may, must or must not be called; ``name`` belongs to the mode ``tool``."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


class OutputFormat(Struct, frozen=True):
    """Structured output: any JSON object, or one that fits ``schema``."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


class ReasoningWish(Struct, frozen=True):
    """How much the model should think: an effort, or a budget of tokens; ``enabled`` is None when unsaid."""

    effort: str = ""
    budget: int | None = None
    enabled: bool | None = None


class ChatRequest(Struct, frozen=True):
    """A request for one answer.

    A field that the client did not send is None or empty, never a default of ours.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    """Whether a stream must end with its token counts, where the format leaves that to the client."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    reasoning: ReasoningWish | None = None
    user: str = ""
    metadata: Mapping[str, str] | None = None
    service_tier: str = ""
    cache_key: str = ""
