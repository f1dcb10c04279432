"""What the head of an answer says of the call: ``Server-Timing`` and ``traceparent``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from firsttoken.telemetry.record import Attempt, Record

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Head:
    """Sends the messages of one answer, with more headers on its head. Nothing is added to the others."""

    __slots__ = ("_send", "_timing", "record")

    def __init__(self, send: Send, *, timing: bool) -> None:
        self._send = send
        self._timing = timing
        self.record: Record | None = None
        """The call that is answered."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send one message."""
        if message["type"] == "http.response.start" and self.record is not None:
            headers = [*message["headers"], *self._headers(self.record)]
            message = {**message, "headers": headers}
        return self._send(message)

    def _headers(self, record: Record) -> list[tuple[bytes, bytes]]:
        headers = []
        if self._timing and record.model:
            timing = server_timing(record, asyncio.get_running_loop().time())
            headers.append((b"server-timing", timing.encode()))
        if record.trace:
            headers.append((b"traceparent", record.trace.encode()))
        return headers


def server_timing(record: Record, now: float) -> str:
    """Return what a call took until ``now``, in milliseconds, as far as that is known.

    ``queue``: until the first target was called; ``failed``: on calls that came to nothing; ``upstream``:
    of the answering target until its first content; ``cache``: what the cache had to say; ``total``.
    """
    parts = []
    attempts = [] if record.coalesced else record.attempts
    answering = next((a for a in reversed(attempts) if a.first_chunk is not None), None)
    if attempts:
        parts.append(f"queue;dur={_ms(attempts[0].started - record.started)}")
        if answering is not None and answering is not attempts[0]:
            parts.append(f"failed;dur={_ms(answering.started - attempts[0].started)}")
    if answering is not None:
        parts.append(f"upstream;dur={_ms(_first(answering))}")
    if record.cache:
        parts.append(f"cache;desc={record.cache}")
    parts.append(f"total;dur={_ms(now - record.started)}")
    return ", ".join(parts)


def _first(attempt: Attempt) -> float:
    return 0.0 if attempt.first_chunk is None else attempt.first_chunk - attempt.started


def _ms(seconds: float) -> str:
    return f"{max(seconds, 0.0) * 1000:.1f}"
