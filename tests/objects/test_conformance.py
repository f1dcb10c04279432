"""What every object storage does alike; the kinds come from the files ``kinds_*.py``."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from firsttoken.errors import StoreError
from tests.objects.conftest import Subject
from tests.objects.kinds import Kind

MIB = 1024 * 1024
TTL = 600.0
NAMES = [
    "acme/job_1/request",
    "a/b//c/",
    "a/./b/../c",
    "50% of #1? a&b=c+d;e",
    'it\'s "quoted"',
    "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n \N{GRINNING FACE}",
    "Case",
    "case",
    "n" * 400,
]


@pytest.mark.parametrize("size", [0, 1, 1000, 300 * 1024, 6 * MIB])
def test_an_object_comes_back_as_it_was_written(subject: Subject, size: int) -> None:
    """Every byte of it, whatever its size."""

    async def main() -> None:
        data = random.Random(size).randbytes(size)
        await subject.objects.put("name", data, TTL)
        found = await subject.objects.get("name", 16 * MIB)
        assert found == data
        assert type(found) is bytes

    subject.run(main())


def test_names_are_kept_apart(subject: Subject) -> None:
    """Names differ as soon as one character of them does, whatever the characters are."""

    async def main() -> None:
        for name in NAMES:
            await subject.objects.put(name, name.encode(), TTL)
        for name in NAMES:
            assert await subject.objects.get(name, MIB) == name.encode()

    subject.run(main())


def test_the_last_write_counts(subject: Subject) -> None:
    """An object is written whatever was there, longer or shorter."""

    async def main() -> None:
        for data in (b"a", b"x" * 2 * MIB, b"b"):
            await subject.objects.put("name", data, TTL)
            assert await subject.objects.get("name", 4 * MIB) == data

    subject.run(main())


def test_what_is_absent(subject: Subject) -> None:
    """Nothing is found where nothing is, and deleting it is no error."""

    async def main() -> None:
        assert await subject.objects.get("absent", MIB) is None
        await subject.objects.delete("absent")

    subject.run(main())


def test_a_deleted_object_is_gone(subject: Subject) -> None:
    """A name that was deleted can be written again; its neighbour stays."""

    async def main() -> None:
        await subject.objects.put("name", b"1", TTL)
        await subject.objects.put("name2", b"2", TTL)
        await subject.objects.delete("name")
        assert await subject.objects.get("name", MIB) is None
        assert await subject.objects.get("name2", MIB) == b"2"
        await subject.objects.put("name", b"3", TTL)
        assert await subject.objects.get("name", MIB) == b"3"

    subject.run(main())


def test_a_larger_object_than_wanted_is_refused(subject: Subject) -> None:
    """An object of the limit is returned; a larger one is a StoreError, not a lot of memory."""

    async def main() -> None:
        await subject.objects.put("name", b"x" * MIB, TTL)
        assert len(await subject.objects.get("name", MIB) or b"") == MIB
        with pytest.raises(StoreError, match=str(MIB - 1)):
            await subject.objects.get("name", MIB - 1)
        assert len(await subject.objects.get("name", MIB) or b"") == MIB

    subject.run(main())


def test_many_at_once(subject: Subject) -> None:
    """Reads and writes at the same time do not mix."""

    async def main() -> None:
        objects = subject.objects
        await asyncio.gather(*[objects.put(f"name/{n}", b"%d" % n * 5000, TTL) for n in range(20)])
        found = await asyncio.gather(*[objects.get(f"name/{n}", MIB) for n in range(20)])
        assert found == [b"%d" % n * 5000 for n in range(20)]

    subject.run(main())


def test_a_closed_storage_opens_again(subject: Subject) -> None:
    """Closing twice is no error, and what was written is still there."""

    async def main() -> None:
        await subject.objects.put("name", b"data", TTL)
        await subject.objects.aclose()
        await subject.objects.aclose()
        assert await subject.objects.get("name", MIB) == b"data"

    subject.run(main())


def test_a_storage_that_is_away_is_a_store_error(kind: Kind, tmp_path: Path) -> None:
    """Where the service cannot be had every method says so by a StoreError, and by nothing else."""
    if kind.unreachable is None:
        pytest.skip(f"{kind.name} cannot be away")

    async def main() -> None:
        objects = kind.unreachable(tmp_path)
        for call in (objects.put("name", b"data", TTL), objects.get("name", MIB), objects.delete("name")):
            with pytest.raises(StoreError) as caught:
                await call
            assert "127.0.0.1" not in str(caught.value)
        await objects.aclose()

    asyncio.run(main())
