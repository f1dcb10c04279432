"""API keys: who is calling? Keys are stored as SHA-256 digests and compared in constant time.

A key has 256 bits of randomness, so a plain digest is enough: there is nothing to guess and no need for a
slow hash.
"""

from __future__ import annotations

from collections.abc import Mapping

from firsttoken.errors import AuthenticationError, ConfigError
from firsttoken.settings import Auth

_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
"""Where clients of other formats put their key: Anthropic's, Azure's, Google's."""
LOCAL = "local"
"""The tenant of calls that need no key."""


class Keys:
    """Maps API keys to tenants. Memory: one entry a key; time: one digest and one look-up a call."""

    def __init__(self, settings: Auth, *, deployed: bool) -> None:
        self._required = settings.mode == "on" or (settings.mode == "auto" and deployed)
        self._tenants = {digest: tenant for tenant, digests in settings.keys.items() for digest in digests}
        if self._required and not self._tenants:
            raise ConfigError(
                "auth.keys: no API key is configured, and a deployed endpoint asks for one; make one with"
                " 'firsttoken key TENANT' and set FIRSTTOKEN_KEYS, or set FIRSTTOKEN_AUTH=off"
                " when another layer checks"
            )

    def tenant(self, headers: Mapping[str, str]) -> str:
        """Return the tenant whose key the headers carry.

        Raises AuthenticationError when one is needed and wrong.
        """
        if not self._required:
            return LOCAL
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = (
            token.strip()
            if scheme.lower() == "bearer"
            else next(filter(None, map(headers.get, _HEADERS)), "")
        )
        if not key:
            raise AuthenticationError("No API key was sent; expected 'Authorization: Bearer KEY'.")
        presented = digest(key)
        for known, tenant in self._tenants.items():
            if _same(known, presented):
                return tenant
        raise AuthenticationError("The API key is not valid here.")


def digest(key: str) -> str:
    """Return the SHA-256 digest of a key, hexadecimal: what the configuration holds."""
    import hashlib

    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _same(one: str, other: str) -> bool:
    import hmac

    return hmac.compare_digest(one, other)
