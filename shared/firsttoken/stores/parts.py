"""Values that are larger than a store takes: compressed, and in parts where that is not enough.

The value at the key itself says what follows, in its first byte: the value as it is, the value compressed, or
where the parts of the compressed value are. It is written last, so there is never a value without its parts.
"""

from __future__ import annotations

import asyncio
import zlib
from hashlib import sha256
from math import ceil

import msgspec
from msgspec import Struct

from firsttoken.stores.keys import fit_key
from firsttoken.stores.store import Store

MAX_LARGE_BYTES = 16 * 1024 * 1024
"""Of a value before it is compressed."""
_PLAIN, _PACKED, _PARTED = b"v", b"z", b"p"
_MAX_PARTS = 4096
_WORTH_PACKING = 1024
_WORTH_A_THREAD = 64 * 1024
_FETCHED = 4 * 1024 * 1024
"""Bytes of parts that are asked for at once."""


class _Header(Struct, array_like=True, frozen=True):
    count: int
    length: int
    digest: bytes


async def put_large(store: Store, key: str, value: bytes, ttl: float) -> None:
    """Write a value of up to `MAX_LARGE_BYTES`; a larger one is a ValueError. Raises StoreError.

    Parts are named by their content, so two writers of one key cannot mix theirs; those of a value that was
    overwritten stay until their time is over.
    """
    if len(value) > MAX_LARGE_BYTES:
        raise ValueError(f"The value has {len(value)} bytes; expected at most {MAX_LARGE_BYTES}.")
    if len(value) < _WORTH_A_THREAD:
        data, header = _pack(value, store.max_value_bytes)
    else:
        data, header = await asyncio.to_thread(_pack, value, store.max_value_bytes)
    if header is None:
        await store.put(key, data, ttl)
        return
    size = store.max_value_bytes
    for number, name in enumerate(_names(key, header)):
        await store.put(name, data[number * size : (number + 1) * size], ttl)
    await store.put(key, _PARTED + msgspec.msgpack.encode(header), ttl)


async def get_large(store: Store, key: str) -> bytes | None:
    """Return what `put_large` wrote, or None when it, or any part of it, is not there. Raises StoreError."""
    found = await store.get(key)
    if found is None:
        return None
    kind, data = found[:1], found[1:]
    if kind == _PLAIN:
        return data
    if kind == _PARTED:
        joined = await _join(store, key, data)
        if joined is None:
            return None
        data = joined
    elif kind != _PACKED:
        return None
    return await asyncio.to_thread(_unpack, data) if len(data) >= _WORTH_A_THREAD else _unpack(data)


def _pack(value: bytes, limit: int) -> tuple[bytes, _Header | None]:
    """Return what is written at the key, or the bytes of all parts and their header."""
    packed = zlib.compress(value, 1) if len(value) >= min(_WORTH_PACKING, limit) else value
    if len(packed) >= len(value) and len(value) < limit:
        return _PLAIN + value, None
    if len(packed) < limit:
        return _PACKED + packed, None
    count = ceil(len(packed) / limit)
    if count > _MAX_PARTS:
        raise ValueError(f"The value needs {count} parts; expected at most {_MAX_PARTS}.")
    return packed, _Header(count, len(packed), sha256(packed).digest())


def _unpack(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        value = unpacker.decompress(packed, MAX_LARGE_BYTES + 1)
    except zlib.error:
        return None
    return value if unpacker.eof and len(value) <= MAX_LARGE_BYTES else None


async def _join(store: Store, key: str, encoded: bytes) -> bytes | None:
    try:
        header = msgspec.msgpack.decode(encoded, type=_Header)
    except msgspec.DecodeError:
        return None
    if not 0 < header.count <= _MAX_PARTS:
        return None
    names = _names(key, header)
    parts: list[bytes] = []
    step = max(1, _FETCHED // store.max_value_bytes)
    for start in range(0, len(names), step):
        wanted = names[start : start + step]
        found = await store.get_many(wanted)
        if len(found) < len(wanted):
            return None
        parts.extend(found[name] for name in wanted)
    data = b"".join(parts)
    whole = len(data) == header.length and sha256(data).digest() == header.digest
    return data if whole else None


def _names(key: str, header: _Header) -> list[str]:
    digest = header.digest[:8].hex()
    return [fit_key(f"{key}#{digest}.{number}") for number in range(header.count)]
