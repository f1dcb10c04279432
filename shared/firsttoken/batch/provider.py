"""What a provider's batch API must be able to do: take requests, tell how far it is, give the results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from firsttoken.batch.batch import Tokens
from firsttoken.batch.lines import Line
from firsttoken.errors import FirstTokenError

Ended = Literal["", "done", "failed", "cancelled", "expired"]
Lines = Callable[[int], AsyncIterator[Line]]
"""Reads the requests of a batch from a number on, one after the other."""


class Progress(Struct, frozen=True):
    """How far a batch is at its provider. ``ended``: how it ended there; empty while it is at work."""

    ended: Ended = ""
    message: str = ""
    """Why it failed."""
    handle: str = ""
    """What it is known by from now on; empty where that has not changed."""


class Result(Struct, frozen=True):
    """What came of line ``number``: a status with a JSON ``body``, or an error without an HTTP answer."""

    number: int
    status: int = 0
    body: bytes = b""
    tokens: Tokens = Tokens()
    code: str = ""
    message: str = ""

    @property
    def ok(self) -> bool:
        """Return whether it is an answer."""
        return self.status == 200


class BatchProvider(Protocol):
    """One batch at its provider. Methods raise UpstreamError and its kinds, DeadlineError and StoreError.

    All are called again after a crash, on another instance.
    """

    @property
    def partial(self) -> bool:
        """Whether results can be had before all are there."""

    def check(self, line: Line) -> None:
        """Raise a FirstTokenError where the target cannot answer a line."""

    async def submit(self, lines: Lines) -> str:
        """Submit the batch and return its handle."""

    async def find(self) -> str:
        """Return the handle of the batch if it was submitted before, else nothing."""

    async def poll(self, handle: str) -> Progress:
        """Return how far it is."""

    def results(self, handle: str, start: int) -> AsyncGenerator[Result]:
        """Yield the results that are there, but for the first ``start``.

        Their order is the same each time.
        """

    async def cancel(self, handle: str) -> None:
        """Ask the provider to stop. What is done by then stays."""


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Answer(Struct, frozen=True):
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)


def answered(number: int, body: bytes) -> Result:
    """Return the result that a chat completion is."""
    try:
        usage = _answer.decode(body).usage or _Usage()
    except msgspec.DecodeError as error:
        return Result(number, code="invalid_answer", message=f"The answer is not a chat completion: {error}")
    read, wrote = usage.prompt_tokens_details or _Details(), usage.completion_tokens_details or _Details()
    tokens = Tokens(
        usage.prompt_tokens or 0,
        read.cached_tokens or 0,
        usage.completion_tokens or 0,
        wrote.reasoning_tokens or 0,
    )
    return Result(number, 200, body, tokens)


def failed(number: int, error: FirstTokenError) -> Result:
    """Return the result that an error is, as it would have been answered."""
    said = {"message": str(error), "type": error.type, "param": error.param, "code": error.code}
    return Result(number, error.status, msgspec.json.encode({"error": said}))
