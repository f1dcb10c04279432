"""What was said of an answer so far: kept while it streams, so that another target can go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from firsttoken.model import Chunk, ToolCall, Usage
from firsttoken.wire.chunks import whole_tool_calls
from firsttoken.wire.takeover import LANDMARKS

MAX_RAW = 256 * 1024
"""Of the target's own bytes that are kept beside the first and the last ones."""
MAX_PIECES = 512
"""Fragments of tool calls that are kept apart."""
BYTES_PER_TOKEN = 4
"""What a token is taken for where nobody counted; close for English, too many tokens for other scripts."""


def estimate(text: str) -> int:
    """Return how many tokens a text is, roughly."""
    return len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN


class Said:
    """The content of an answer that is under way.

    Memory: the answer, at most ``limit`` characters of it; a longer one is forgotten (``over``).
    """

    def __init__(self, limit: int) -> None:
        self.over = False
        self.finished = False
        """Whether the reason to finish was told: all the content is there."""
        self.passed = ""
        """The format of the target's own bytes that were passed on; empty when there were none."""
        self.tools: list[ToolCall] = []
        self.citations: list[Mapping[str, Any]] = []
        self.refusal = ""
        self.first_usage: Usage | None = None
        self._model = self._signature = self._redacted = ""
        self._text = StringIO()
        self._reasoning = StringIO()
        self._left = limit
        self._first = self._marks = self._last = self._landmark = b""

    def note(self, chunk: Chunk) -> None:
        """Add a chunk that was passed on."""
        if self.over:
            self.finished = self.finished or chunk.finish is not None
            return
        if text := chunk.text:
            self._text.write(text)
            self._left -= len(text)
        if chunk.raw:
            self._note_raw(chunk)
        if chunk.reasoning:
            self._reasoning.write(chunk.reasoning)
            self._left -= len(chunk.reasoning)
        if chunk.tool_calls or chunk.citations or chunk.refusal or chunk.signature or chunk.redacted:
            self._note_rare(chunk)
        if chunk.finish:
            self.finished = True
        if chunk.usage and chunk.usage.input and self.first_usage is None:
            self.first_usage = chunk.usage
        if self._left < 0:
            self._forget()

    def text(self) -> str:
        """Return the visible text."""
        return self._text.getvalue()

    def calls(self) -> dict[int, ToolCall]:
        """Return the tool calls, each put together, by their index."""
        return {call.index: call for call in whole_tool_calls(self.tools)}

    def tokens(self) -> int:
        """Return how many tokens that was, roughly."""
        calls = [call.name + call.arguments for call in self.tools]
        return estimate("".join([self._reasoning.getvalue(), self._text.getvalue(), *calls]))

    def joined(self) -> Chunk:
        """Return all of it as one chunk.

        ``raw`` is what `firsttoken.wire.takeover` reads of the target's own bytes.
        """
        return Chunk(
            text=self._text.getvalue(),
            reasoning=self._reasoning.getvalue(),
            tool_calls=whole_tool_calls(self.tools),
            model=self._model,
            raw=self._first + self._marks + self._last,
            wire=self.passed,
            signature=self._signature,
            redacted=self._redacted,
            citations=tuple(self.citations),
            refusal=self.refusal,
        )

    def _note_raw(self, chunk: Chunk) -> None:
        self.passed = chunk.wire
        if not self._model:
            self._model = chunk.model
        raw = chunk.raw
        if not self._first:
            self._first = raw
            self._landmark = LANDMARKS.get(chunk.wire, b"")
        elif self._landmark and self._landmark in raw and len(self._marks) < MAX_RAW:
            self._marks += raw
        if chunk.text or chunk.has_content():
            self._last = raw
        elif len(self._last) < MAX_RAW:
            self._last += raw

    def _note_rare(self, chunk: Chunk) -> None:
        self.tools += chunk.tool_calls
        if len(self.tools) > MAX_PIECES:
            self.tools = list(whole_tool_calls(self.tools))
        self.citations += chunk.citations
        self.refusal += chunk.refusal
        self._signature += chunk.signature
        self._redacted += "\n" * bool(self._redacted and chunk.redacted) + chunk.redacted
        calls = sum(len(call.arguments) + len(call.name) for call in chunk.tool_calls)
        self._left -= calls + len(chunk.refusal) + len(chunk.redacted) + sum(map(_size, chunk.citations))

    def _forget(self) -> None:
        self.over = True
        self._text, self._reasoning = StringIO(), StringIO()
        self.tools, self.citations = [], []
        self._marks = self._last = b""


def _size(citation: Mapping[str, Any]) -> int:
    return len(str(citation))
