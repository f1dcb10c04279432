"""The vocabulary of embeddings, and their seam: an `Embedder` turns texts into vectors, in their order.

A vector is packed little-endian float32: four bytes a dimension, what base64 answers hold and vector indexes
store. It is unpacked only where somebody asks for numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from typing import Literal, Protocol

from msgspec import Struct, field

from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Source
from firsttoken.telemetry.record import Record

Purpose = Literal["", "query", "document"]
"""What texts are for: models that tell the two apart find more. Empty is unsaid."""
MAX_INPUTS = 2048
"""Texts in one request: OpenAI's limit, whatever the target takes at once."""


class EmbedRequest(Struct, frozen=True):
    """A request for the vectors of some texts.

    ``tokens`` holds them in place of ``inputs`` where the client counted tokens itself: only a target of the
    same format and vocabulary understands those.
    """

    model: str
    inputs: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    input_type: Purpose = ""
    user: str = ""

    def count(self) -> int:
        """Return how many vectors are asked for."""
        return len(self.inputs) + len(self.tokens)


class EmbedCall(Struct):
    """One request on its way to an embedder; the fields are those of `firsttoken.model.Call`."""

    request: EmbedRequest
    deadline: float
    """On the clock of the running event loop, in seconds."""
    source: Source = Source("", b"")
    id: str = ""
    tenant: str = "local"
    headers: Mapping[str, str] = field(default_factory=dict)
    record: Record = field(default_factory=Record)


class Embeddings(Struct, frozen=True):
    """The vectors of a request, in the order of its texts, and what they cost.

    ``raw`` holds the same answer in the format named by ``wire``, as `firsttoken.model.Chunk` does.
    """

    vectors: tuple[bytes, ...]
    tokens: int = 0
    """Input tokens: the target's count, or `estimate_tokens` of the texts where ``estimated`` says so."""
    estimated: bool = False
    model: str = ""
    raw: bytes = b""
    wire: str = ""


class Embedder(Protocol):
    """Anything that turns texts into vectors."""

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``.

        Raises a `FirstTokenError`: all of them or none. Cancelling it stops the work behind it at once.
        """
        ...


def pack(values: Sequence[float]) -> bytes:
    """Return a vector of these numbers. Raises ValueError where one does not fit into a float32."""
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except (OverflowError, struct.error) as error:
        raise ValueError(f"not a vector of 32-bit floats: {error}") from error


def unpack(vector: bytes) -> tuple[float, ...]:
    """Return the numbers of a vector."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def normalised(values: Sequence[float]) -> Sequence[float]:
    """Return the numbers scaled to length 1; zeros stay zeros."""
    length = sqrt(fsum([value * value for value in values]))  # `sum` rounds differently in each Python
    return [value / length for value in values] if length else values


def checked(vectors: Sequence[bytes], expected: int) -> tuple[bytes, ...]:
    """Return ``vectors`` if they are ``expected`` many of one length. Raises UpstreamProtocolError."""
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != expected:
        raise UpstreamProtocolError(f"The target answered {len(vectors)} vectors to {expected} texts.")
    if len(lengths) != 1 or 0 in lengths or lengths.pop() % 4:
        raise UpstreamProtocolError("The target's vectors are empty or not of one length.")
    return tuple(vectors)


def estimate_tokens(texts: Sequence[str]) -> int:
    """Return about how many tokens ``texts`` are, for targets that do not tell: four bytes of UTF-8 each."""
    return sum([len(text.encode("utf-8", "surrogatepass")) // 4 + 1 for text in texts])
