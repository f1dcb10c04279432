"""How many input tokens a request has, roughly, without the target's tokenizer."""

from __future__ import annotations

import msgspec

from firsttoken.chat import ChatRequest, Image, Part, Reasoning, Text, ToolResult, ToolUse

BYTES_PER_TOKEN = 4
"""UTF-8 bytes: about right for English; code has more tokens, scripts of three-byte letters have fewer."""
PER_MESSAGE = 4
PER_IMAGE = 1600
"""Tokens of a picture that the API has not to scale down: width x height / 750, at most about 1,600.

Source: Claude documentation, "Vision".
"""


def estimate(request: ChatRequest) -> int:
    """Estimate the input tokens: text and tools by bytes, a constant for each message and picture.

    Time grows with the number of parts, and with the bytes of text that is not ASCII.
    """
    size = pictures = 0
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Text):
                size += _length(part.text)
            else:
                size += _bytes(part)
                pictures += _pictures(part)
    for tool in request.tools:
        size += len(msgspec.json.encode(tool))
    return -(-size // BYTES_PER_TOKEN) + PER_MESSAGE * len(request.messages) + PER_IMAGE * pictures


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _bytes(part: Part) -> int:
    match part:
        case ToolUse():
            return _length(part.name) + _length(part.arguments)
        case ToolResult():
            return sum(_bytes(inner) for inner in part.parts)
        case Text() | Reasoning():
            return _length(part.text)
    return 0


def _pictures(part: Part) -> int:
    if isinstance(part, ToolResult):
        return sum(isinstance(inner, Image) for inner in part.parts)
    return isinstance(part, Image)
