"""The index in Azure AI Search, over its REST API: many instances share it, and it may grow.

The search index is made at the first write, with the number of dimensions that the embedder has; another
embedder needs another search index. Making it takes the role Search Service Contributor or an admin key,
reading and writing Search Index Data Contributor. Its documents are ``id``, ``scope``, ``key``, ``question``,
``asked`` and ``embedding``; every query filters by scope before it looks for neighbours. What was written is
found a second or two later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct

from firsttoken.cache.index import Near, Question
from firsttoken.embedding import unpack
from firsttoken.errors import ConfigError, FirstTokenError, StoreError
from firsttoken.providers.http import HttpClient

API_VERSION = "2025-09-01"
ENTRA_SCOPE = "https://search.azure.com/.default"
SECONDS = 2.0
"""Of one request."""
PRUNED_EVERY = 64
"""Additions of this process between two that delete what is old, and what is too much in a scope."""
MAX_DELETED = 1000
"""Documents in one request: the service's limit."""
MAX_BODY = 4 * 1024 * 1024


class _Document(Struct, kw_only=True):
    id: str = ""
    key: str = ""
    question: str = ""
    asked: int = 0
    score: float = msgspec.field(default=1.0, name="@search.score")


class _Found(Struct):
    value: list[_Document] = []
    count: int = msgspec.field(default=0, name="@odata.count")


class _Written(Struct):
    status: bool
    key: str = ""


class _Results(Struct):
    value: list[_Written]


class SearchIndex:
    """Questions in one search index.

    ``url`` is ``https://SERVICE.search.windows.net/indexes/INDEX``, with ``?api-key=KEY`` where a key is used
    in place of an identity. Each scope holds ``entries`` questions and some more, each for ``ttl`` seconds.
    Raises ConfigError.
    """

    def __init__(self, url: str, client: HttpClient, *, entries: int, ttl: float) -> None:
        parts = urlsplit(url)
        name = parts.path.removeprefix("/indexes/").rstrip("/")
        if parts.scheme not in {"https", "http"} or not parts.netloc or not name or "/" in name:
            raise ConfigError(
                "semantic.index_url: expected https://SERVICE.search.windows.net/indexes/INDEX[?api-key=KEY]"
            )
        self._base = f"{parts.scheme}://{parts.netloc}/indexes/{name}"
        self._name = name
        self._client = client
        self._entries = entries
        self._ttl = ttl
        self._added = 0
        self._authorization = _authorization(parse_qs(parts.query).get("api-key", [""])[0])

    async def equal(self, scope: str, canonical: str) -> Near | None:  # noqa: ARG002 - of the protocol
        """Find nothing: that would be another round trip for what `nearest` finds as well."""
        return None

    async def nearest(self, scope: str, vector: bytes, count: int) -> Sequence[Near]:
        """Return the nearest questions; see `VectorIndex`."""
        query = {"kind": "vector", "vector": unpack(vector), "fields": "embedding", "k": count}
        found = await self._search(
            filter=_of(scope),
            vectorFilterMode="preFilter",
            vectorQueries=[query],
            select="key,question,asked",
            top=count,
        )
        return [Near(one.key, one.question, _cosine(one.score), one.asked / 1000) for one in found.value]

    async def add(self, scope: str, question: Question) -> None:
        """Add a question, and from time to time delete what is old; see `VectorIndex`."""
        document = {
            "@search.action": "upload",
            "id": _id(scope, question.key),
            "scope": scope,
            "key": question.key,
            "question": question.text,
            "asked": round(question.asked * 1000),
            "embedding": unpack(question.vector),
        }
        if not await self._write([document]):
            await self._create(len(question.vector) // 4)
            await self._write([document])
        self._added += 1
        if self._added % PRUNED_EVERY == 0:
            await self._prune(scope, question.asked)

    async def remove(self, scope: str, key: str) -> None:
        """Remove a question; see `VectorIndex`."""
        await self._delete([_id(scope, key)])

    async def drop(self, scope: str) -> None:
        """Remove all questions of a scope, up to `MAX_DELETED` at once; see `VectorIndex`."""
        found = await self._search(filter=_of(scope), select="id", top=MAX_DELETED)
        await self._delete([one.id for one in found.value])

    async def aclose(self) -> None:
        """Nothing is to be closed: the connections are the client's."""

    async def _prune(self, scope: str, now: float) -> None:
        """Delete what is too old anywhere, and what is too much in this scope."""
        oldest = {"orderby": "asked asc", "top": MAX_DELETED}
        known = await self._search(filter=_of(scope), select="id", count=True, **oldest)
        surplus = [one.id for one in known.value[: max(0, known.count - self._entries)]]
        before = f"asked lt {round((now - self._ttl) * 1000)}"
        old = await self._search(filter=before, select="id", top=MAX_DELETED - len(surplus))
        await self._delete([*surplus, *(one.id for one in old.value)])

    async def _search(self, **query: Any) -> _Found:
        status, body = await self._send("POST", "/docs/search", query)
        return _decoded(body, _Found) if status != 404 else _Found()

    async def _delete(self, ids: Sequence[str]) -> None:
        if ids:
            await self._write([{"@search.action": "delete", "id": one} for one in ids])

    async def _write(self, documents: Sequence[dict[str, Any]]) -> bool:
        """Write documents; return False where there is no such index."""
        status, body = await self._send("POST", "/docs/index", {"value": documents})
        if status == 404:
            return False
        if not all(one.status for one in _decoded(body, _Results).value):
            raise StoreError("The index (search) did not take a document.")
        return True

    async def _create(self, dimensions: int) -> None:
        def text(name: str, **traits: bool) -> dict[str, Any]:
            plain = {"searchable": False, "filterable": False, "sortable": False, "facetable": False}
            return {"name": name, "type": "Edm.String", **plain, **traits}

        number = {"name": "asked", "type": "Edm.Int64", "filterable": True, "sortable": True}
        vector = {"name": "embedding", "type": "Collection(Edm.Single)", "searchable": True, "stored": False}
        space = {"dimensions": dimensions, "vectorSearchProfile": "nearest", "retrievable": False}
        algorithm = {"name": "hnsw", "kind": "hnsw", "hnswParameters": {"metric": "cosine"}}
        schema = {
            "name": self._name,
            "fields": [
                text("id", key=True),
                text("scope", filterable=True),
                text("key"),
                text("question"),
                number,
                {**vector, **space},
            ],
            "vectorSearch": {
                "algorithms": [algorithm],
                "profiles": [{"name": "nearest", "algorithm": "hnsw"}],
            },
        }
        await self._send("PUT", "", schema)

    async def _send(self, method: str, path: str, content: dict[str, Any]) -> tuple[int, bytes]:
        """Send a request; returns status and body of what succeeded, or of a 404. Raises StoreError."""
        url = f"{self._base}{path}?api-version={API_VERSION}"
        deadline = asyncio.get_running_loop().time() + SECONDS
        try:
            headers = [("content-type", "application/json"), await self._authorization()]
            response = await self._client.request(
                method,
                url,
                headers=headers,
                body=msgspec.json.encode(content),
                deadline=deadline,
            )
            body = await response.read(MAX_BODY)
        except FirstTokenError as error:
            raise StoreError(f"The index (search) cannot be had ({type(error).__name__}).") from error
        if response.status // 100 != 2 and response.status != 404:
            raise StoreError(f"The index (search) answered with status {response.status}.")
        return response.status, body


def _authorization(key: str) -> Callable[[], Awaitable[tuple[str, str]]]:
    """Return what gives the header that says who we are. Raises ConfigError."""
    if key:

        async def keyed() -> tuple[str, str]:
            return "api-key", key

        return keyed
    from firsttoken.providers.azure_auth import identity

    tokens = identity(ENTRA_SCOPE, "semantic.index_url")

    async def entra() -> tuple[str, str]:
        return "authorization", f"Bearer {await tokens.get()}"

    return entra


def _cosine(score: float) -> float:
    """Return the cosine that a score stands for: the service says 1 / (1 + distance)."""
    return 2 - 1 / score if score > 0 else -1.0


def _id(scope: str, key: str) -> str:
    return sha256(f"{scope}/{key}".encode()).hexdigest()


def _of(scope: str) -> str:
    """Return the filter that lets a scope's documents through."""
    return "scope eq '" + scope.replace("'", "''") + "'"


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError("The index (search) answered with something else than JSON as agreed.") from error
