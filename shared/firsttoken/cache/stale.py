"""A rung of the ladder: an answer that was given before, when no target can give one now."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from firsttoken.cache.answers import Answers
from firsttoken.errors import UnavailableError
from firsttoken.model import Call, Chunk


class Stale:
    """A model that answers from what is kept, up to ``max_age`` old.

    A client that asked for a new answer (``no-cache``) gets it as well: better than none, and it is labelled.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the kept answer. Raises UnavailableError where there is none, and for a job."""
        if call.background:
            raise UnavailableError("An old answer is none for a job.")
        answers = self._answers
        key = answers.key_to_keep(call)
        entry = await answers.load(key) if key is not None else None
        if entry is None or not answers.serves(entry, call):
            raise UnavailableError("No answer to this request is kept.")
        call.record.cache = "stale"
        async with aclosing(answers.replay(entry, call)) as chunks:
            async for chunk in chunks:
                yield chunk
