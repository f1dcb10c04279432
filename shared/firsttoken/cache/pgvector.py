"""The index in PostgreSQL with pgvector 0.8 or newer: many instances share it, and it may grow.

Each number of dimensions has a table of its own, made at the first write (the role needs CREATE on the
schema, and on the database unless the extension is there)::

    firsttoken_similar_384(scope, key, question, embedding halfvec(384), asked timestamptz)
        primary key (scope, key); hnsw (embedding halfvec_cosine_ops); (asked); (scope, asked)

Every statement names the scope. For a small scope PostgreSQL compares all of its rows; in a large one it
walks the HNSW graph until enough rows of the scope are found (``hnsw.iterative_scan``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from firsttoken.cache.index import Near, Question
from firsttoken.embedding import unpack
from firsttoken.errors import ConfigError, StoreError

MAX_CONNECTIONS = 4
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 2.0
IDLE_SECONDS = 60.0
MAX_DIMENSIONS = 4000
"""What an HNSW index of halfvec takes."""
PRUNED_EVERY = 64
"""Additions of this process between two that delete what is old, and what is too much in a scope."""
_UNKNOWN_TABLE = "42P01"

_CREATE = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS {table} (
    scope text NOT NULL,
    key text NOT NULL,
    question text NOT NULL,
    embedding halfvec({dimensions}) NOT NULL,
    asked timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX IF NOT EXISTS {table}_embedding ON {table} USING hnsw (embedding halfvec_cosine_ops);
CREATE INDEX IF NOT EXISTS {table}_scope ON {table} (scope, asked);
CREATE INDEX IF NOT EXISTS {table}_asked ON {table} (asked);
"""
_ADD = """
INSERT INTO {table} (scope, key, question, embedding, asked)
VALUES ($1, $2, $3, $4::real[]::halfvec, to_timestamp($5))
ON CONFLICT (scope, key) DO UPDATE
SET question = excluded.question, embedding = excluded.embedding, asked = excluded.asked
"""
_NEAREST = """
SELECT key, question, 1 - (embedding <=> $2::real[]::halfvec) AS score, extract(epoch FROM asked) AS asked
FROM {table} WHERE scope = $1 ORDER BY embedding <=> $2::real[]::halfvec LIMIT $3
"""
_PRUNE = """
DELETE FROM {table} WHERE asked < now() - make_interval(secs => $3)
OR (scope, key) IN (SELECT scope, key FROM {table} WHERE scope = $1 ORDER BY asked DESC OFFSET $2)
"""
_TABLES = """
SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid)
AND c.relname ~ ('^' || $1 || '_[0-9]+$')
"""


class PgvectorIndex:
    """Questions in PostgreSQL. ``url`` is a connection URI (``postgresql://user:password@host/database``).

    Each scope holds ``entries`` questions and some more, each for ``ttl`` seconds. At most `MAX_CONNECTIONS`
    connections a process, closed when idle. No statement is kept prepared; a pooler in between must let the
    setting ``hnsw.iterative_scan`` pass. Raises ConfigError where asyncpg is not installed.
    """

    def __init__(self, url: str, *, entries: int, ttl: float, table: str = "firsttoken_similar") -> None:
        if find_spec("asyncpg") is None:
            raise ConfigError("semantic.index: 'pgvector' needs the extra 'pgvector'")
        if not url.startswith(("postgresql://", "postgres://")):
            raise ConfigError("semantic.index_url: expected postgresql://user:password@host/database")
        self._url = url
        self._entries = entries
        self._ttl = ttl
        self._table = table
        self._made: set[int] = set()
        self._added = 0
        self._pool: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def equal(self, scope: str, canonical: str) -> Near | None:  # noqa: ARG002 - of the protocol
        """Find nothing: that would be another round trip for what `nearest` finds as well."""
        return None

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return the nearest questions; see `VectorIndex`."""
        dimensions = len(vector) // 4
        if not 0 < dimensions <= MAX_DIMENSIONS:
            return []
        rows = await self._run("fetch", dimensions, _NEAREST, scope, list(unpack(vector)), count)
        return [Near(row["key"], row["question"], row["score"], float(row["asked"])) for row in rows or ()]

    async def add(self, scope: str, question: Question) -> None:
        """Add a question, and from time to time delete what is old; see `VectorIndex`."""
        dimensions = len(question.vector) // 4
        if not 0 < dimensions <= MAX_DIMENSIONS or "\0" in question.text:  # no text of PostgreSQL holds a NUL
            return
        if dimensions not in self._made:
            await self._create(dimensions)
        values = list(unpack(question.vector))
        row = (scope, question.key, question.text, values, question.asked)
        await self._run("execute", dimensions, _ADD, *row)
        self._added += 1
        if self._added % PRUNED_EVERY == 0:
            await self._run("execute", dimensions, _PRUNE, scope, self._entries, self._ttl)

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question, of whatever dimensions; see `VectorIndex`."""
        for dimensions in await self._tables():
            await self._run(
                "execute", dimensions, "DELETE FROM {table} WHERE scope = $1 AND key = $2", scope, key
            )

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope; see `VectorIndex`."""
        for dimensions in await self._tables():
            await self._run("execute", dimensions, "DELETE FROM {table} WHERE scope = $1", scope)

    async def aclose(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None and self._loop is asyncio.get_running_loop():
            try:
                async with asyncio.timeout(COMMAND_SECONDS):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def _tables(self) -> list[int]:
        rows = await self._run("fetch", 0, _TABLES, self._table)
        return [int(row["relname"].rpartition("_")[2]) for row in rows or ()]

    async def _create(self, dimensions: int) -> None:
        try:
            await self._run("execute", dimensions, _CREATE.replace("{dimensions}", str(dimensions)))
        except StoreError:
            # Two that make the same thing at once: one of them is told that it is there.
            await self._run("execute", dimensions, "SELECT 1 FROM {table} LIMIT 0")
        self._made.add(dimensions)

    async def _run(self, method: str, dimensions: int, statement: str, *values: Any) -> Any:
        """Run a statement on the table of so many dimensions; None where there is no such table yet."""
        import asyncpg

        statement = statement.replace("{table}", f"{self._table}_{dimensions}")
        try:
            async with asyncio.timeout(CONNECT_SECONDS + COMMAND_SECONDS):
                return await getattr(await self._connected(), method)(statement, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            if method == "fetch" and getattr(error, "sqlstate", "") == _UNKNOWN_TABLE:
                return None
            raise StoreError(f"The index (pgvector) cannot be had ({type(error).__name__}).") from error

    async def _connected(self) -> Any:
        import asyncpg

        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            self._loop = loop
            self._pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=MAX_CONNECTIONS,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                max_inactive_connection_lifetime=IDLE_SECONDS,
                statement_cache_size=0,
                # Known to the server once the extension is loaded; without it a filter may leave too few.
                server_settings={"hnsw.iterative_scan": "strict_order", "application_name": "firsttoken"},
            )
        await self._pool  # makes no connection yet
        return self._pool
