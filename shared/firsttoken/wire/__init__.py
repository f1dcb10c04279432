"""The wire formats, each a package that is a `firsttoken.wire.codec.Codec`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from firsttoken.wire.codec import Codec


def codec_of(name: str) -> Codec:
    """Return the codec of a format by its package's name; only those that are used are imported."""
    return cast("Codec", import_module(f"firsttoken.wire.{name}"))
