"""Every kind of index: what it must find, and what it must never find."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from cache.azure_search import AzureSearch
from cache.postgres import postgres
from policies.fleet import FakeStore

from firsttoken.cache import pgvector, search
from firsttoken.cache.crypto import Aes256Gcm, Checksum
from firsttoken.cache.index import MemoryIndex, Question
from firsttoken.cache.index_sealed import SealedIndex
from firsttoken.cache.index_store import StoredIndex
from firsttoken.cache.pgvector import PgvectorIndex
from firsttoken.cache.search import SearchIndex
from firsttoken.embedding import pack
from firsttoken.policies.shadow import Shadow
from firsttoken.providers.http import HttpClient

KINDS = ["memory", "stored", "pgvector", "search", "sealed"]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """The machine may be busy."""
    monkeypatch.setattr(pgvector, "COMMAND_SECONDS", 60.0)
    monkeypatch.setattr(search, "SECONDS", 60.0)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@asynccontextmanager
async def opened(kind: str, request: Any) -> AsyncIterator[Any]:
    if kind in ("memory", "stored"):
        memory, shadow = MemoryIndex(1000), Shadow()
        index = (
            memory
            if kind == "memory"
            else StoredIndex(memory, FakeStore(), shadow, ttl=3600.0, seal=Checksum())
        )
        yield index
        await shadow.settle(5)
        await index.aclose()
    elif kind == "pgvector":
        url = request.getfixturevalue("database")
        index = PgvectorIndex(url, entries=1000, ttl=3600.0, table=f"t{time.monotonic_ns()}")
        yield index
        await index.aclose()
    elif kind == "sealed":
        yield SealedIndex(MemoryIndex(1000), Aes256Gcm(bytes(32)))
    else:
        client = HttpClient()
        async with AzureSearch() as server:
            yield SearchIndex(server.url, client, entries=1000, ttl=3600.0)
            await client.aclose()


def question(key: str, vector: list[float], text: str = "") -> Question:
    return Question(key, text or f"text of {key}", f"form of {key}", pack(vector), time.time())


def test_an_index_finds_the_nearest_of_its_scope(kind, request):
    """The nearest first, with cosine and words; never one of another scope, nor what was removed."""

    async def work():
        async with opened(kind, request) as index:
            assert list(await index.nearest("a", pack([1.0, 0.0]), 5)) == []
            await index.add("a", question("k1", [1.0, 0.0]))
            await index.add("a", question("k2", [3.0, 4.0], 'O\'Brien asked: "how — & why?" 漢字'))
            await index.add("b", question("k3", [1.0, 0.0]))
            found = await index.nearest("a", pack([1.0, 0.0]), 5)
            assert [(one.key, one.text) for one in found] == [
                ("k1", "text of k1"),
                ("k2", 'O\'Brien asked: "how — & why?" 漢字'),
            ]
            assert [one.score for one in found] == pytest.approx([1.0, 0.6], abs=2e-3)
            assert abs(found[0].asked - time.time()) < 3600
            assert [one.key for one in await index.nearest("a", pack([1.0, 0.0]), 1)] == ["k1"]
            await index.add("a", question("k1", [0.0, -1.0]))
            assert [one.key for one in await index.nearest("a", pack([1.0, 0.0]), 1)] == ["k2"]
            await index.remove("a", "k2")
            await index.remove("a", "never there")
            assert [one.key for one in await index.nearest("a", pack([1.0, 0.0]), 5)] == ["k1"]
            await index.drop("a")
            await index.drop("never there")
            assert list(await index.nearest("a", pack([1.0, 0.0]), 5)) == []
            assert [one.key for one in await index.nearest("b", pack([1.0, 0.0]), 5)] == ["k3"]

    asyncio.run(work())


def test_scopes_never_mix(kind, request):
    """In a random mass of questions with vectors all alike each scope finds its own, and all of them."""

    async def work():
        rng = Random(5)
        async with opened(kind, request) as index:
            for number in range(200):
                await index.add(f"s{number % 8}", question(f"k{number}", [1.0, rng.random() / 100, 0.0]))
            for scope in range(8):
                found = await index.nearest(f"s{scope}", pack([1.0, 0.0, 0.0]), 25)
                assert len(found) == 25
                assert {int(one.key[1:]) % 8 for one in found} == {scope}
            assert list(await index.nearest("s8", pack([1.0, 0.0, 0.0]), 25)) == []

    asyncio.run(work())


def test_a_sealed_index_tells_the_service_no_words():
    """What is handed on are ciphertexts; what does not open with our key, or was moved, is not found."""

    async def work():
        inner = MemoryIndex(1000)
        index = SealedIndex(inner, Aes256Gcm(bytes(32)))
        await index.add("s", question("k", [1.0]))
        held = inner.newest("s", 1)[0]
        assert "text" not in held.text
        assert "form" not in held.canonical
        assert [one.text for one in await index.nearest("s", pack([1.0]), 9)] == ["text of k"]
        assert await index.equal("s", "form of k") is None
        inner.put("t", held)
        inner.put("s", Question("other", held.text, "", held.vector))
        inner.put("s", Question("garbage", "not base64 \u00e9", "", held.vector))
        assert list(await index.nearest("t", pack([1.0]), 9)) == []
        assert [one.key for one in await index.nearest("s", pack([1.0]), 9)] == ["k"]

    asyncio.run(work())
