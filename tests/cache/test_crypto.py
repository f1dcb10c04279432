"""Seals: what is closed under a name opens under that name only, and only as it was."""

from __future__ import annotations

import base64

import pytest

from firsttoken.cache.crypto import Aes256Gcm, Checksum, Seal, seal_of
from firsttoken.errors import ConfigError

KEY, OTHER = b"k" * 32, b"o" * 32
SEALS = [Checksum(), Checksum("secret"), Aes256Gcm(KEY)]
BODY = b"what was said" * 10


@pytest.mark.parametrize("seal", SEALS)
def test_what_was_closed_opens(seal: Seal) -> None:
    """The same bytes come back; every empty and large body, too."""
    for body in (b"", BODY, BODY * 10_000):
        assert seal.open("name", seal.close("name", body)) == body


@pytest.mark.parametrize("seal", SEALS)
def test_another_name_does_not_open(seal: Seal) -> None:
    """An answer that was copied to another key is none."""
    assert seal.open("other", seal.close("name", BODY)) is None


@pytest.mark.parametrize("seal", SEALS)
def test_every_changed_byte_is_seen(seal: Seal) -> None:
    """A flipped bit anywhere, a missing end, or more bytes: it does not open."""
    closed = seal.close("name", BODY)
    for position in range(len(closed)):
        changed = bytearray(closed)
        changed[position] ^= 1
        assert seal.open("name", bytes(changed)) is None
        assert seal.open("name", closed[:position]) is None
    assert seal.open("name", closed + b"x") is None


def test_a_secret_cannot_be_guessed_around() -> None:
    """Who does not know the secret or the key cannot make what opens."""
    assert Checksum("one").open("name", Checksum("two").close("name", BODY)) is None
    assert Checksum("one").open("name", Checksum().close("name", BODY)) is None
    assert Aes256Gcm(KEY).open("name", Aes256Gcm(OTHER).close("name", BODY)) is None
    stolen = Aes256Gcm(OTHER)
    stolen.key_id = Aes256Gcm(KEY).key_id
    assert Aes256Gcm(KEY).open("name", stolen.close("name", BODY)) is None


def test_nothing_shows_through() -> None:
    """The encrypted bytes hold neither the text nor the key, and differ each time."""
    seal = Aes256Gcm(KEY)
    closed = {seal.close("name", BODY) for _ in range(100)}
    assert len(closed) == 100
    assert not [one for one in closed if b"said" in one or KEY in one]


def test_the_right_seal_is_made() -> None:
    """No key: a checksum; 32 bytes in base64: AES-256-GCM."""
    assert isinstance(seal_of("", "secret"), Checksum)
    assert isinstance(seal_of(base64.b64encode(KEY).decode(), ""), Aes256Gcm)


@pytest.mark.parametrize("key", ["short", "k" * 32, base64.b64encode(KEY[:16]).decode(), "ä"])
def test_a_wrong_key_is_said(key: str) -> None:
    """Whatever is not 32 bytes in base64 is a ConfigError that names the setting, and not the key."""
    with pytest.raises(ConfigError, match=r"cache\.encryption_key: expected 32 bytes") as raised:
        seal_of(key, "")
    assert key not in str(raised.value)
