"""What every store may rely on: keys that fit, times to live that end, values within its limit."""

from __future__ import annotations

from hashlib import sha256

from firsttoken.stores.store import MAX_KEY_BYTES

MAX_TTL = 10 * 366 * 86_400.0
"""Seconds; what is to live longer belongs into a database."""
MAX_NUMBER = 2**63 - 1
_PLAIN_BYTES = MAX_KEY_BYTES - 4
_HEAD_BYTES = MAX_KEY_BYTES - 65


def fit_key(key: str, prefix: str = "") -> str:
    """Return prefix and key, or their beginning and a SHA-256 of all where that is too long or not UTF-8.

    Raises ValueError for an empty key. No short key can look like a shortened one: those are all longer.
    """
    if not key:
        raise ValueError("The store's key is empty; expected some text.")
    key = prefix + key
    raw = key.encode(errors="surrogatepass")
    if len(raw) <= _PLAIN_BYTES and (key.isascii() or _is_utf8(raw)):
        return key
    fitted = f"{raw[:_HEAD_BYTES].decode(errors='ignore')}#{sha256(raw).hexdigest()}"
    return fitted + "#" * (_PLAIN_BYTES + 1 - len(fitted.encode()))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_ttl(ttl: float) -> None:
    """Raise ValueError unless ``ttl`` is a time to live, in seconds."""
    if not 0 < ttl <= MAX_TTL:
        raise ValueError(f"The time to live is {ttl!r} s; expected more than 0 and at most {MAX_TTL:.0f}.")


def check_value(value: bytes, limit: int) -> None:
    """Raise ValueError when ``value`` is larger than ``limit`` bytes."""
    if len(value) > limit:
        raise ValueError(f"The value has {len(value)} bytes; this store holds at most {limit} in one.")


def check_number(number: int) -> int:
    """Return a counter's value. Raises ValueError when it does not fit into 64 bits."""
    if not -MAX_NUMBER - 1 <= number <= MAX_NUMBER:
        raise ValueError("The counter does not fit into 64 bits.")
    return number
