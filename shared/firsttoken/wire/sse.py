"""Server-sent events as bytes: find where events end, and take the data out of one.

Source: the HTML standard, section "Server-sent events". Lines may end in LF, CRLF or CR; CR alone is not met
in practice from any LLM server and is read as part of a line.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 8 * 1024 * 1024
HEARTBEAT = b": keep-alive\n\n"


def last_boundary(buffer: bytes) -> int:
    """Return the offset just behind the last complete event of ``buffer``, or 0 when none is complete."""
    end = buffer.rfind(b"\n\n")
    plain = end + 2 if end >= 0 else 0
    if b"\r" not in buffer:
        return plain
    end = buffer.rfind(b"\n\r\n")
    return max(plain, end + 3 if end >= 0 else 0)


def events(block: bytes) -> list[bytes]:
    """Split ``block``, which ends at a boundary, into its events without their closing blank lines."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    return [event for event in block.split(b"\n\n") if event]


def data(event: bytes) -> bytes | None:
    """Return the data of one event, its lines joined by LF, or None for a comment or one without data."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
