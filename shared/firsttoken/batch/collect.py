"""Results of a batch into its two files, part by part, so that a crash loses no more than the last part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from firsttoken.batch.batch import Batch, Tokens, derived
from firsttoken.batch.book import Book
from firsttoken.batch.files import PART_BYTES, Files
from firsttoken.batch.provider import BatchProvider, Result
from firsttoken.errors import StoreError

MAX_ANSWER = 8 * PART_BYTES
"""Bytes of one answer; a larger one is told as an error."""
FLUSH_SECONDS = 5.0
_encode = msgspec.json.encode


class _Buffer:
    """Lines that were not written yet: about `PART_BYTES` of them."""

    def __init__(self) -> None:
        self.output: list[bytes] = []
        self.refused: list[bytes] = []
        self.passed = 0
        self.size = 0
        self.tokens = Tokens()

    @property
    def count(self) -> int:
        return len(self.output) + len(self.refused) + self.passed

    def take(self, batch: Batch, custom_id: str, result: Result) -> None:
        """Add the line of a result."""
        if len(result.body) > MAX_ANSWER:
            message = f"The answer has {len(result.body)} bytes; expected at most {MAX_ANSWER}."
            result = Result(result.number, code="answer_too_large", message=message)
        written = line_of(batch, custom_id, result)
        (self.output if result.ok else self.refused).append(written)
        self.size += len(written)
        self.tokens = self.tokens.plus(result.tokens)


class Collector:
    """Writes the results of one batch. Memory: a part, the ids of all lines, and one answer."""

    def __init__(self, book: Book, files: Files, until: Callable[[], float]) -> None:
        self._book = book
        self._files = files
        self._until = until

    async def collect(self, batch: Batch, provider: BatchProvider, ids: list[str]) -> tuple[Batch, bool]:
        """Write what is there until time is up; return the batch after that, and whether nothing was left.

        Who answers as it is read (``partial``) minds the time itself: what it has answered is not given up.
        """
        loop = asyncio.get_running_loop()
        buffer, flushed = _Buffer(), loop.time()
        exhausted = True
        async with aclosing(provider.results(batch.handle, batch.collected)) as results:
            async for result in results:
                if 0 <= result.number < len(ids):
                    buffer.take(batch, ids[result.number], result)
                else:
                    buffer.passed += 1  # counted, so that the place is right
                late = not provider.partial and loop.time() >= self._until()
                if buffer.size >= PART_BYTES or late or loop.time() - flushed >= FLUSH_SECONDS:
                    batch = await self.flush(batch, buffer)
                    buffer, flushed = _Buffer(), loop.time()
                if late:
                    exhausted = False
                    break
        return (await self.flush(batch, buffer) if buffer.count else batch), exhausted

    async def flush(self, batch: Batch, buffer: _Buffer) -> Batch:
        """Write the lines of a buffer, then the record. Raises StoreError where another worker was faster."""
        output, refused = b"".join(buffer.output), b"".join(buffer.refused)
        files, tenant = self._files, batch.tenant
        answers = await files.extend(tenant, batch.output, output, batch.keep) if output else batch.output
        errors = await files.extend(tenant, batch.refused, refused, batch.keep) if refused else batch.refused

        def step(now: Batch) -> Batch | None:
            if (now.collected, now.output, now.refused) != (batch.collected, batch.output, batch.refused):
                return None
            return replace(
                now,
                collected=now.collected + buffer.count,
                completed=now.completed + len(buffer.output),
                failed=now.failed + len(buffer.refused),
                output=answers,
                refused=errors,
                output_bytes=now.output_bytes + len(output),
                refused_bytes=now.refused_bytes + len(refused),
                tokens=now.tokens.plus(buffer.tokens),
            )

        written = await self._book.change(tenant, batch.id, step)
        if written is None or (written.output, written.refused) != (answers, errors):
            raise StoreError(f"The batch {batch.id} was moved on by another worker.")
        return written

    async def add_missing(self, batch: Batch, ids: list[str], code: str, message: str) -> Batch:
        """Write an error for each line that has no result. Reads both files once."""
        seen: set[str] = set()
        for parts in (batch.output, batch.refused):
            async with aclosing(self._files.content(batch.tenant, parts)) as pieces:
                async for piece in pieces:  # a part ends where a line ends
                    seen.update(_named.decode(line).custom_id for line in piece.splitlines())
        buffer = _Buffer()
        for number, custom_id in enumerate(ids):
            if custom_id in seen:
                continue
            buffer.take(batch, custom_id, Result(number, code=code, message=message))
            if buffer.size >= PART_BYTES:
                batch = await self.flush(batch, buffer)
                buffer = _Buffer()
        return await self.flush(batch, buffer) if buffer.count else batch


class _Named(msgspec.Struct):
    custom_id: str


_named = msgspec.json.Decoder(_Named)


def line_of(batch: Batch, custom_id: str, result: Result) -> bytes:
    """Return the line of a result, in the form of OpenAI's output and error files."""
    name = derived(batch, result.number)
    row: dict[str, object] = {
        "id": f"batch_req_{name}",
        "custom_id": custom_id,
        "response": None,
        "error": None,
    }
    if result.status:
        body = Raw(b" ".join(result.body.splitlines()))
        row["response"] = {"status_code": result.status, "request_id": f"req_{name[:24]}", "body": body}
    else:
        row["error"] = {"code": result.code, "message": result.message}
    return _encode(row) + b"\n"
