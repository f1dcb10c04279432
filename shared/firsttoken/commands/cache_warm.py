"""``firsttoken cache warm FILE --model NAME``: embeddings made ahead, so that no client waits for them.

A text that is in the cache already is not sent, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from firsttoken import config
from firsttoken.embedding import MAX_INPUTS, EmbedCall, EmbedRequest
from firsttoken.errors import ConfigError, UpstreamError, UpstreamRateLimitError, UpstreamRefusedError

if TYPE_CHECKING:
    from firsttoken.cache.embedded import CachedEmbedder
    from firsttoken.gateway import Gateway
    from firsttoken.settings import Settings

MAX_LINE = 1024 * 1024
"""Bytes of a line: longer than any text that a model embeds."""
MAX_WAITS = 10
"""How often in a row a target may ask to wait."""
_PLAIN_EVERY = 20
_WIDTH = 30


class Line(Struct, frozen=True):
    """A line of the file: its text, or what is wrong with it."""

    number: int
    text: str = ""
    wrong: str = ""
    end: int = 0
    """Bytes of the file up to its end."""


class _Object(Struct, frozen=True):
    text: str | None = None
    input: str | None = None


_object = msgspec.json.Decoder(_Object)


def register(commands: Any) -> None:
    """Add the command to those of the group ``cache``."""
    warm = commands.add_parser("warm", help="make the embeddings of a file's texts ahead")
    warm.add_argument("file", type=Path, help='a text a line; .jsonl: objects with "text" or "input"')
    warm.add_argument("--model", required=True, metavar="NAME", help="as in [embeddings.NAME]")
    warm.add_argument("--batch", type=_batch, default=64, metavar="N", help="texts sent at once")
    warm.add_argument("--tenant", default="local", help="whose cache it is (default %(default)s)")
    warm.add_argument("--dimensions", type=int, help="as the clients will ask for")
    warm.add_argument("--input-type", default="", choices=("", "query", "document"), help="likewise")
    warm.set_defaults(run=run)


def _batch(value: str) -> int:
    number = int(value)
    if not 1 <= number <= MAX_INPUTS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_INPUTS}, got {value}")
    return number


def run(parsed: argparse.Namespace) -> int:
    """Run the command; the exit status is 1 when a line failed. Raises ConfigError."""
    return asyncio.run(warm(parsed, config.load()))


async def warm(parsed: argparse.Namespace, settings: Settings) -> int:
    """Make what is missing; see `run`."""
    from firsttoken.gateway import Gateway

    if not parsed.file.is_file():
        raise ConfigError(f"{parsed.file}: expected a file with a text a line")
    gateway = Gateway(settings)
    try:
        embedder = cached(gateway, parsed.model)
        return await Warming(parsed, embedder, settings.timeouts.total).run()
    finally:
        await gateway.aclose()


def cached(gateway: Gateway, model: str) -> CachedEmbedder:
    """Return the embedder of a model with its cache. Raises ConfigError where nothing would be kept."""
    from firsttoken.cache.embedded import CachedEmbedder

    settings = gateway.settings
    name = model if model in gateway.embedders else "*"
    if name not in gateway.embedders:
        known = ", ".join(sorted(gateway.embedders)) or "none is configured"
        raise ConfigError(f"--model {model}: expected the name of an embedding model: {known}")
    if settings.cache.mode != "on":
        raise ConfigError('cache.mode: expected "on"; nothing would read what is made now')
    if not gateway.store.shared:
        raise ConfigError("store: expected one that outlives this process (sqlite, redis, dynamodb, tables)")
    embedder = gateway.embedders[name]
    if isinstance(embedder, CachedEmbedder):
        return embedder
    target = settings.embeddings[name].target
    return CachedEmbedder(embedder, gateway.store, gateway.shadow, settings.cache, target)


def read(path: Path) -> Iterator[Line]:
    """Yield the lines that are not empty, one at a time: files may be larger than memory."""
    objects = path.suffix in (".jsonl", ".ndjson")
    with path.open("rb") as file:
        number = end = 0
        while line := file.readline(MAX_LINE):
            number, end = number + 1, end + len(line)
            if not line.endswith(b"\n") and len(line) == MAX_LINE:
                while len(rest := file.readline(MAX_LINE)) == MAX_LINE:
                    end += len(rest)
                end += len(rest)
                yield Line(number, wrong=f"expected at most {MAX_LINE} bytes", end=end)
            elif line.strip():
                yield _parsed(number, line, end, objects=objects)


def _parsed(number: int, line: bytes, end: int, *, objects: bool) -> Line:
    try:
        if not objects:
            return Line(number, line.decode().rstrip("\r\n"), end=end)
        said = _object.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Line(number, wrong=f"expected {'an object' if objects else 'UTF-8'}: {error}", end=end)
    text = said.input if said.text is None else said.text
    if not text:
        return Line(number, wrong='expected some text in "text" or "input"', end=end)
    return Line(number, text, end=end)


class Warming:
    """One run over a file. Memory: one batch."""

    def __init__(self, parsed: argparse.Namespace, embedder: CachedEmbedder, seconds: float) -> None:
        self._file: Path = parsed.file
        self._size = self._file.stat().st_size
        self._batch: int = parsed.batch
        self._tenant: str = parsed.tenant
        self._request = EmbedRequest(parsed.model, dimensions=parsed.dimensions, input_type=parsed.input_type)
        self._embedder = embedder
        self._seconds = seconds
        self._terminal = sys.stderr.isatty()
        self._told = self._read = 0
        self.known = self.made = self.tokens = self.failed = 0

    async def run(self) -> int:
        """Go through the file; return the exit status. Raises UpstreamError where going on is of no use."""
        waiting: list[Line] = []
        for line in read(self._file):
            self._read = line.end
            if line.wrong:
                self._fail(line, line.wrong)
                continue
            waiting.append(line)
            if len(waiting) == self._batch:
                await self._send(waiting)
                waiting = []
                self._tell()
        if waiting:
            await self._send(waiting)
        self._tell(last=True)
        sys.stdout.write(
            f"{self.made} made ({self.tokens} tokens), {self.known} known, {self.failed} failed\n"
        )
        return 1 if self.failed else 0

    async def _send(self, lines: list[Line]) -> None:
        """Make what is missing of a batch; where the target refuses it, find the lines that are wrong."""
        try:
            done = await self._patiently(lines)
        except UpstreamRefusedError as error:
            if len(lines) == 1:
                self._fail(lines[0], str(error))
                return
            middle = len(lines) // 2
            await self._send(lines[:middle])
            await self._send(lines[middle:])
        except UpstreamError as error:
            self._clear()
            error.add_note(f"{self._file}:{lines[0].number}")
            sys.stderr.write(f"{self._file}:{lines[0].number}: stopped here; run it again to go on\n")
            raise
        else:
            self.known += done.known
            self.made += done.sent
            self.tokens += done.tokens

    async def _patiently(self, lines: list[Line]) -> Any:
        now = asyncio.get_running_loop().time
        request = msgspec.structs.replace(self._request, inputs=tuple([line.text for line in lines]))
        for _ in range(MAX_WAITS):
            call = EmbedCall(request, now() + self._seconds, tenant=self._tenant)
            try:
                return await self._embedder.warm(call)
            except UpstreamRateLimitError as error:
                wait = error.retry_after or 1.0
            await asyncio.sleep(wait)
        return await self._embedder.warm(EmbedCall(request, now() + self._seconds, tenant=self._tenant))

    def _fail(self, line: Line, wrong: str) -> None:
        self.failed += 1
        self._clear()
        sys.stderr.write(f"{self._file}:{line.number}: {wrong}\n")

    def _clear(self) -> None:
        if self._terminal:
            sys.stderr.write("\r\033[K")

    def _tell(self, *, last: bool = False) -> None:
        """Show how far it is: a bar on a terminal, a line now and then elsewhere."""
        self._told += 1
        share = 1.0 if last or not self._size else self._read / self._size
        counts = f"{self.made} made, {self.known} known, {self.failed} failed"
        if self._terminal:
            bar = "#" * round(share * _WIDTH)
            sys.stderr.write(f"\r\033[K[{bar:.<{_WIDTH}}] {share:4.0%} {counts}" + "\n" * last)
        elif self._told % _PLAIN_EVERY == 0:
            sys.stderr.write(f"{self._file}: {share:.0%}, {counts}\n")
        sys.stderr.flush()
