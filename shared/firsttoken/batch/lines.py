"""The lines of a batch's file: split, checked one by one, and refused with their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from msgspec import Raw, Struct

from firsttoken.batch.batch import LineError
from firsttoken.errors import FirstTokenError, RequestError
from firsttoken.wire import openai_chat
from firsttoken.wire.json_depth import deeper_than

MAX_ERRORS = 50
"""Errors that are told; so many wrong lines end the check."""
MAX_CUSTOM_ID = 256
_EXPECTED = 'expected {"custom_id": ..., "method": "POST", "url": ..., "body": {...}}'
_PAUSE = 100
"""Lines that are checked without giving way to others."""


class Line(Struct, frozen=True):
    """One request: ``number`` counts from 0, without empty lines; ``place`` is its line, from 1."""

    number: int
    place: int
    custom_id: str
    body: bytes


class _Written(Struct):
    custom_id: str
    method: str
    url: str
    body: Raw


_written = msgspec.json.Decoder(_Written)


class TooLongError(Exception):
    """A line has more bytes than it may have; ``line`` is its number in the file."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} is too long")
        self.line = line


async def split(pieces: AsyncIterator[bytes], limit: int) -> AsyncGenerator[tuple[int, bytes]]:
    """Yield the lines that are not empty, each with its number in the file.

    Memory: a piece and a line. Raises TooLongError for a line of more than ``limit`` bytes.
    """
    rest = b""
    place = 0
    async for piece in pieces:
        found = (rest + piece).split(b"\n")
        rest = found.pop()
        for raw in found:
            place += 1
            if len(raw) > limit:
                raise TooLongError(place)
            if raw.strip():
                yield place, raw
        if len(rest) > limit:
            raise TooLongError(place + 1)
    if rest.strip():
        yield place + 1, rest


async def read(pieces: AsyncIterator[bytes], limit: int, start: int = 0) -> AsyncGenerator[Line]:
    """Yield the requests of a file that was checked before, from number ``start`` on."""
    number = 0
    async with aclosing(split(pieces, limit)) as lines:
        async for place, raw in lines:
            if number >= start:
                written = _written.decode(raw)
                yield Line(number, place, written.custom_id, bytes(written.body))
            number += 1
            if number % _PAUSE == 0:
                await asyncio.sleep(0)


class Check:
    """The check of a file. Memory: the ids of all lines, and at most `MAX_ERRORS` errors."""

    def __init__(self, endpoint: str, max_lines: int, max_depth: int) -> None:
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._max_depth = max_depth
        self._seen: set[str] = set()
        self.ids: list[str] = []
        self.model = ""
        self.errors: list[LineError] = []

    def take(self, place: int, raw: bytes) -> Line | None:
        """Check one line; return it, or note what is wrong with it."""
        if len(self.ids) >= self._max_lines:
            message = f"The file has too many lines; expected at most {self._max_lines}."
            self.note("too_many_lines", message, place)
            return None
        try:
            written = _written.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.note("invalid_json_line", f"The line is not a request: {error}; {_EXPECTED}.", place)
            return None
        if wrong := self._wrong(written):
            self.note(*wrong, place, wrong[0].partition("_")[2])
            return None
        line = Line(len(self.ids), place, written.custom_id, bytes(written.body))
        try:
            self._check_body(line.body)
        except FirstTokenError as error:
            self.note(error.code or error.type, str(error), place, f"body.{error.param or ''}".rstrip("."))
            return None
        self._seen.add(line.custom_id)
        self.ids.append(line.custom_id)
        return line

    def note(self, code: str, message: str, line: int | None = None, param: str = "") -> None:
        """Note an error."""
        self.errors.append(LineError(code, message, line, param or None))

    @property
    def is_over(self) -> bool:
        """Return whether enough is known to refuse the file."""
        return len(self.errors) >= MAX_ERRORS or any(error.code == "too_many_lines" for error in self.errors)

    def _check_body(self, body: bytes) -> None:
        """Raise a RequestError unless ``body`` is a chat completion for the model of the lines before."""
        request, _ = openai_chat.read_request(body)
        if deeper_than(body, self._max_depth):
            message = f"The body is nested deeper than {self._max_depth} levels."
            raise RequestError(message, code="nested_too_deep")
        if request.stream:
            message = "stream: expected false or nothing: answers of a batch come whole."
            raise RequestError(message, param="stream", code="invalid_value")
        if self.model and request.model != self.model:
            message = f"model: expected {self.model!r} as in the lines before, got {request.model[:80]!r}."
            raise RequestError(message, param="model", code="mismatched_model")
        self.model = request.model

    def _wrong(self, written: _Written) -> tuple[str, str] | None:
        """Return the code and the words for what is wrong around a request, or None."""
        name = written.custom_id
        if not 0 < len(name) <= MAX_CUSTOM_ID:
            return "invalid_custom_id", f"custom_id: expected 1 to {MAX_CUSTOM_ID} characters."
        if name in self._seen:
            return "duplicate_custom_id", f"custom_id: {name!r} was used in a line before; expected another."
        if written.method != "POST":
            return "invalid_method", f'method: expected "POST", got {written.method[:20]!r}.'
        if written.url != self._endpoint:
            return "invalid_url", f'url: expected "{self._endpoint}", got {written.url[:80]!r}.'
        return None
