"""The check of a batch's file, its limits, and the names of lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from virtual_time import run, wall

from firsttoken.batch.lines import MAX_ERRORS, Check, TooLongError, read, split
from firsttoken.batch.translate import UNKNOWN, key_of, number_of
from firsttoken.gateway import Gateway
from firsttoken.settings import Batch as BatchSettings
from firsttoken.settings import Server
from tests.batch.batching import batches_with, jsonl, line, requests, settings_of, submitted, ticked

ENDPOINT = "/v1/chat/completions"


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"\n \n"])
def test_lines_are_the_same_however_they_arrive(size: int, end: bytes) -> None:
    """Lines are split anywhere; empty ones are left out, and still counted where they stand."""
    data = b"a\n\nbb\r\n" + "ü".encode() + end

    async def found() -> list[tuple[int, bytes]]:
        return [(place, raw.strip()) async for place, raw in split(pieces(data, size), 100)]

    assert asyncio.run(found()) == [(1, b"a"), (3, b"bb"), (4, "ü".encode())]


@pytest.mark.parametrize("data", [b"x" * 101, b"ok\n" + b"x" * 101 + b"\n", b"ok\n" + b"x" * 101])
def test_long_lines_end_the_reading(data: bytes) -> None:
    """A line that is too long is told by its number, wherever it ends."""

    async def found() -> None:
        with pytest.raises(TooLongError) as caught:
            async for _ in split(pieces(data, 10), 100):
                pass
        assert caught.value.line == data.count(b"ok") + 1

    asyncio.run(found())


def test_reading_goes_on_from_a_number() -> None:
    """Requests are numbered without empty lines."""

    async def found() -> list[str]:
        data = requests(3).replace(b"\n", b"\n\n")
        return [one.custom_id async for one in read(pieces(data, 50), 1000, 1)]

    assert asyncio.run(found()) == ["id-1", "id-2"]


@pytest.mark.parametrize(
    ("row", "code", "param", "says"),
    [
        ([], "invalid_json_line", None, "custom_id"),
        ({**line(0), "custom_id": 5}, "invalid_json_line", None, "Expected `str`"),
        ({**line(0), "custom_id": ""}, "invalid_custom_id", "custom_id", "1 to 256"),
        ({**line(0), "custom_id": "x" * 257}, "invalid_custom_id", "custom_id", "1 to 256"),
        ({**line(0), "method": "PUT"}, "invalid_method", "method", 'expected "POST"'),
        ({**line(0), "url": "/v1/embeddings"}, "invalid_url", "url", ENDPOINT),
        ({**line(0), "body": {"model": "m"}}, "invalid_value", "body.messages", "messages"),
        (line(0, stream=True), "invalid_value", "body.stream", "expected false"),
        (line(0, metadata={"a": [[[[[[[[[[]]]]]]]]]]}), "invalid_value", "body.metadata[...]", "metadata"),
    ],
)
def test_wrong_lines(row: Any, code: str, param: str | None, says: str) -> None:
    """Each error names what is wrong, what was expected, and the line."""
    check = Check(ENDPOINT, 10, 20)
    assert check.take(7, json.dumps(row).encode()) is None
    (error,) = check.errors
    assert (error.code, error.param, error.line) == (code, param, 7)
    assert says in error.message


def failed(content: bytes, **sections: Any) -> list[tuple[str, int | None]]:
    """Run a batch of this file and return the errors that it failed with."""
    found: list[tuple[str, int | None]] = []

    async def within() -> None:
        gateway = Gateway(settings_of(**sections))
        batches = batches_with(gateway, wall)
        try:
            batch = await ticked(batches, await submitted(batches, content))
            assert batch.state == "failed"
            found.extend((error.code, error.line) for error in batch.errors)
        finally:
            await gateway.aclose()

    run(within())
    return found


def test_limits_of_a_file() -> None:
    """Too many lines, too long a line, too deep a body, no line, and an unknown model are told as such."""
    assert failed(requests(3), batch=BatchSettings(max_lines=2)) == [("too_many_lines", 3)]
    long = jsonl(line(0), line(1, "x" * 2000))
    assert failed(long, batch=BatchSettings(max_line_bytes=1024)) == [("line_too_long", 2)]
    assert failed(b"\n\n") == [("empty_file", None)]
    deep = jsonl(
        line(0, tools=[{"type": "function", "function": {"name": "f", "parameters": {"a": {"b": {}}}}}])
    )
    assert failed(deep, server=Server(log=False, max_json_depth=4)) == [("nested_too_deep", 1)]
    assert failed(jsonl(line(0, model="other"))) == [("model_not_found", 1)]


def test_only_so_many_errors_are_told() -> None:
    """A file of nothing but wrong lines ends the check early."""
    assert len(failed(b"{}\n" * 500)) == MAX_ERRORS


def test_names_of_lines_at_a_provider() -> None:
    """A line's name there gives back its number, and nothing else does."""
    assert [number_of(key_of(number)) for number in (0, 7, 49_999)] == [0, 7, 49_999]
    for name in (
        None,
        5,
        "",
        "line",
        "line1",
        "lineabcdefg",
        "line00000010",
        "line" + chr(0x660) * 7,
        "id-1",
    ):
        assert number_of(name) == UNKNOWN
