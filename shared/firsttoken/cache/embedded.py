"""Embeddings that were made before: looked up text by text, so that only new texts are sent.

A vector is kept in half precision with its length: half the memory, and a cosine that is off by less than a
thousandth. An answer whose texts were all new is the target's own, at full precision.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from firsttoken.cache.crypto import seal_of
from firsttoken.cache.embedded_vectors import decode, encode
from firsttoken.config import secret as secret_of
from firsttoken.embedding import EmbedCall, Embedder, Embeddings, EmbedRequest
from firsttoken.errors import StoreError
from firsttoken.model import Source
from firsttoken.wire import json_body

if TYPE_CHECKING:
    from firsttoken.policies.shadow import Shadow
    from firsttoken.settings import Cache
    from firsttoken.stores.store import Store

VERSION = 1
"""Part of every key: raise it when the meaning of a key or a value changes."""
KEPT = 30 * 86_400.0
"""Seconds: the vector of a text changes only with the model, which is part of the key."""
SHARE = 4
"""The part of the memory for answers that vectors may take: one in so many."""
WRITES = 8
"""Vectors on their way to the store at once."""
_PER_ENTRY = 200
_PER_TURN = 16
"""Vectors packed or unpacked between two turns of the event loop: about 0.2 ms each."""


class Warmed(Struct, frozen=True):
    """What came of one batch: texts that were known, and that were sent and kept."""

    known: int = 0
    sent: int = 0
    tokens: int = 0


class CachedEmbedder:
    """An embedder around another one, for one target.

    The key of a text: tenant, target, model, dimensions, purpose and the text. Memory: `SHARE` of
    ``settings.memory_bytes``, what was used least recently goes. The store, if instances share it, has two
    bytes a dimension for each text, for `KEPT` seconds, encrypted where answers are: vectors tell a lot of
    their text. It is read once a request. Requests for tokens, and those with fields that have no word here,
    are passed on.
    """

    def __init__(
        self, embedder: Embedder, store: Store, shadow: Shadow, settings: Cache, target: str
    ) -> None:
        self._embedder = embedder
        self._store = store if store.shared else None
        self._shadow = shadow
        self._target = target
        self._limit = settings.memory_bytes // SHARE
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        secret = _said(settings.key_secret, "cache.key_secret")
        self._secret = sha256(secret.encode()).digest() if secret else b""
        self._seal = seal_of(_said(settings.encryption_key, "cache.encryption_key"), secret)
        self._answered = ""
        """What the target calls its model."""
        self.hits = 0
        self.misses = 0

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``; ``tokens`` counts those of the texts that were sent."""
        if call.request.tokens or call.source.unknown or not call.request.inputs:
            return await self._embedder.embed(call)
        keys = self._keys(call)
        found = await self._find(keys)
        answer, made = await self._complete(call, keys, found)
        if made and self._store is not None:
            self._shadow.run(self._write(made))
        return answer

    async def warm(self, call: EmbedCall) -> Warmed:
        """Make what is missing of ``call``, and return when it is in the store. Raises StoreError, too."""
        keys = self._keys(call)
        found = await self._find(keys)
        answer, made = await self._complete(call, keys, found)
        if made and self._store is not None:
            await self._write(made)
        return Warmed(len(keys) - len(made), len(made), answer.tokens)

    def _keys(self, call: EmbedCall) -> list[str]:
        request = call.request
        said = request.model if self._target.endswith("/*") else ""
        scope = f"{VERSION}\n{self._target}\n{said}\n{request.dimensions}\n{request.input_type}\n"
        return [f"vector:{call.tenant}:{self._digest(scope, text)}" for text in request.inputs]

    def _digest(self, scope: str, text: str) -> str:
        whole = (scope + text).encode("utf-8", "surrogatepass")
        return blake2b(whole, digest_size=20, key=self._secret).hexdigest()

    async def _find(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the vectors that are known, as they are handed on."""
        memory, found = self._memory, {key: self._memory.get(key) for key in keys}
        stored = await self._read([key for key, value in found.items() if value is None])
        vectors: dict[str, bytes] = {}
        for position, key in enumerate(found):
            if position % _PER_TURN == _PER_TURN - 1:
                await asyncio.sleep(0)
            value = found[key] or stored.get(key, b"")
            if (vector := decode(value)) is not None:
                vectors[key] = vector
                if key in memory:
                    memory.move_to_end(key)
                else:
                    self._remember(key, value)
        return vectors

    async def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what the store holds of these, opened; what does not open is not there."""
        if self._store is None or not keys:
            return {}
        try:
            stored = await self._store.get_many(keys)
        except StoreError:
            return {}
        mark, opened = self._seal.mark, {}
        for key, value in stored.items():
            if value[:1] == mark and (packed := self._seal.open(key, value[1:])) is not None:
                opened[key] = packed
        return opened

    async def _complete(
        self, call: EmbedCall, keys: Sequence[str], found: dict[str, bytes]
    ) -> tuple[Embeddings, dict[str, bytes]]:
        """Return the whole answer, and what is new of it as it is kept."""
        request = call.request
        lacking: dict[str, str] = {}
        for key, text in zip(keys, request.inputs, strict=True):
            if key not in found:
                lacking.setdefault(key, text)
        self.hits += len(keys) - len(lacking)
        self.misses += len(lacking)
        call.record.cache = "miss" if lacking else "hit"
        if not lacking:
            return Embeddings(tuple([found[key] for key in keys]), model=self._name(request)), {}
        if len(lacking) == len(keys):
            answer = await self._embedder.embed(call)  # the client's own bytes, and the target's
            new = dict(zip(keys, answer.vectors, strict=True))
        else:
            some = await self._embedder.embed(_asking(call, tuple(lacking.values())))
            new = dict(zip(lacking, some.vectors, strict=True))
            vectors = tuple([new[key] if key in new else found[key] for key in keys])
            answer = replace(some, vectors=vectors, raw=b"", wire="")
        self._answered = answer.model
        made: dict[str, bytes] = {}
        for position, (key, vector) in enumerate(new.items()):
            if position % _PER_TURN == _PER_TURN - 1:
                await asyncio.sleep(0)
            if value := encode(vector):
                made[key] = value
                self._remember(key, value)
        return answer, made

    def _name(self, request: EmbedRequest) -> str:
        model = self._target.partition("/")[2]
        return request.model if model == "*" else self._answered or model

    def _remember(self, key: str, value: bytes) -> None:
        memory = self._memory
        self._bytes -= _size(key, memory.pop(key, None))
        memory[key] = value
        self._bytes += _size(key, value)
        while self._bytes > self._limit and memory:
            self._bytes -= _size(*memory.popitem(last=False))

    async def _write(self, made: dict[str, bytes]) -> None:
        store, seal, waiting = self._store, self._seal, iter(made.items())
        if store is None:
            return

        async def work() -> None:
            for key, value in waiting:
                await store.put(key, seal.mark + seal.close(key, value), KEPT)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WRITES, len(made))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None


def _asking(call: EmbedCall, texts: tuple[str, ...]) -> EmbedCall:
    """Return the call for these texts only, and all else as the client said it."""
    source = call.source
    if source.body:
        fields = json_body.fields(source.body)
        fields["input"] = Raw(json.encode(texts))
        source = Source(source.wire, json.encode(fields))
    return replace(call, request=replace(call.request, inputs=texts), source=source)


def _size(key: str, value: bytes | None) -> int:
    return 0 if value is None else len(value) + len(key) + _PER_ENTRY


def _said(value: str, where: str) -> str:
    return secret_of(value, where) if value else ""
