"""One batch, moved on by one worker: check its file, submit it, look after it, collect, make its files.

Each step ends with a conditional write of the record, so that after a crash another worker goes on from
there. Before a batch is submitted the record says that it may have been: who finds that looks for it at the
provider first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from firsttoken.batch.batch import Batch, LineError, State, error_file, output_file
from firsttoken.batch.batches import Batches
from firsttoken.batch.choose import lines_of, provider_of
from firsttoken.batch.collect import Collector
from firsttoken.batch.provider import BatchProvider, Ended, Progress
from firsttoken.batch.validate import Validation
from firsttoken.errors import FirstTokenError, RequestError, StoreError, UpstreamRefusedError

HOPELESS = 86_400.0
"""Seconds after its window that a batch which meets nothing but errors is given up."""
GRACE = 3600.0
"""Seconds that a provider has to end a batch that it was told to stop."""
_MISSING = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
    "failed": ("batch_failed", "The batch failed at its provider before this request was executed."),
    "done": ("no_result", "The provider has ended the batch without a result for this request."),
}
_FINAL: dict[str, State] = {
    "done": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}


class Step:
    """Moves ``batch`` on until ``until`` (the loop's clock), or until there is nothing to do but to wait."""

    def __init__(self, batches: Batches, batch: Batch, until: float) -> None:
        self._batches = batches
        self.batch = batch
        self._until = until
        self._known: list[str] | None = None

    async def run(self) -> Batch:
        """Take all steps that can be taken now and return the batch after them.

        Raises FirstTokenError where a step failed that will be tried again.
        """
        loop = asyncio.get_running_loop()
        while not self.batch.is_final:
            before = self.batch
            try:
                await self._one()
            except FirstTokenError as error:
                if self._batches.wall() < before.expires + HOPELESS:
                    raise
                await self._give_up(error)
            if self.batch == before or loop.time() >= self._until:
                break
        return self.batch

    async def _one(self) -> None:
        if self.batch.state == "validating":
            await self._validate()
        elif self.batch.state == "finalizing":
            await self._finish()
        else:
            await self._work()

    async def _give_up(self, error: FirstTokenError) -> None:
        """End a batch that cannot be moved on, with what there is: the list of open ones must not fill up."""
        await self._make_files()
        last = LineError(error.code or error.type, str(error))
        now = self._batches.wall()
        await self._change(
            lambda record: replace(record, state="failed", errors=(*record.errors, last), finished=now)
        )

    async def _validate(self) -> None:
        """Check the file: the batch fails with what is wrong in it, or begins."""
        validation = Validation(self._batches, self.batch)
        check = await validation.run()
        now = self._batches.wall()

        def step(batch: Batch) -> Batch | None:
            if batch.state != "validating":
                return None
            batch = replace(batch, model=check.model, total=len(check.ids))
            if check.errors:
                return replace(batch, state="failed", errors=tuple(check.errors), finished=now)
            return replace(batch, state="in_progress", target=validation.target, began=now)

        await self._change(step)

    async def _work(self) -> None:
        """Submit a batch, or look how far it is and collect what is there."""
        batch = self.batch
        provider = provider_of(self._batches, batch, lambda: self._until)
        if not batch.handle and not batch.ended:
            await self._submit(provider)
            return
        if not batch.ended:
            await self._poll(provider)
        batch = self.batch
        exhausted = not batch.handle
        if batch.handle and (batch.ended or provider.partial):
            exhausted = await self._collect(provider_of(self._batches, batch, lambda: self._until))
        late = asyncio.get_running_loop().time() >= self._until
        if batch.ended and provider.partial and late and self.batch.collected > batch.collected:
            exhausted = False  # it may have stopped for that: the next tick sees whether anything is left
        if exhausted and not self.batch.ended and self.batch.collected >= self.batch.total:
            await self._end("done")
        if exhausted and self.batch.ended:
            now = self._batches.wall()
            await self._change(lambda record: replace(record, state="finalizing", finalizing=now))

    async def _submit(self, provider: BatchProvider) -> None:
        batch = self.batch
        if batch.intended:
            handle = await provider.find()
        elif batch.state == "cancelling" or self._is_late():
            await self._end("cancelled" if batch.state == "cancelling" else "expired")
            return
        else:
            await self._change(lambda record: replace(record, intended=True))
            handle = ""
        if not handle and self.batch.state == "cancelling":
            await self._end("cancelled")
            return
        try:
            handle = handle or await provider.submit(lines_of(self._batches, batch))
        except (UpstreamRefusedError, RequestError) as error:
            await self._end("failed", LineError(error.code or error.type, str(error), param=error.param))
            return
        await self._change(lambda record: replace(record, handle=handle))

    async def _poll(self, provider: BatchProvider) -> None:
        batch = self.batch
        stopping = batch.state == "cancelling" or self._is_late()
        stopped: Ended = "cancelled" if batch.state == "cancelling" else "expired"
        if stopping and not batch.stopped:
            await provider.cancel(batch.handle)
            await self._change(lambda record: replace(record, stopped=True))
        if stopping and provider.partial:
            progress = Progress(stopped)
        else:
            progress = await provider.poll(batch.handle)
        if progress.handle and progress.handle != batch.handle:
            await self._change(lambda record: replace(record, handle=progress.handle))
        since = batch.cancelling or batch.expires
        if stopping and not progress.ended and self._batches.wall() > since + GRACE:
            progress = Progress(stopped)
        if progress.ended:
            # The provider's word for a batch that we stopped for its time is "cancelled".
            late = progress.ended == "cancelled" and batch.state != "cancelling" and self._is_late()
            ended: Ended = "expired" if late else progress.ended
            error = LineError("batch_failed", progress.message) if ended == "failed" else None
            await self._end(ended, error)

    async def _collect(self, provider: BatchProvider) -> bool:
        collector = Collector(self._batches.book, self._batches.files, lambda: self._until)
        self.batch, exhausted = await collector.collect(self.batch, provider, await self._ids())
        return exhausted

    async def _finish(self) -> None:
        """Write what is missing and make the files. All of it may be done again."""
        batch, files = self.batch, self._batches.files
        if batch.completed + batch.failed < batch.total and (batch.ended != "failed" or batch.collected):
            collector = Collector(self._batches.book, files, lambda: self._until)
            code, message = _MISSING[batch.ended or "done"]
            self.batch = await collector.add_missing(batch, await self._ids(), code, message)
        await self._make_files()
        state, now = _FINAL[batch.ended or "done"], self._batches.wall()
        await self._change(lambda record: replace(record, state=state, finished=now))

    async def _make_files(self) -> None:
        batch, files = self.batch, self._batches.files
        for file_id, parts, size, name in (
            (output_file(batch), batch.output, batch.output_bytes, "output"),
            (error_file(batch), batch.refused, batch.refused_bytes, "error"),
        ):
            if parts:
                shown = f"{batch.id}_{name}.jsonl"
                await files.adopt(file_id, batch.tenant, shown, "batch_output", size, parts, batch.keep)

    async def _ids(self) -> list[str]:
        """Return the custom ids of all lines, by number."""
        if self._known is None:
            lines = lines_of(self._batches, self.batch)(0)
            self._known = [line.custom_id async for line in lines]
        return self._known

    async def _end(self, ended: Ended, error: LineError | None = None) -> None:
        errors = () if error is None else (error,)
        await self._change(lambda record: replace(record, ended=ended, errors=record.errors + errors))

    async def _change(self, step: Callable[[Batch], Batch | None]) -> None:
        changed = await self._batches.book.change(self.batch.tenant, self.batch.id, step)
        if changed is None:
            raise StoreError(f"The batch {self.batch.id} is not there any more.")
        self.batch = changed

    def _is_late(self) -> bool:
        return self._batches.wall() >= self.batch.expires
