"""The one seam of the product: a `Model` is anything that streams an answer.

A provider is a model. Every policy is a model around a model. An answer that was not asked to stream is a
stream of one chunk, so there is one path, not two.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from firsttoken.chat import ChatRequest
from firsttoken.telemetry.record import Attempt, Record

Finish = Literal[
    "stop", "length", "tool_calls", "content_filter", "stop_sequence", "refusal", "context_length"
]
"""Why an answer ended.

Formats with fewer words say the nearest one; the codecs' tables are in docs/wire.md.
"""


class Usage(Struct, frozen=True, gc=False):
    """Token counts of one answer.

    ``input`` includes ``cached`` and ``cache_write``, ``output`` includes reasoning.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class ToolCall(Struct, frozen=True, gc=False):
    """A fragment of a tool call: the first one carries id and name, all of them add to ``arguments``."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str = ""


class Chunk(Struct, frozen=True):
    """One step of an answer: whatever arrived together.

    ``raw`` holds the same step in the format named by ``wire``: a client of that format gets these bytes
    unchanged. ``raw`` ends where an event ends, so a comment or an error event may follow it. Within a chunk
    reasoning comes before text, text before tool calls.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    model: str = ""
    raw: bytes = b""
    wire: str = ""
    signature: str = ""
    """The provider's signature of the reasoning so far."""
    redacted: str = ""
    """A block of reasoning that the provider encrypted."""
    citations: tuple[Mapping[str, Any], ...] = ()
    """Sources of the text so far, as the provider wrote them."""
    refusal: str = ""
    """Text of a refusal, where a format keeps that apart from the answer."""
    stopped_by: str = ""
    """The stop sequence that ended the answer, where the format tells."""
    follows: Chunk | None = None
    """What was said so far, in one chunk, where another target goes on with an answer that broke off and the
    bytes of the first one were passed on: a writer has to begin anew behind it."""

    def has_content(self) -> bool:
        """Return whether the answer has begun: anything of it, or its end; not a greeting without words."""
        return bool(
            self.text
            or self.reasoning
            or self.tool_calls
            or self.finish
            or self.refusal
            or self.redacted
            or self.signature
        )


class Source(Struct, frozen=True):
    """What the client sent, byte by byte, so that a target of the same format can get it unchanged.

    ``unknown`` names the fields that `ChatRequest` has no word for and that ask for something.
    """

    wire: str
    body: bytes
    unknown: tuple[str, ...] = ()


class Later(Struct, frozen=True):
    """How a call may be answered later, as a job."""

    asked: bool = False
    """Whether its client says that it can take a job for an answer."""
    wait: float | None = None
    """Seconds that an answer may take to begin, until the call becomes a job; 0: it is one at once."""
    webhook: str = ""
    background: bool = False
    """Whether the job is an OpenAI background response."""


class Call(Struct):
    """One request on its way through the policies."""

    request: ChatRequest
    source: Source
    id: str
    deadline: float
    """On the clock of the running event loop, in seconds."""
    tenant: str = "local"
    headers: Mapping[str, str] = field(default_factory=dict)
    """The client's headers, lower-case; only those that the configuration names are ever forwarded."""
    record: Record = field(default_factory=Record)
    attempt: Attempt = field(default_factory=Attempt)
    """The call to a target that this is; each target gets a copy of the call with one of its own."""
    tried: set[str] = field(default_factory=set)
    """The targets that this round has been sent to: shared by a call and its hedge."""
    kind: str = "first"
    """Why the next attempt is made, see `Attempt.kind`."""
    later: Later | None = None
    """None: it must be answered now, as a job's own call must."""
    background: bool = False
    """Whether nobody waits for it, as behind a queue: those who wait go first."""


class Model(Protocol):
    """Anything that streams an answer."""

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``.

        Raises a `FirstTokenError`. Closing the generator (or cancelling its consumer) stops the work behind
        it at once.
        """
        ...
