"""The index in Azure AI Search, against a fake of its REST API (see `azure_search`)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from cache.azure_search import AzureSearch

from firsttoken.cache import search
from firsttoken.cache.index import Question
from firsttoken.cache.search import PRUNED_EVERY, SearchIndex
from firsttoken.embedding import pack
from firsttoken.errors import ConfigError, StoreError
from firsttoken.providers.http import HttpClient


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """The machine may be busy."""
    monkeypatch.setattr(search, "SECONDS", 60.0)


def question(key: str, vector: list[float], asked: float | None = None) -> Question:
    return Question(key, f"text of {key}", "", pack(vector), time.time() if asked is None else asked)


@asynccontextmanager
async def served(**fields):
    client = HttpClient()
    async with AzureSearch() as server:
        yield server, SearchIndex(server.url, client, **{"entries": 99, "ttl": 3600.0, **fields})
        await client.aclose()


def test_the_search_index_is_made_at_the_first_write():
    """Reading needs none; the first write makes it, with a filterable scope and the vectors' dimensions."""

    async def work():
        async with served() as (server, index):
            assert await index.nearest("s", pack([1.0, 0.0]), 3) == []
            assert await index.equal("s", "form") is None
            await index.add("s", question("a", [1.0, 0.0]))
            await index.add("s", question("b", [0.0, 1.0]))
            made = [body for method, _, body in server.requests if method == "PUT"]
            assert len(made) == 1
            fields = {field["name"]: field for field in made[0]["fields"]}
            assert fields["id"]["key"]
            assert fields["scope"]["filterable"]
            assert fields["embedding"]["dimensions"] == 2
            assert made[0]["vectorSearch"]["algorithms"][0]["hnswParameters"] == {"metric": "cosine"}

    asyncio.run(work())


def test_every_query_filters_by_scope_before_it_looks_for_neighbours():
    """A quote in a scope ends no filter."""

    async def work():
        async with served() as (server, index):
            await index.add("s", question("a", [1.0, 0.0]))
            await index.nearest("s", pack([1.0, 0.0]), 3)
            _, _, query = server.requests[-1]
            assert (query["filter"], query["vectorFilterMode"]) == ("scope eq 's'", "preFilter")
            assert search._of("x' or 'a' eq 'a") == "scope eq 'x'' or ''a'' eq ''a'"

    asyncio.run(work())


def test_what_is_old_or_too_much_is_deleted():
    """Now and then the oldest of a scope go beyond its limit, and whatever is older than answers live."""

    async def work():
        async with served(entries=10) as (server, index):
            now = time.time()
            await index.add("other", question("old", [1.0, 0.0], now - 4000))
            await index.add("other", question("young", [1.0, 0.0], now - 3000))
            for number in range(PRUNED_EVERY - 2):
                await index.add("s", question(f"k{number}", [1.0, 0.0], now - 100 + number))
            left = {(one["scope"], one["key"]) for one in server.documents.values()}
            newest = {("s", f"k{number}") for number in range(PRUNED_EVERY - 12, PRUNED_EVERY - 2)}
            assert left == newest | {("other", "young")}

    asyncio.run(work())


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 403}, {"garbage": True}])
def test_what_the_service_does_not_do_is_a_store_error(fault):
    """An error status or an answer that is no JSON is a StoreError that names no address."""

    async def work():
        async with served() as (server, index):
            await index.add("s", question("a", [1.0, 0.0]))
            for name, value in fault.items():
                setattr(server, name, value)
            for failing in (
                index.nearest("s", pack([1.0, 0.0]), 1),
                index.add("s", question("k", [1.0, 0.0])),
                index.remove("s", "k"),
            ):
                with pytest.raises(StoreError) as raised:
                    await failing
                assert "127.0.0.1" not in str(raised.value)

    asyncio.run(work())


def test_a_document_that_is_refused_is_a_store_error():
    """The service answers for each document; vectors of other dimensions it does not take."""

    async def work():
        async with served() as (server, index):
            await index.add("s", question("a", [1.0, 0.0]))
            with pytest.raises(StoreError):
                await index.add("s", question("b", [1.0, 0.0, 0.0]))
            with pytest.raises(StoreError):
                await index.nearest("s", pack([1.0, 0.0, 0.0]), 3)
            server.refuses = True
            with pytest.raises(StoreError):
                await index.add("s", question("c", [1.0, 0.0]))

    asyncio.run(work())


def test_a_service_that_hangs_is_given_up(monkeypatch):
    """A request has its time, and no more."""
    monkeypatch.setattr(search, "SECONDS", 0.05)

    async def work():
        async with served() as (server, index):
            server.hangs = True
            with pytest.raises(StoreError, match="DeadlineError"):
                await index.nearest("s", pack([1.0]), 1)

    asyncio.run(work())


def test_scores_are_turned_into_cosines():
    """The service's score of a cosine is 1 / (1 + distance)."""
    assert [search._cosine(1 / (1 + (1 - cosine))) for cosine in (1.0, 0.8, 0.0, -1.0)] == pytest.approx(
        [1.0, 0.8, 0.0, -1.0]
    )
    assert search._cosine(0.0) == -1.0


@pytest.mark.parametrize(
    "url", ["", "https://x.search.windows.net", "ftp://x/indexes/a", "https://x/indexes/a/b"]
)
def test_a_url_of_something_else_is_said_at_start(url):
    """What is expected is shown."""
    with pytest.raises(ConfigError, match=r"https://SERVICE\.search\.windows\.net/indexes/INDEX"):
        SearchIndex(url, HttpClient(), entries=99, ttl=3600.0)


def test_without_a_key_an_identity_is_asked():
    """A token of Entra goes with the request."""

    async def work():
        client = HttpClient()
        async with AzureSearch() as server:
            index = SearchIndex(server.url.partition("?")[0], client, entries=99, ttl=3600.0)

            async def token() -> tuple[str, str]:
                return "authorization", "Bearer made-up"

            index._authorization = token
            with pytest.raises(StoreError, match="403"):  # the fake knows its key only
                await index.nearest("s", pack([1.0]), 1)
        await client.aclose()

    asyncio.run(work())
