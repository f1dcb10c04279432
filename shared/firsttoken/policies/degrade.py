"""The ladder below a route's targets: less good answers that are better than none, each labelled."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    RequestError,
    UnavailableError,
    UnsupportedFieldError,
)
from firsttoken.model import Call, Chunk, Model, Usage
from firsttoken.policies.opened import Opened, Policy, open_model

FIXED_TEXT = "firsttoken/fixed-text"
"""What a fixed text is called where an answer names its model or its target."""


class Degrade(Policy):
    """A model with rungs below it: names and models, the best first.

    They are asked when the model fails in a way that the client did not cause, and while there is time.
    """

    def __init__(self, model: Model, rungs: Sequence[tuple[str, Model]]) -> None:
        self._model = model
        self._rungs = rungs

    async def open(self, call: Call) -> Opened:
        """Open the model's answer, or that of the first rung that has one.

        Raises the model's own error when there is none: the cause is not hidden. The others are its notes.
        """
        try:
            return await open_model(self._model, call)
        except FirstTokenError as error:
            if not _may_degrade(error):
                raise
            cause = error
        for name, model in self._rungs:
            try:
                opened = await open_model(model, replace(call, kind="rung", tried=set()))
            except FirstTokenError as error:
                cause.add_note(f"{name}: {error}")
            else:
                call.record.rung = name
                return opened
        raise cause


class FixedText:
    """A model that always says the same; it refuses what a text cannot be (structured, or a tool call)."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the text. Raises UnsupportedFieldError, and UnavailableError for a job."""
        request = call.request
        if call.background:
            raise UnavailableError("A fixed text is no answer for a job.")
        if request.output is not None:
            raise UnsupportedFieldError("A fixed text has no structured output.", param="response_format")
        if request.tool_choice is not None and request.tool_choice.mode in ("required", "tool"):
            raise UnsupportedFieldError("A fixed text calls no tools.", param="tool_choice")
        call.record.target = FIXED_TEXT
        yield Chunk(text=self._text, finish="stop", usage=Usage(), model=FIXED_TEXT)


def _may_degrade(error: FirstTokenError) -> bool:
    return (error.failover or error.retryable) and not isinstance(error, RequestError | DeadlineError)
