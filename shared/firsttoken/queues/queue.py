"""What a queue must be able to do: hold small messages until a worker has finished with them.

Delivery is at least once, in any order. A message says only which job it is about (`firsttoken.jobs`), so a
queue needs no more than this; what makes each job's effect happen once is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct


class Delivery(Struct, frozen=True):
    """A message that was handed out: others do not see it for a while."""

    body: bytes
    id: str
    count: int = 1
    """How often it was handed out, this time included."""
    receipt: Any = None
    """What the queue needs to be told to know which delivery is meant."""


class Dead(Struct, frozen=True):
    """A message that was given up, and why; ``at`` in Unix seconds, 0 where unknown."""

    body: bytes
    id: str
    reason: str
    at: float = 0.0


class Depth(Struct, frozen=True):
    """How many messages there are, as far as the queue can tell; None where it cannot."""

    waiting: int | None = None
    """Ready to be handed out."""
    delayed: int | None = None
    running: int | None = None
    """Handed out, and not finished."""
    dead: int | None = None


class Queue(Protocol):
    """Every method may raise a QueueError, and nothing else, when the queue cannot be had.

    Times are in seconds. A body of more than ``max_body_bytes`` is a ValueError.
    """

    @property
    def pulls(self) -> bool:
        """Whether workers may ask for messages (`receive`); otherwise the service pushes them."""

    @property
    def max_body_bytes(self) -> int:
        """How large one message can be."""

    @property
    def max_delay(self) -> float:
        """The longest delay that `send` can keep; 0 where it can keep none. Longer ones are cut to it."""

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message, to be handed out after ``delay`` at the earliest. On return it is safe."""

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:
        """Return up to ``limit`` messages, waiting up to ``wait`` for the first; hide them for ``hidden``."""

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        """Hide a message for so long from now on; say whether it was still ours."""

    async def done(self, delivery: Delivery) -> None:
        """Delete a message that was finished with."""

    async def bury(self, body: bytes, reason: str) -> None:
        """Add a message to the dead letters, with the reason."""

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return up to ``limit`` dead letters without removing them."""

    async def redrive(self, limit: int) -> int:
        """Send up to ``limit`` dead letters again, and return how many; none is lost on the way."""

    async def purge_dead(self, limit: int) -> int:
        """Delete up to ``limit`` dead letters for good, and return how many."""

    async def depth(self) -> Depth:
        """Return how many messages there are."""

    async def aclose(self) -> None:
        """Close connections and files."""
