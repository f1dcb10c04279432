"""A batch as a value: requests in a file, answered within a day into a file of answers and one of errors.

::

    validating -> in_progress -> finalizing -> completed
       |              |  |           |-------> expired     what was answered by then stays
       |-> failed <---|  |--> cancelling ----> cancelled   likewise

The words and the object are those of OpenAI's Batch API. A batch changes only by a conditional write of its
whole record.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any, Literal

from msgspec import Struct

State = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
FINAL: frozenset[State] = frozenset({"completed", "failed", "expired", "cancelled"})
ENDPOINT = "/v1/chat/completions"
"""The only endpoint whose requests can stand in a batch."""


class LineError(Struct, frozen=True):
    """Why a batch was not begun: what is wrong, and in which line of the file (from 1)."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Tokens(Struct, frozen=True):
    """What all answers of a batch used together."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """Return the sum of both."""
        return Tokens(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


class Batch(Struct, frozen=True, kw_only=True):
    """The record of a batch. Times are Unix seconds, 0 for those that never came."""

    id: str
    tenant: str
    input_file: str
    input_parts: tuple[str, ...]
    """The parts of the input file: they outlive it where it expires first."""
    created: float
    expires: float
    state: State = "validating"
    endpoint: str = ENDPOINT
    window: str = "24h"
    metadata: dict[str, str] | None = None
    keep: float = 0.0
    """Seconds that its files are kept; 0: as configured."""
    model: str = ""
    target: str = ""
    """The target whose provider's own API answers it; empty where we do."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    collected: int = 0
    """Results that were written: where the next step goes on."""
    intended: bool = False
    """Whether it may have been submitted: a crash may have come before the handle was written."""
    handle: str = ""
    """What the provider knows it by."""
    ended: Literal["", "done", "failed", "cancelled", "expired"] = ""
    """How it ended at the provider."""
    stopped: bool = False
    """Whether the provider was asked to stop."""
    output: tuple[str, ...] = ()
    """The parts of the file of answers, by name."""
    refused: tuple[str, ...] = ()
    """The parts of the file of errors."""
    output_bytes: int = 0
    refused_bytes: int = 0
    tokens: Tokens = Tokens()
    errors: tuple[LineError, ...] = ()
    began: float = 0.0
    finalizing: float = 0.0
    cancelling: float = 0.0
    finished: float = 0.0

    @property
    def is_final(self) -> bool:
        """Return whether nothing will change any more."""
        return self.state in FINAL


def new_id() -> str:
    """Return a name for a batch: nobody can guess it."""
    return f"batch_{os.urandom(16).hex()}"


def derived(batch: Batch, what: object) -> str:
    """Return 32 hexadecimal digits that are the same whenever they are made for the same batch and thing."""
    return sha256(f"{batch.id}\n{what}".encode()).hexdigest()[:32]


def output_file(batch: Batch) -> str:
    """Return the id of the file of answers."""
    return f"file-{derived(batch, 'output')}"


def error_file(batch: Batch) -> str:
    """Return the id of the file of errors."""
    return f"file-{derived(batch, 'errors')}"


def shown(batch: Batch) -> dict[str, Any]:
    """Return a batch as OpenAI's API shows it."""
    final = batch.finished if batch.is_final else 0.0
    times = {f"{state}_at": _second(final if batch.state == state else 0.0) for state in sorted(FINAL)}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model or None,
        "errors": _errors(batch),
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.state,
        "output_file_id": output_file(batch) if batch.is_final and batch.output else None,
        "error_file_id": error_file(batch) if batch.is_final and batch.refused else None,
        "created_at": int(batch.created),
        "in_progress_at": _second(batch.began),
        "expires_at": int(batch.expires),
        "finalizing_at": _second(batch.finalizing),
        "cancelling_at": _second(batch.cancelling),
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch.tokens),
        "metadata": batch.metadata,
    }


def _second(at: float) -> int | None:
    return int(at) if at else None


def _errors(batch: Batch) -> dict[str, Any] | None:
    if not batch.errors:
        return None
    rows = [
        {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
        for error in batch.errors
    ]
    return {"object": "list", "data": rows}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }
