"""The index in a real PostgreSQL: its tables, its bounds, and what happens when it is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from random import Random

import pytest
from cache.postgres import postgres

from firsttoken.cache import pgvector
from firsttoken.cache.index import Question
from firsttoken.cache.pgvector import MAX_DIMENSIONS, PRUNED_EVERY, PgvectorIndex
from firsttoken.embedding import pack
from firsttoken.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """The machine may be busy."""
    monkeypatch.setattr(pgvector, "COMMAND_SECONDS", 60.0)


def question(key: str, vector: bytes, asked: float | None = None) -> Question:
    return Question(key, f"text of {key}", "", vector, time.time() if asked is None else asked)


def random_vector(rng: Random, size: int = 64) -> bytes:
    return pack([rng.gauss(0, 1) for _ in range(size)])


def test_the_graph_is_walked_until_the_scope_has_enough(database):
    """Among many rows of others a small scope finds its own; by the HNSW index, of chance, nearly all."""

    async def work():
        rng = Random(6)
        index = PgvectorIndex(database, entries=10_000, ttl=3600.0, table="walked")
        for number in range(20):
            await index.add("mine", question(f"k{number}", random_vector(rng)))
        pool = await index._connected()
        await pool.execute(
            "INSERT INTO walked_64 SELECT 'theirs', n::text, 'q', (SELECT array_agg(random() + (n + m) * 0)"
            " FROM generate_series(1, 64) m)::real[]::halfvec, now() FROM generate_series(1, 3000) n"
        )
        await pool.execute("ANALYZE walked_64")
        assert len(await index.nearest("mine", random_vector(rng), 20)) == 20
        async with pool.acquire() as connection, connection.transaction():
            for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
                await connection.execute(f"SET LOCAL {setting} = off")
            await connection.execute(
                "DROP INDEX walked_64_scope; ALTER TABLE walked_64 DROP CONSTRAINT walked_64_pkey"
            )
            statement = pgvector._NEAREST.replace("{table}", "walked_64")
            values = ("mine", [1.0] * 64, 20)
            plan = await connection.fetch(f"EXPLAIN {statement}", *values)
            assert any("walked_64_embedding" in row[0] for row in plan)
            assert len(await connection.fetch(statement, *values)) >= 18
        await index.aclose()

    asyncio.run(work())


def test_what_is_old_or_too_much_is_deleted(database):
    """Now and then the oldest of a scope go beyond its limit, and whatever is older than answers live."""

    async def work():
        rng = Random(7)
        index = PgvectorIndex(database, entries=10, ttl=3600.0, table="pruned")
        now = time.time()
        await index.add("other", question("old", random_vector(rng), now - 4000))
        await index.add("other", question("young", random_vector(rng), now - 3000))
        for number in range(PRUNED_EVERY - 2):
            await index.add("s", question(f"k{number}", random_vector(rng), now - 100 + number))
        assert {one.key for one in await index.nearest("other", random_vector(rng), 99)} == {"young"}
        newest = {f"k{number}" for number in range(PRUNED_EVERY - 12, PRUNED_EVERY - 2)}
        assert {one.key for one in await index.nearest("s", random_vector(rng), 99)} == newest
        await index.aclose()

    asyncio.run(work())


def test_instances_may_begin_at_once(database):
    """Several that make the same tables at the same time all succeed, and share what they add."""

    async def work():
        rng = Random(8)
        instances = [PgvectorIndex(database, entries=99, ttl=3600.0, table="begun") for _ in range(4)]
        added = [one.add("s", question(f"k{n}", random_vector(rng))) for n, one in enumerate(instances)]
        await asyncio.gather(*added)
        for one in instances:
            assert len(await one.nearest("s", random_vector(rng), 9)) == 4
            await one.aclose()

    asyncio.run(work())


def test_embedders_of_other_dimensions_have_tables_of_their_own(database):
    """Vectors of two lengths never meet, and one question is removed from both."""

    async def work():
        index = PgvectorIndex(database, entries=99, ttl=3600.0, table="sizes")
        await index.add("s", question("a", pack([1.0, 0.0])))
        await index.add("s", question("b", pack([1.0, 0.0, 0.0])))
        await index.add("s", question("a", pack([1.0, 0.0, 0.0])))
        assert {one.key for one in await index.nearest("s", pack([1.0, 0.0]), 9)} == {"a"}
        assert {one.key for one in await index.nearest("s", pack([1.0, 0.0, 0.0]), 9)} == {"a", "b"}
        await index.remove("s", "a")
        assert await index.nearest("s", pack([1.0, 0.0]), 9) == []
        assert {one.key for one in await index.nearest("s", pack([1.0, 0.0, 0.0]), 9)} == {"b"}
        await index.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("vector", [b"", pack([1.0] * (MAX_DIMENSIONS + 1))], ids=["none", "too long"])
def test_what_the_index_cannot_hold_is_left_out(database, vector):
    """No vector, too many dimensions, or a text with a NUL: neither stored nor an error."""

    async def work():
        index = PgvectorIndex(database, entries=99, ttl=3600.0, table="left_out")
        await index.add("s", question("k", vector))
        await index.add("s", Question("k", "a\0b", "", pack([1.0])))
        assert await index.nearest("s", vector, 9) == []
        assert await index.nearest("s", pack([1.0]), 9) == []
        await index.aclose()

    asyncio.run(work())


def test_a_new_event_loop_gets_connections_of_its_own(database):
    """An index outlives the loop that it was first used in."""
    index = PgvectorIndex(database, entries=99, ttl=3600.0, table="loops")

    async def add(number: int) -> int:
        await index.add("s", question(f"k{number}", pack([1.0, 2.0])))
        found = len(await index.nearest("s", pack([1.0, 2.0]), 9))
        await index.aclose()
        return found

    assert [asyncio.run(add(number)) for number in range(2)] == [1, 2]


def test_a_database_that_is_gone_is_a_store_error():
    """Whatever goes wrong is a StoreError that names no address and no password."""

    async def work(url):
        index = PgvectorIndex(url, entries=99, ttl=3600.0)
        for failing in (
            index.nearest("s", pack([1.0]), 1),
            index.add("s", question("k", pack([1.0]))),
            index.remove("s", "k"),
        ):
            with pytest.raises(StoreError) as raised:
                await failing
            assert "127.0.0.1" not in str(raised.value)
        await index.aclose()

    asyncio.run(work("postgresql://test:secret@127.0.0.1:1/postgres"))


@pytest.mark.parametrize(
    ("url", "installed", "message"),
    [
        ("mysql://x", True, "expected postgresql://"),
        ("", True, "index_url"),
        ("postgresql://x", False, "extra"),
    ],
)
def test_what_cannot_be_used_is_said_at_start(monkeypatch, url, installed, message):
    """A URL of something else, none at all, or a missing package is a ConfigError."""
    monkeypatch.setattr(pgvector, "find_spec", lambda _name: object() if installed else None)
    with pytest.raises(ConfigError, match=message):
        PgvectorIndex(url, entries=99, ttl=3600.0)
