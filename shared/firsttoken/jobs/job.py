"""A call that is answered later, as a value: what is asked, where it stands, and what became of it.

::

    queued -> running -> done
      |  ^      |  |---> failed      no answer is to be had; the dead letters say why
      |  |------|  |---> cancelled
      |------------|---> expired     its time was over first

A job changes only by a conditional write of its whole record, and only the worker that holds its lease, with
the lease's epoch, makes it ``done``. So however often a message comes, each job ends once.
"""

from __future__ import annotations

import os
from typing import Literal

from msgspec import Struct

State = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
FINAL: frozenset[State] = frozenset({"done", "failed", "cancelled", "expired"})


class JobError(Struct, frozen=True):
    """Why there is no answer, in words that the client may read."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None


class JobRequest(Struct, frozen=True):
    """What was asked, as it came: enough to make the same `Call` again."""

    wire: str
    """The package in ``wire`` that reads ``body`` and writes the answer."""
    body: bytes
    model: str = ""
    """The model, where the path held it."""
    stream: bool | None = None
    """As the path says, where it does."""
    headers: dict[str, str] = {}
    """Only those that the configuration forwards to the route's targets."""


class Job(Struct, frozen=True, kw_only=True):
    """The record of a job. Times are Unix seconds."""

    id: str
    tenant: str
    model: str
    wire: str
    created: float
    expires: float
    state: State = "queued"
    background: bool = False
    """Whether it is an OpenAI background response."""
    epoch: int = 0
    """Of the worker that has it, or had it last."""
    attempts: int = 0
    """Times that a model was called for it."""
    started: float = 0.0
    finished: float = 0.0
    target: str = ""
    error: JobError | None = None
    webhook: str = ""
    notified: Literal["", "delivered", "failed"] = ""
    notices: int = 0
    """Times that its webhook was called."""

    @property
    def is_final(self) -> bool:
        """Return whether nothing will change any more, but for its webhook."""
        return self.state in FINAL


class Message(Struct, frozen=True):
    """What stands in the queue, as JSON. ``kind``: what is to be done for the job."""

    id: str
    tenant: str
    kind: Literal["answer", "notify"] = "answer"


def new_id() -> str:
    """Return a name for a job: nobody can guess it."""
    return f"job_{os.urandom(16).hex()}"
