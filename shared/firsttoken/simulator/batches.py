"""What all simulated batch APIs share: requests that are answered bit by bit, as often as one looks.

Everything is in memory, and bounded: the oldest file and the oldest batch make room.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from firsttoken.simulator.profile import Profile

MAX_KEPT = 1000
"""Files, and batches, of one provider."""
AT_ONCE = 32
Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""Sends a request to the simulated provider: path and body; returns status and body."""
T = TypeVar("T")
State = Literal["waiting", "running", "done", "expired", "cancelling", "cancelled", "failed"]


class Reply(Struct, frozen=True):
    """An answer over HTTP."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class Asked(Struct, frozen=True):
    """A request over HTTP; header names are lower-case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Bucket(Protocol):
    """Objects that a provider reads and writes, as S3 keeps them."""

    async def get(self, bucket: str, key: str) -> bytes | None:
        """Return an object, or None."""

    async def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""


class Item(Struct):
    """One request of a batch, and what came of it: status 0 while nothing did."""

    key: str
    path: str
    body: bytes
    status: int = 0
    answer: bytes = b""


class Work(Struct):
    """A batch at the provider. It advances when it is looked at."""

    id: str
    name: str
    items: list[Item]
    about: dict[str, Any] = field(default_factory=dict)
    state: State = "waiting"
    polls: int = 0
    files: dict[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Return whether nothing will change any more."""
        return self.state in ("done", "expired", "cancelled", "failed")

    async def look(self, ask: Ask, profile: Profile) -> None:
        """Advance by one look."""
        if self.ended:
            return
        if self.state == "cancelling":
            self.state = "cancelled"
            return
        self.polls += 1
        share = self.polls / profile.batch_polls if profile.batch_polls else 1.0
        due = int(len(self.items) * min(share, 1.0) * profile.batch_done)
        waiting = [item for item in self.items[:due] if not item.status]
        for start in range(0, len(waiting), AT_ONCE):
            group = waiting[start : start + AT_ONCE]
            await asyncio.gather(*[_answer(item, ask, profile) for item in group])
        self.state = "running"
        if share >= 1:
            self.state = "done" if profile.batch_done >= 1 else "expired"

    def cancel(self) -> None:
        """Stop it; it is over when it is looked at again."""
        if not self.ended:
            self.state = "cancelling"


async def _answer(item: Item, ask: Ask, profile: Profile) -> None:
    luck = random.Random(f"{profile.seed}{item.key}")  # noqa: S311 - which requests fail, not secrets
    if luck.random() < profile.batch_errors:
        item.status = 400
        item.answer = msgspec.json.encode({"error": {"message": "The simulated batch fails this request."}})
        return
    item.status, item.answer = await ask(item.path, item.body)


def keep(kept: dict[str, T], name: str, value: T) -> None:
    """Keep a value by its name; the oldest one makes room."""
    kept[name] = value
    while len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, msgspec.json.encode(value), {"content-type": "application/json"})


def message_of(body: bytes) -> str:
    """Return what an error answer of any of the formats says."""
    said = msgspec.json.decode(body)
    inner = said.get("error", said) if isinstance(said, dict) else {}
    return str(inner.get("message", "")) if isinstance(inner, dict) else str(inner)
