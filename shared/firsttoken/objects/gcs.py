"""Objects in a Cloud Storage bucket, over its JSON API with the gateway's own HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from firsttoken.errors import FirstTokenError, StoreError
from firsttoken.providers.google_api import Answer, GoogleApi
from firsttoken.settings import GcsObjects as Settings
from firsttoken.stores.keys import check_ttl, fit_key

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient
    from firsttoken.stores.store import Store

ENDPOINT = "https://storage.googleapis.com"
_ESCAPED = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
"""Cloud Storage takes no line breaks in names."""


class GcsObjects:
    """An object is written and read in one request, whole, in memory; see `Objects`."""

    def __init__(self, settings: Settings, api: GoogleApi) -> None:
        self._prefix = settings.prefix
        self._bucket = quote(settings.bucket, safe="")
        self._api = api

    async def put(self, name: str, data: bytes, ttl: float) -> None:
        """Write an object; the bucket's lifecycle rule deletes it; see `Objects`."""
        check_ttl(ttl)
        path = f"/upload/storage/v1/b/{self._bucket}/o?uploadType=media&name={self._quoted(name)}"
        await self._call("POST", path, data)

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object, or None; see `Objects`."""
        path = f"/storage/v1/b/{self._bucket}/o/{self._quoted(name)}?alt=media"
        answer = await self._call("GET", path, limit=limit)
        return None if answer.status == 404 else answer.body

    async def delete(self, name: str) -> None:
        """Delete an object; see `Objects`."""
        await self._call("DELETE", f"/storage/v1/b/{self._bucket}/o/{self._quoted(name)}")

    async def aclose(self) -> None:
        """Do nothing: the connections are the client's."""

    def _quoted(self, name: str) -> str:
        return quote(fit_key(name.translate(_ESCAPED), self._prefix), safe="", errors="surrogatepass")

    async def _call(self, method: str, path: str, data: bytes = b"", limit: int = 1 << 16) -> Answer:
        try:
            answer = await self._api.call(
                method, path, data, content_type="application/octet-stream", limit=limit
            )
        except FirstTokenError as error:
            raise StoreError(f"Cloud Storage cannot be used: {error}") from error
        if answer.status in (200, 204) or (answer.status == 404 and method != "POST"):
            return answer
        failure = StoreError(f"Cloud Storage answered {answer.status}.")
        failure.add_note(str(answer))
        raise failure


def create(settings: Settings, client: HttpClient, _store: Store) -> GcsObjects:
    """Return the objects in a bucket. Raises ConfigError without the library that gets tokens."""
    return GcsObjects(settings, GoogleApi(client, settings.endpoint or ENDPOINT, setting="objects.kind"))
