"""Reasons to finish, both ways.

Source: the Gemini API reference, "FinishReason", and the same list in Google's SDK ``google-genai`` 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsttoken.model import Finish

_SAID: dict[Finish, tuple[str, str]] = {
    "stop": ("STOP", ""),
    "tool_calls": ("STOP", ""),
    "length": ("MAX_TOKENS", ""),
    "content_filter": ("SAFETY", ""),
    "stop_sequence": ("STOP", "A stop sequence was met."),
    "refusal": ("SAFETY", "The model refused."),
    "context_length": ("MAX_TOKENS", "The context window is full."),
}
"""This format's word for each reason, and the ``finishMessage`` that tells what the word does not."""
_OWN: dict[tuple[str, str], Finish] = {said: finish for finish, said in _SAID.items() if said[1]}
_MARK = " It was "
_GOOD: dict[str, Finish] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
"""The words for a good end; all others but those below say that something was withheld."""
UNUSABLE = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
)
"""The model failed: an error, as another try or another model may do better."""


def said(finish: Finish, stopped_by: str, lost: Sequence[str]) -> tuple[str, str]:
    """Return ``finishReason`` and ``finishMessage``; ``lost`` are words for what the answer cannot hold."""
    word, message = _SAID[finish]
    if message and stopped_by:
        message += f"{_MARK}{stopped_by!r}."
    if lost and word == "STOP":
        word = "MALFORMED_FUNCTION_CALL"
    return word, " ".join([message, *lost]).strip()


def meant(word: str, message: str) -> Finish:
    """Return what a reason means; the messages that this product writes are understood, too."""
    return _OWN.get((word, message.partition(_MARK)[0])) or _GOOD.get(word, "content_filter")


__all__ = ["UNUSABLE", "meant", "said"]
