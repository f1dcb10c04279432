"""Who may use a Service Bus namespace: shared access signatures made here, or Entra tokens."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable
from urllib.parse import quote_plus

from firsttoken.errors import ConfigError, QueueError, StoreError
from firsttoken.stores.azure_identity import Identity

SCOPE = "https://servicebus.azure.net/.default"
VALID_SECONDS = 3600.0
"""How long a signature is good."""
MARGIN_SECONDS = 300.0
"""So long before its end another one is made."""


class Access:
    """Authorises requests for the entities of one namespace, whose URL ends without a slash.

    Memory: one signature for each entity.
    """

    def __init__(
        self,
        url: str,
        *,
        key_name: str = "",
        key: str = "",
        identity: Identity | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self._key_name = key_name
        self._key = key
        self._identity = identity
        self._clock = clock
        self._signatures: dict[str, tuple[str, float]] = {}

    async def authorization(self, entity: str) -> str:
        """Return the header for an entity or what is below it. Raises QueueError without an identity."""
        if self._identity is not None:
            try:
                token = await self._identity.get_token()
            except StoreError as error:
                raise QueueError(str(error)) from error
            return f"Bearer {token.token}"
        entity = entity.partition("/$")[0]  # a subqueue belongs to its queue
        signature, ends = self._signatures.get(entity, ("", 0.0))
        if ends - self._clock() < MARGIN_SECONDS:
            ends = self._clock() + VALID_SECONDS
            signature = self._sign(entity, int(ends))
            self._signatures[entity] = signature, ends
        return signature

    def _sign(self, entity: str, ends: int) -> str:
        """Sign the entity's own URL: that is good for a policy of the queue and for one of the namespace.

        https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas
        """
        resource = quote_plus(f"{self.url}/{entity}".lower())
        digest = hmac.digest(self._key.encode(), f"{resource}\n{ends}".encode(), "sha256")
        signature = quote_plus(base64.b64encode(digest))
        return (
            f"SharedAccessSignature sr={resource}&sig={signature}&se={ends}&skn={quote_plus(self._key_name)}"
        )


def access_of(connection: str, namespace: str, where: str, clock: Callable[[], float] = time.time) -> Access:
    """Return the access of a connection string or, without one, of a namespace's URL. Raises ConfigError."""
    if not connection:
        if not namespace.startswith("https://"):
            raise ConfigError(f"{where}: expected a connection string, or a namespace with https://")
        return Access(namespace.rstrip("/"), identity=Identity(SCOPE), clock=clock)
    fields = dict(part.strip().split("=", 1) for part in connection.split(";") if "=" in part)
    url, key_name, key = (
        fields.get(name, "") for name in ("Endpoint", "SharedAccessKeyName", "SharedAccessKey")
    )
    scheme, _, host = url.rstrip("/").partition("://")
    scheme = {"sb": "https"}.get(scheme, scheme)
    if scheme not in {"http", "https"} or not (host and key_name and key):
        expected = "Endpoint=sb://...;SharedAccessKeyName=...;SharedAccessKey=..."
        raise ConfigError(f"{where}.connection: not a connection string of Service Bus; expected {expected}")
    return Access(f"{scheme}://{host}", key_name=key_name, key=key, clock=clock)
