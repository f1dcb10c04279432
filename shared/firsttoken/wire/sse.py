"""Server-sent events as bytes: find where events end, and take the data out of one.

Source: the HTML standard, section "Server-sent events". Lines may end in LF, CRLF or CR; CR alone is not met
in practice from any LLM server and is read as part of a line.
"""

from __future__ import annotations

from firsttoken.errors import FirstTokenError, InternalError, UpstreamClosedError, UpstreamProtocolError
from firsttoken.model import Chunk
from firsttoken.wire.chunks import cuts, join

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
        found = block.split(b"\r\n\r\n")
        if block.count(b"\n") == 2 * (len(found) - 1):  # one line each: nothing else to look for
            return [event for event in found if event]
        block = block.replace(b"\r\n", b"\n")
    return [event for event in block.split(b"\n\n") if event]


def data(event: bytes) -> bytes | None:
    """Return the data of one event, its lines joined by LF, or None for a comment or one without data."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    if event.startswith(b"event: "):
        second = event.find(b"\n") + 1
        if second and event.startswith(b"data: ", second) and event.find(b"\n", second) < 0:
            return event[second + 6 :]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


class EventReader:
    """The part of reading a stream that all formats over server-sent events share.

    A format says what one event means (`read_event`). Every event is decoded, so that a malformed one is an
    error and never reaches the client. Memory: one incomplete event, at most `MAX_EVENT_BYTES`, and what one
    read held in an order that one chunk cannot say.
    """

    wire = ""

    def __init__(self) -> None:
        self.done = False
        """Whether the end mark was read: whatever follows it is no part of the answer."""
        self.finished = False
        """Whether the answer is whole, with or without an end mark."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._seam = b""
        """The last bytes of the pieces: an event may end across them and what comes next."""
        self._held: list[Chunk] = []
        self._waiting: list[bytes] = []
        """What came while something was held back."""
        self._failure: FirstTokenError | None = None

    def read_event(self, payload: bytes) -> Chunk | None:
        """Return what an event with data means.

        Set ``done`` at the end mark and ``finished`` where the answer ends. Raises FirstTokenError.
        """
        raise NotImplementedError

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`."""
        if self._held:
            self._waiting.append(received)
            return self._held.pop(0)
        if self._failure:
            raise self._failure
        if self._waiting:
            received = b"".join([*self._waiting, received])
            self._waiting.clear()
        block = self._complete(received) if received else b""
        return self._read(block) if block and not self.done else None

    def _complete(self, received: bytes) -> bytes:
        """Return the complete events so far and keep the rest; only what is new is searched."""
        edge = self._seam + received
        end = last_boundary(edge)
        if not end:
            self._keep(received, edge)
            return b""
        if not self._pieces:
            block, tail = received[:end], received[end:]
        else:
            buffer = b"".join([*self._pieces, received])
            cut = len(buffer) - len(edge) + end
            block, tail = buffer[:cut], buffer[cut:]
        self._pieces, self._size = [], 0
        self._keep(tail, tail)
        return block

    def _keep(self, piece: bytes, edge: bytes) -> None:
        if piece:
            self._pieces.append(piece)
        self._size += len(piece)
        self._seam = edge[-3:]
        if self._size > MAX_EVENT_BYTES:
            raise UpstreamProtocolError(f"One event of the target's stream is over {MAX_EVENT_BYTES} bytes.")

    def _read(self, block: bytes) -> Chunk | None:
        chunks: list[Chunk] = []
        places: list[int] = []
        good = 0
        complete = events(block)
        for event in complete:
            payload = data(event)
            if payload is not None:
                try:
                    chunk = self.read_event(payload)
                except FirstTokenError as error:
                    self._failure = error
                    break
                if self.done:
                    break
                if chunk is not None:
                    chunks.append(chunk)
                    places.append(good)
            good += 1
        if self._failure and not chunks:
            raise self._failure
        if not good:
            return None
        if len(chunks) > 1 and (starts := cuts(chunks)):
            return self._hold(chunks, complete[:good], [(start, places[start]) for start in starts])
        raw = block if good == len(complete) else b"".join([event + b"\n\n" for event in complete[:good]])
        return join(chunks, raw, self.wire) if chunks else Chunk(raw=raw, wire=self.wire)

    def _hold(self, chunks: list[Chunk], events: list[bytes], starts: list[tuple[int, int]]) -> Chunk:
        """Return what may be joined from the beginning, and keep the rest for the next calls of `feed`.

        Each of ``starts`` is the position of a chunk and of its event where the next part begins.
        """
        start, place = 0, 0
        for end, end_place in [*starts, (len(chunks), len(events))]:
            raw = b"".join([event + b"\n\n" for event in events[place:end_place]])
            self._held.append(join(chunks[start:end], raw, self.wire))
            start, place = end, end_place
        return self._held.pop(0)

    def close(self) -> None:
        """See `firsttoken.wire.codec.StreamReader.close`."""
        if self._held:
            raise InternalError("A part of the target's answer was not taken from its reader.")
        if self._failure:
            raise self._failure
        if not self.done and not self.finished:
            raise UpstreamClosedError("The target's stream ended before the answer was complete.")
