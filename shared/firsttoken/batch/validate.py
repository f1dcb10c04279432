"""The check of a batch's file before anything of it is sent: every line, and with the target's eyes too."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from msgspec.structs import replace

from firsttoken.batch import lines as reading
from firsttoken.batch.batch import Batch
from firsttoken.batch.batches import Batches
from firsttoken.batch.choose import provider_of
from firsttoken.batch.lines import Check, TooLongError
from firsttoken.batch.provider import BatchProvider
from firsttoken.errors import RequestError, UpstreamError

_PAUSE = 100
"""Lines that are checked without giving way to others."""


class Validation:
    """Checks the file of ``batch``. Memory: a part of the file, and the ids of all lines."""

    def __init__(self, batches: Batches, batch: Batch) -> None:
        self._batches = batches
        self._batch = batch
        self._provider: BatchProvider | None = None
        depth = batches.settings.server.max_json_depth
        self.check = Check(batch.endpoint, batches.own.max_lines, depth)
        self.target = ""

    async def run(self) -> Check:
        """Return what was found. Raises StoreError where the file cannot be had."""
        check, batch = self.check, self._batch
        pieces = self._batches.files.content(batch.tenant, batch.input_parts)
        try:
            async with aclosing(reading.split(pieces, self._batches.own.max_line_bytes)) as lines:
                async for place, raw in lines:
                    self._take(place, raw)
                    if check.is_over:
                        break
                    if place % _PAUSE == 0:
                        await asyncio.sleep(0)
        except TooLongError as error:
            limit = self._batches.own.max_line_bytes
            message = f"The line is too long; expected at most {limit} bytes."
            check.note("line_too_long", message, error.line)
        if not check.errors and not check.ids:
            check.note("empty_file", "The file has no requests; expected one in each line.")
        if not check.errors:
            self.target = self._batches.target_of(check.model, len(check.ids))
        return check

    def _take(self, place: int, raw: bytes) -> None:
        line = self.check.take(place, raw)
        if line is None:
            return
        try:
            self._answering().check(line)
        except (RequestError, UpstreamError) as error:
            self.check.note(error.code or error.type, str(error), place, error.param or "")

    def _answering(self) -> BatchProvider:
        """Return the provider of the model that the first line names. Raises NotFoundError."""
        if self._provider is None:
            model = self.check.model
            target = self._batches.target_of(model, self._batches.own.max_lines)
            batch = replace(self._batch, model=model, target=target)
            self._provider = provider_of(self._batches, batch)
        return self._provider
