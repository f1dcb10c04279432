"""How an answer is closed before it goes into a store, so that only the right reader opens it.

Without a key it gets a checksum (a MAC where there is a secret), with one it is encrypted. Both are bound to
the name that the answer is kept under: what was copied to another one, damaged or forged does not open.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from hashlib import sha256
from importlib.util import find_spec
from typing import Protocol

from firsttoken.errors import ConfigError

KEY_BYTES = 32
_SUM_BYTES = 16
_ID_BYTES = 8
_NONCE_BYTES = 12


class Seal(Protocol):
    """A way to close bytes under a name."""

    @property
    def mark(self) -> bytes:
        """One byte that tells this way from others."""

    def close(self, name: str, body: bytes) -> bytes:
        """Return ``body`` closed under ``name``."""

    def open(self, name: str, closed: bytes) -> bytes | None:
        """Return what was closed under ``name``; None for anything else."""


class Checksum:
    """A checksum of name and body; with a secret only who knows it can make one."""

    mark = b"c"

    def __init__(self, secret: str = "") -> None:
        self._secret = secret.encode()

    def close(self, name: str, body: bytes) -> bytes:
        """Return the checksum, then the body."""
        return self._sum(name, body) + body

    def open(self, name: str, closed: bytes) -> bytes | None:
        """Return the body where its checksum is right."""
        body = closed[_SUM_BYTES:]
        return body if hmac.compare_digest(closed[:_SUM_BYTES], self._sum(name, body)) else None

    def _sum(self, name: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, name.encode() + b"\n" + body, "sha256")[:_SUM_BYTES]


class Aes256Gcm:
    """AES-256-GCM with a random nonce; the name is authenticated, the id of the key stands in front.

    Safe for 2**32 answers under one key (NIST SP 800-38D, 8.3); change the key before: old answers are
    misses then.
    """

    mark = b"e"

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self.key_id = sha256(b"firsttoken cache key id" + key).digest()[:_ID_BYTES]

    def close(self, name: str, body: bytes) -> bytes:
        """Return key id, nonce and the encrypted body."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.key_id + nonce + self._cipher.encrypt(nonce, body, self._bound(name))

    def open(self, name: str, closed: bytes) -> bytes | None:
        """Return the body where the key is the same and nothing was changed."""
        from cryptography.exceptions import InvalidTag

        start = _ID_BYTES + _NONCE_BYTES
        if closed[:_ID_BYTES] != self.key_id or len(closed) < start:
            return None
        try:
            return self._cipher.decrypt(closed[_ID_BYTES:start], closed[start:], self._bound(name))
        except InvalidTag:
            return None

    def _bound(self, name: str) -> bytes:
        return self.mark + self.key_id + name.encode()


def seal_of(key: str, secret: str, where: str = "cache.encryption_key") -> Seal:
    """Return the seal for a key (base64, or empty for none) and a secret (or empty).

    Raises ConfigError for a key that is none, and where the package is missing; ``where`` names the setting.
    """
    if not key:
        return Checksum(secret)
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"{where}: expected {KEY_BYTES} bytes in base64")
    if find_spec("cryptography") is None:
        raise ConfigError(f"{where}: needs the extra 'cache'")
    return Aes256Gcm(raw)
