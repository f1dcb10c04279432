"""A fake of Azure AI Search: what the index of similar questions uses of it, over HTTP.

It imitates version 2025-09-01 of the REST API, documented at learn.microsoft.com/rest/api/searchservice:
"Indexes - Create Or Update", "Documents - Index" (actions upload and delete; an answer for each document),
"Documents - Search Post" (vectorQueries of the kind vector, filter, vectorFilterMode, select, orderby, count,
top); the score of a cosine is 1 / (1 + (1 - cosine)), as in "Relevance in vector search". Of OData's filters
it knows ``field eq 'text'`` and ``field lt number``. Unlike the service it finds what was written at once,
compares all vectors, has no roles, and refuses whatever it does not know.
"""

from __future__ import annotations

import asyncio
import json
import re
from types import TracebackType
from typing import Any, Self

import numpy as np

KEY = "made-up-admin-key"
VERSION = "2025-09-01"
_FILTER = re.compile(r"(\w+) (eq '([^']*)'|lt (-?\d+))")
_DOCUMENT_KEY = re.compile(r"[A-Za-z0-9_\-=]{1,1024}")
_QUERY = {"filter", "vectorFilterMode", "vectorQueries", "select", "orderby", "count", "top"}


class AzureSearch:
    """Serves while it is entered; ``url`` is that of its index. ``status`` is answered instead, if set."""

    def __init__(self) -> None:
        self.schema: dict[str, Any] | None = None
        self.documents: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.status = 0
        self.refuses = False
        self.garbage = False
        self.hangs = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/indexes/questions?api-key={KEY}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (item.split(": ", 1) for item in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                method, path, _ = line.split(" ")
                self.requests.append((method, path, body))
                if self.hangs:
                    await asyncio.Event().wait()
                status, said = self._answer(method, path, headers, body)
                data = b"<html>" if self.garbage else b"" if said is None else json.dumps(said).encode()
                head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\n"
                writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(  # noqa: PLR0911 - one return for each of its answers
        self, method: str, path: str, headers: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if self.status:
            return self.status, {"error": {"code": "", "message": "made up"}}
        if headers.get("api-key") != KEY:
            return 403, None
        route, _, version = path.partition("?api-version=")
        if version != VERSION:
            return 400, {"error": {"code": "", "message": "The api-version is not supported."}}
        if (method, route) == ("PUT", "/indexes/questions"):
            created, self.schema = self.schema is None, body
            return (201 if created else 204), body if created else None
        if self.schema is None:
            return 404, {"error": {"code": "", "message": "The index 'questions' was not found."}}
        if (method, route) == ("POST", "/indexes/questions/docs/index"):
            results = [self._write(dict(one)) for one in body["value"]]
            return (200 if all(one["status"] for one in results) else 207), {"value": results}
        if (method, route) == ("POST", "/indexes/questions/docs/search"):
            return self._search(body)
        return 404, None

    def _field(self, name: str) -> dict[str, Any]:
        assert self.schema is not None
        return next(one for one in self.schema["fields"] if one["name"] == name)

    def _write(self, document: dict[str, Any]) -> dict[str, Any]:
        action, key = document.pop("@search.action"), document["id"]
        error = None
        if self.refuses or not _DOCUMENT_KEY.fullmatch(key):
            error = "Invalid document key."
        elif action == "upload":
            if len(document["embedding"]) != self._field("embedding")["dimensions"]:
                error = "The vector field 'embedding' has another number of dimensions."
            elif unknown := set(document) - {one["name"] for one in self.schema["fields"]}:  # type: ignore[index]
                error = f"The property {unknown} does not exist."
            else:
                self.documents[key] = document
        elif action == "delete":
            self.documents.pop(key, None)
        else:
            error = f"The action {action} is not imitated here."
        return {
            "key": key,
            "status": error is None,
            "errorMessage": error,
            "statusCode": 400 if error else 200,
        }

    def _search(self, query: dict[str, Any]) -> tuple[int, Any]:
        if unknown := set(query) - _QUERY:
            return 400, {"error": {"code": "", "message": f"The parameter {unknown} is not valid."}}
        found = [one for one in self.documents.values() if self._passes(one, query["filter"])]
        scores = {one["id"]: 1.0 for one in found}
        for vector in query.get("vectorQueries", ()):
            assert vector["kind"] == "vector"
            assert query["vectorFilterMode"] == "preFilter"
            if len(vector["vector"]) != self._field(vector["fields"])["dimensions"]:
                return 400, {"error": {"code": "", "message": "The vector has other dimensions."}}
            asked = np.array(vector["vector"])
            for one in found:
                value = np.array(one[vector["fields"]])
                cosine = float(asked @ value / np.linalg.norm(asked) / np.linalg.norm(value))
                scores[one["id"]] = 1 / (1 + (1 - cosine))
            found = sorted(found, key=lambda one: -scores[one["id"]])[: vector["k"]]
        if order := query.get("orderby"):
            name, direction = order.split(" ")
            assert self._field(name)["sortable"]
            found.sort(key=lambda one: one[name], reverse=direction == "desc")
        answer: dict[str, Any] = {"@odata.count": len(found)} if query.get("count") else {}
        names = query["select"].split(",")
        rows = found[: query.get("top", 50)]
        answer["value"] = [
            {"@search.score": scores[one["id"]], **{name: one[name] for name in names}} for one in rows
        ]
        return 200, answer

    def _passes(self, document: dict[str, Any], condition: str) -> bool:
        match = _FILTER.fullmatch(condition)
        assert match is not None, f"not imitated here: {condition}"
        assert self._field(match[1])["filterable"]
        if match[3] is not None:
            return document[match[1]] == match[3]
        return document[match[1]] < int(match[4])
