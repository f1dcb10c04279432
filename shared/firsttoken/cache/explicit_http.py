"""Gemini's explicit caches over HTTP: ``cachedContents``, made, renewed and deleted.

Sources: Gemini API reference, "Caching" (v1beta), Vertex AI reference, "projects.locations.cachedContents",
and Google's SDK ``google-genai`` 3.4.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from firsttoken.config import key_of
from firsttoken.errors import UpstreamProtocolError
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import MAX_ERROR_BYTES, Authorize, Headers, bearer
from firsttoken.settings import GeminiProvider, VertexProvider
from firsttoken.wire.gemini import error_from

SECONDS = 60.0
"""What one request may take: making a cache reads all of its tokens."""
_NAME = re.compile(r"(projects/[\w.:-]+/locations/[\w-]+/)?cachedContents/[\w-]+")


class _Counts(Struct, frozen=True, rename="camel"):
    total_token_count: int = 0


class Content(Struct, frozen=True, rename="camel"):
    """A cache, as the API describes it."""

    name: str
    usage_metadata: _Counts = _Counts()

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self.usage_metadata.total_token_count


_content = msgspec.json.Decoder(Content)


class CachedContents:
    """The caches of one model.

    ``base`` is the address before a cache's name, ``place`` what that begins with before ``cachedContents``.
    """

    def __init__(  # noqa: PLR0913 - an address, and what goes with each request to it
        self,
        client: HttpClient,
        base: str,
        model: str,
        *,
        place: str = "",
        headers: Headers,
        authorize: Authorize | None,
    ) -> None:
        self.model = model
        """The resource name of the model."""
        self._client = client
        self._base = base
        self._collection = f"{base}/{place}cachedContents"
        self._headers = headers
        self._authorize = authorize

    async def create(self, fields: Mapping[str, Raw], ttl: float) -> Content:
        """Make a cache of the static ``fields`` of a request. Raises UpstreamError and its kinds."""
        body = {"model": self.model, "ttl": f"{ttl:g}s", **fields}
        answer = await self._send("POST", self._collection, msgspec.json.encode(body))
        try:
            content = _content.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"The target's answer is not a cached content: {error}"
            raise UpstreamProtocolError(message) from error
        if not _NAME.fullmatch(content.name):
            raise UpstreamProtocolError("The target's cached content has a name that is not one.")
        return content

    async def renew(self, name: str, ttl: float) -> None:
        """Keep a cache for ``ttl`` seconds from now on."""
        await self._send("PATCH", f"{self._base}/{name}", msgspec.json.encode({"ttl": f"{ttl:g}s"}))

    async def delete(self, name: str) -> None:
        """Delete a cache, which ends what it costs."""
        await self._send("DELETE", f"{self._base}/{name}", b"")

    async def _send(self, method: str, url: str, body: bytes) -> bytes:
        headers: Headers = [("content-type", "application/json"), *self._headers]
        if self._authorize:
            headers = await self._authorize(url, headers, body)
        response = await self._client.request(
            method,
            url,
            headers=headers,
            body=body,
            timeouts=Timeouts(first_byte=SECONDS),
            deadline=asyncio.get_running_loop().time() + SECONDS,
        )
        try:
            answer = await response.read(MAX_ERROR_BYTES)
            if response.status != 200:
                raise error_from(response.status, response.headers, answer)
            return answer
        finally:
            response.close()


def cached_contents(
    name: str, provider: GeminiProvider | VertexProvider, model: str, client: HttpClient
) -> CachedContents:
    """Return the caches of a provider's model. Raises ConfigError when its credentials cannot be had."""
    headers = list(provider.headers.items())
    authorize: Authorize | None
    if isinstance(provider, GeminiProvider):
        key = key_of(provider.api_key, f"providers.{name}.api_key")
        base, place = provider.base_url.rstrip("/"), ""
        resource = model if "/" in model else f"models/{model}"
        authorize = bearer(key, "x-goog-api-key") if key else None
    else:
        from firsttoken.providers import vertex

        base = f"{vertex.host(provider)}/{provider.api_version}"
        place = f"projects/{quote(provider.project)}/locations/{quote(provider.location)}/"
        resource = f"{place}publishers/google/models/{model}"
        authorize = vertex.authorization(name, provider)
    return CachedContents(client, base, resource, place=place, headers=headers, authorize=authorize)


def without_static(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of a request's fields a cache can hold, and the rest: a request names no field twice."""
    static = {_STATIC[name]: value for name, value in fields.items() if name in _STATIC}
    return static, {name: value for name, value in fields.items() if name not in _STATIC}


_STATIC = {
    "systemInstruction": "systemInstruction",
    "system_instruction": "systemInstruction",
    "tools": "tools",
    "toolConfig": "toolConfig",
    "tool_config": "toolConfig",
}
