"""An account of Azure Blob storage: where it is, and how a request to it proves who sends it.

A connection string brings a key, with which each request is signed ("Shared Key"), or a shared access
signature, which goes into each URL. Without one an `Identity` gives a token.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from email.utils import formatdate
from urllib.parse import urlsplit

from msgspec import Struct

from firsttoken.errors import ConfigError
from firsttoken.stores.azure_identity import Identity

VERSION = "2021-12-02"
"""Of the service's REST API."""
SCOPE = "https://storage.azure.com/.default"
DEVELOPMENT = (
    "AccountName=devstoreaccount1;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The account and key that every copy of the storage emulator has; public by design."""

Header = tuple[str, str]


class Account(Struct, frozen=True):
    """``url`` has no slash at its end. Either a key, or a signature (``sas``), or an identity."""

    url: str
    name: str = ""
    key: bytes = b""
    sas: str = ""
    identity: Identity | None = None

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Account(name={self.name!r}, ...)"

    async def prepare(
        self, method: str, path: str, headers: Sequence[Header], length: int, clock: Callable[[], float]
    ) -> tuple[str, list[Header]]:
        """Return URL and headers of a request for ``path``, with its query. Raises StoreError."""
        date = formatdate(clock(), usegmt=True)
        sent = [*headers, ("x-ms-date", date), ("x-ms-version", VERSION)]
        url = self.url + path
        if self.identity is not None:
            token = await self.identity.get_token()
            return url, [*sent, ("authorization", f"Bearer {token.token}")]
        if self.sas:
            return f"{url}{'&' if '?' in path else '?'}{self.sas}", sent
        return url, [*sent, ("authorization", self._signature(method, url, sent, length))]

    def _signature(self, method: str, url: str, headers: Sequence[Header], length: int) -> str:
        """Sign a request; https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
        parts = urlsplit(url)
        size = str(length) if length else ""
        lines = [method, "", "", size, "", "", "", "", "", "", "", ""]
        lines += [f"{name}:{value}" for name, value in sorted(headers) if name.startswith("x-ms-")]
        lines.append(f"/{self.name}{parts.path}")
        lines += [pair.replace("=", ":", 1) for pair in sorted(filter(None, parts.query.split("&")))]
        digest = hmac.digest(self.key, "\n".join(lines).encode(), "sha256")
        return f"SharedKey {self.name}:{base64.b64encode(digest).decode()}"


def account_of(connection: str, url: str, where: str) -> Account:
    """Return the account of a connection string or, without one, of a URL. Raises ConfigError."""
    if not connection:
        if not url.startswith("https://"):
            raise ConfigError(f"{where}: expected a connection string, or an account_url with https://")
        return Account(url.rstrip("/"), identity=Identity(SCOPE))
    if connection.strip().lower().startswith("usedevelopmentstorage=true"):
        connection = DEVELOPMENT
    fields = dict(part.strip().split("=", 1) for part in connection.split(";") if "=" in part)
    name, suffix = fields.get("AccountName", ""), fields.get("EndpointSuffix", "core.windows.net")
    protocol = fields.get("DefaultEndpointsProtocol", "https")
    endpoint = fields.get("BlobEndpoint") or (f"{protocol}://{name}.blob.{suffix}" if name else "")
    sas = fields.get("SharedAccessSignature", "").removeprefix("?")
    try:
        key = base64.b64decode(fields.get("AccountKey", ""), validate=True)
    except binascii.Error:
        key = b""
    if not endpoint.startswith(("http://", "https://")) or not (sas or (key and name)):
        expected = "AccountName and AccountKey, or BlobEndpoint and SharedAccessSignature"
        raise ConfigError(
            f"{where}.connection: not a connection string of Azure Storage; expected {expected}"
        )
    return Account(endpoint.rstrip("/"), name, key, sas)
