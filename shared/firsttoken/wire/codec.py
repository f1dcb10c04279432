"""What a wire format must be able to do, in both directions: each package beside this module is such a codec.

An HTTP endpoint is read request + write answer; a provider is write request + read answer.
"""

from __future__ import annotations

from typing import Protocol

from firsttoken.chat import ChatRequest
from firsttoken.errors import FirstTokenError, UpstreamError
from firsttoken.model import Call, Chunk, Source


class StreamReader(Protocol):
    """Turns the bytes of a streamed answer into chunks, one for whatever arrived together."""

    done: bool
    """Whether the format's end mark was read: whatever follows it is no part of the answer."""

    def feed(self, received: bytes) -> Chunk | None:
        """Return what the complete events among the bytes so far hold, or None when there is none yet.

        Raises UpstreamProtocolError for bytes that are not what was agreed on, UpstreamError for an error
        event. An error behind good events is raised by the next call, so that nothing good is lost.
        What one chunk cannot hold in order is held back: ``feed(b"")`` returns it, None when nothing is left.
        """

    def close(self) -> None:
        """Check at the end of the stream that the answer is whole.

        Raises UpstreamClosedError when it is not.
        """


class StreamWriter(Protocol):
    """Turns chunks into the bytes of a streamed answer."""

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""

    def end(self) -> bytes:
        """Return the closing events."""

    def adopt(self, raw: bytes) -> None:
        """Take ids, numbers and open blocks from whole events that a target wrote in this writer's place.

        What they say was written before, with the bytes thrown away; see `firsttoken.wire.takeover`.
        """

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer. It never looks like the end of a whole one."""

    def heartbeat(self) -> bytes:
        """Return an event that clients of this format read over, or nothing where there is none."""


class Codec(Protocol):
    """One wire format.

    ``call.source`` holds the client's bytes; they are sent on unchanged where formats match.
    """

    @property
    def WIRE(self) -> str:  # noqa: N802 - a constant of the module that implements this
        """The format's name."""

    @property
    def STREAM_TYPE(self) -> str:  # noqa: N802
        """The content type of a streamed answer."""

    def read_request(
        self, body: bytes, model: str = "", *, stream: bool | None = None
    ) -> tuple[ChatRequest, Source]:
        """Decode a request. ``model`` and ``stream`` come from the path where the format puts them there.

        Raises RequestError naming the field and what was expected.
        """

    def write_request(self, call: Call, model: str) -> bytes:
        """Return the body to send to a target.

        Raises UnsupportedFieldError for what this format cannot express.
        """

    def read_answer(self, body: bytes) -> Chunk:
        """Decode a whole answer into the one chunk that it is. Raises UpstreamProtocolError."""

    def write_answer(self, call: Call, chunks: list[Chunk], created: int) -> bytes:
        """Return the body of a whole answer; ``created`` is a Unix time in seconds."""

    def open_reader(self) -> StreamReader:
        """Begin to read a streamed answer."""

    def open_writer(self, call: Call, created: int) -> StreamWriter:
        """Begin to write a streamed answer."""

    def write_error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the body of an error answer."""

    def error_from(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Return the error that a target's error answer means."""
