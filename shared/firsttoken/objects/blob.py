"""Objects as block blobs in one container of Azure Blob storage, over its REST API.

Four kinds of requests are all that is needed, and the gateway's own HTTP client is loaded already: an SDK of
Azure Storage with its transport would add a quarter of a second of CPU to a cold start, and 20 MB to install.
A container that is missing is created when something is first written to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

from firsttoken import config
from firsttoken.errors import DeadlineError, RequestError, StoreError, UpstreamError
from firsttoken.objects.blob_account import Account, Header, account_of
from firsttoken.settings import BlobObjects as Settings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient, Response
    from firsttoken.stores.store import Store

MAX_NAME = 900
"""Characters of a name that are kept; the service takes 1,024."""
SECONDS = 30.0
"""For one request, with its body."""
MAX_REFUSAL_BYTES = 64 * 1024

_CODE = "x-ms-error-code"


class BlobObjects:
    """An object is a blob of that name, put and read in one request; ``clock`` is in Unix seconds.

    The time to live is left to a lifecycle rule of the account. Raises ConfigError where the settings name no
    account.
    """

    def __init__(
        self, settings: Settings, client: HttpClient, *, clock: Callable[[], float] = time.time
    ) -> None:
        connection = config.secret(settings.connection, "objects.connection")
        self._account: Account = account_of(connection, settings.account_url, "objects")
        self._settings = settings
        self._client = client
        self._clock = clock

    async def put(self, name: str, data: bytes, ttl: float) -> None:  # noqa: ARG002 - the protocol's
        """Write an object, whatever was there; see `Objects`."""
        kind = [("x-ms-blob-type", "BlockBlob")]
        status, code, _ = await self._ask("PUT", self._path(name), kind, data)
        if code == "ContainerNotFound":
            status, code, _ = await self._ask("PUT", f"/{self._settings.container}?restype=container")
            if status != 201 and code != "ContainerAlreadyExists":
                raise self._refusal(status, code)
            status, code, _ = await self._ask("PUT", self._path(name), kind, data)
        if status != 201:
            raise self._refusal(status, code)

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object of at most ``limit`` bytes, or None; see `Objects`."""
        status, code, data = await self._ask("GET", self._path(name), limit=limit)
        if status == 200:
            return data
        if code in ("BlobNotFound", "ContainerNotFound"):
            return None
        raise self._refusal(status, code)

    async def delete(self, name: str) -> None:
        """Delete an object, if there is one; see `Objects`."""
        status, code, _ = await self._ask("DELETE", self._path(name))
        if status != 202 and code not in ("BlobNotFound", "ContainerNotFound"):
            raise self._refusal(status, code)

    async def aclose(self) -> None:
        """Do nothing: the connections are the client's."""

    async def _ask(
        self, method: str, path: str, headers: Sequence[Header] = (), body: bytes = b"", limit: int = 0
    ) -> tuple[int, str, bytes]:
        """Send a request; return status, the service's word for an error, and up to ``limit`` bytes."""
        deadline = asyncio.get_running_loop().time() + SECONDS
        url, sent = await self._account.prepare(method, path, headers, len(body), self._clock)
        try:
            response = await self._client.request(method, url, headers=sent, body=body, deadline=deadline)
            wanted = response.status == 200
            if wanted:
                _check_size(response, limit)
            data = await response.read(limit if wanted else MAX_REFUSAL_BYTES)
        except (UpstreamError, DeadlineError) as error:
            message = f"Azure Blob storage cannot be reached ({type(error).__name__})."
            raise StoreError(message) from error
        except RequestError as error:
            raise StoreError("The address of Azure Blob storage is not understood.") from error
        return response.status, response.headers.get(_CODE, ""), data

    def _path(self, name: str) -> str:
        return f"/{self._settings.container}/{quote(self._settings.prefix, safe='/')}{_escape(name)}"

    def _refusal(self, status: int, code: str) -> StoreError:
        container = self._settings.container
        return StoreError(
            f"Azure Blob storage refused an operation on the container {container!r} ({code or status})."
        )


def create(settings: Settings, client: HttpClient, _store: Store) -> BlobObjects:
    """Return the objects in a container; nothing is connected yet. Raises ConfigError."""
    return BlobObjects(settings, client)


def _escape(name: str) -> str:
    """Return a name without what a URL or a folder gives a meaning to: a long one as beginning and hash."""
    raw = name.encode(errors="surrogatepass")
    escaped = quote(raw, safe=":").replace("_", "%5F").replace(".", "%2E").replace("%", "_")
    return escaped if len(escaped) <= MAX_NAME else escaped[:MAX_NAME] + sha256(raw).hexdigest()


def _check_size(response: Response, limit: int) -> None:
    size = int(response.headers.get("content-length", 0))
    if size > limit:
        response.close()
        raise StoreError(f"The object has {size} bytes; expected at most {limit}.")
