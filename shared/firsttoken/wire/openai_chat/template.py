"""Reads the events of a stream that differ in nothing but their text without decoding the rest again.

Most servers send the same envelope around every piece of text. Once one such event was decoded, another that
begins and ends with the same bytes says the same, if what stands between them is exactly one JSON string.
OpenAI's padding against traffic analysis, another string at the very end, may differ too.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from firsttoken.errors import UpstreamError
from firsttoken.model import Chunk

_string = msgspec.json.Decoder(str)
_encode = msgspec.json.encode
_PADDING = b',"obfuscation":'
_PROBE = "\u0001probe\u0001"
_ATTEMPTS = 4
"""A server whose envelopes all differ is not tried again and again."""


class Template:
    """The bytes before and after the text, learned from one event; ``read`` decodes a payload in full."""

    def __init__(self, read: Callable[[bytes], Chunk]) -> None:
        self._read = read
        self._before = self._after = b""
        self._padded = False
        self._attempts = _ATTEMPTS
        self.model = ""

    def text(self, payload: bytes) -> str | None:
        """Return the text of an event that fits, or None for one that must be decoded."""
        before, after = self._before, self._after
        if not before or not payload.startswith(before):
            return None
        end = payload.rfind(_PADDING) if self._padded else len(payload)
        if end < 0 or not payload.endswith(after, 0, end) or not payload.endswith(b"}"):
            return None
        try:
            if self._padded:
                _string.decode(payload[end + len(_PADDING) : -1])
            return _string.decode(payload[len(before) : end - len(after)])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def learn(self, payload: bytes, chunk: Chunk) -> None:
        """Learn from an event that was decoded to ``chunk``, if it holds text and nothing else."""
        if not self._attempts or not chunk.text or chunk != Chunk(text=chunk.text, model=chunk.model):
            return
        self._attempts -= 1
        core, padding, _ = payload.rpartition(_PADDING) if _PADDING in payload else (payload, b"", b"")
        before, found, after = core.rpartition(_encode(chunk.text))
        # Put another text in its place: only if that alone changes is it really the text that stands there.
        probe = before + _encode(_PROBE) + after + (b"}" if padding else b"")
        if found and self._probed(probe) == Chunk(text=_PROBE, model=chunk.model):
            self._before, self._after, self._padded = before, after, bool(padding)
            self.model = chunk.model

    def _probed(self, payload: bytes) -> Chunk | None:
        try:
            return self._read(payload)
        except UpstreamError:
            return None
