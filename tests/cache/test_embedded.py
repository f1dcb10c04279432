"""Embeddings that were made before: text by text, in two layers."""

from __future__ import annotations

import asyncio
import base64
import json
from math import hypot, sqrt
from random import Random
from typing import Any

import pytest
from virtual_time import run

from firsttoken.cache.embedded import CachedEmbedder
from firsttoken.cache.embedded_vectors import decode, encode
from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, normalised, pack, unpack
from firsttoken.errors import StoreError, UpstreamError
from firsttoken.model import Source
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Cache, MemoryStore
from firsttoken.stores.memory import MemoryStore as Memory
from firsttoken.telemetry.record import Record
from firsttoken.wire import openai_embeddings

TARGET = "p/embed-1"


class Counting:
    """An embedder whose vectors tell their text, and that remembers what it was sent."""

    def __init__(self, dimensions: int = 8) -> None:
        self.calls: list[EmbedCall] = []
        self.fails = False
        self._dimensions = dimensions

    async def embed(self, call: EmbedCall) -> Embeddings:
        self.calls.append(call)
        await asyncio.sleep(0.01)
        if self.fails:
            raise UpstreamError("no")
        inputs = call.request.inputs
        return Embeddings(
            tuple(vector(text, self._dimensions) for text in inputs), tokens=len(inputs), model="embed-1-x"
        )

    @property
    def sent(self) -> list[tuple[str, ...]]:
        """The texts of each call."""
        return [call.request.inputs for call in self.calls]


class Shared(Memory):
    """A store that instances share, which counts its reads."""

    shared = True

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.reads = 0
        self.down = False

    async def get_many(self, keys: Any) -> Any:
        self.reads += 1
        if self.down:
            raise StoreError("down")
        return await super().get_many(keys)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        if self.down:
            raise StoreError("down")
        await super().put(key, value, ttl)


def vector(text: str, dimensions: int = 8) -> bytes:
    rng = Random(text)
    return pack(normalised([rng.gauss(0, 1) for _ in range(dimensions)]))


def call_of(*texts: str, tenant: str = "a", source: Source | None = None, **fields: Any) -> EmbedCall:
    request = EmbedRequest("public", texts, **fields)
    return EmbedCall(request, 1e9, source=source or Source("", b""), tenant=tenant, record=Record())


def cached(inner: Any, store: Any = None, **settings: Any) -> CachedEmbedder:
    return CachedEmbedder(inner, store or Shared(), Shadow(), Cache(mode="on", **settings), TARGET)


async def near(embedder: Any, *texts: str, **fields: Any) -> Embeddings:
    """Ask, and check that each vector is that of its text."""
    answer = await embedder.embed(call_of(*texts, **fields))
    for text, made in zip(texts, answer.vectors, strict=True):
        expected = unpack(vector(text))
        assert unpack(made) == pytest.approx(expected, abs=2e-3)
    await asyncio.sleep(0.01)
    return answer


def test_only_new_texts_are_sent_and_counted() -> None:
    """A batch that is known in part costs what is new of it, in the order of the client."""

    async def scenario() -> None:
        inner = Counting()
        embedder = cached(inner)
        await near(embedder, "one", "two")
        answer = await near(embedder, "three", "one", "four", "two", "three")
        assert inner.sent == [("one", "two"), ("three", "four")]
        assert (answer.tokens, answer.model, answer.raw) == (2, "embed-1-x", b"")
        call = call_of("two", "one")
        answer = await embedder.embed(call)
        assert (answer.tokens, answer.model) == (0, "embed-1-x")
        assert call.record.cache == "hit"
        assert len(inner.calls) == 2
        assert (embedder.hits, embedder.misses) == (5, 4)

    run(scenario())


def test_another_instance_reads_the_store_once_a_request() -> None:
    """What one instance made another one need not; a request is one read, and a second one none."""

    async def scenario() -> None:
        store, inner = Shared(), Counting()
        await near(cached(inner, store), *(f"text {number}" for number in range(40)))
        other = cached(inner, store)
        store.reads = 0
        await near(other, *(f"text {number}" for number in range(40)))
        assert store.reads == 1
        await near(other, "text 7", "text 7")
        assert store.reads == 1
        assert len(inner.calls) == 1

    run(scenario())


@pytest.mark.parametrize(
    "fields",
    [{"tenant": "b"}, {"dimensions": 4}, {"input_type": "query"}],
    ids=["tenant", "dimensions", "purpose"],
)
def test_what_makes_another_vector_is_in_the_key(fields: dict[str, Any]) -> None:
    """Tenants share nothing, and neither do sizes and purposes."""

    async def scenario() -> None:
        inner = Counting()
        embedder = cached(inner)
        await near(embedder, "one")
        await embedder.embed(call_of("one", **fields))
        assert len(inner.calls) == 2

    run(scenario())


def test_a_target_of_any_model_keeps_models_apart() -> None:
    """Where the client names the model, that is part of the key; else two public names share."""

    async def scenario() -> None:
        for target, expected in (("p/*", 2), (TARGET, 1)):
            inner = Counting()
            embedder = CachedEmbedder(inner, Shared(), Shadow(), Cache(mode="on"), target)
            for name in ("first", "second"):
                await embedder.embed(EmbedCall(EmbedRequest(name, ("one",)), 1e9))
            assert len(inner.calls) == expected

    run(scenario())


def test_what_has_no_word_here_is_passed_on() -> None:
    """Tokens in place of texts, and fields that only the target knows, are never cached."""

    async def scenario() -> None:
        inner = Counting()
        embedder = cached(inner)
        for _ in range(2):
            await embedder.embed(call_of("one", source=Source("w", b"{}", ("truncate",))))
            await embedder.embed(EmbedCall(EmbedRequest("m", tokens=((1, 2),)), 1e9))
        assert len(inner.calls) == 4

    run(scenario())


def test_a_clients_own_body_asks_for_the_rest_only() -> None:
    """What else the client said stays: the purpose that only its server has a word for, the encoding."""

    async def scenario() -> None:
        inner = Counting()
        embedder = cached(inner)
        for texts in (["one"], ["two", "one"]):
            body = {"model": "m", "input": texts, "encoding_format": "base64", "input_type": "passage"}
            request, source = openai_embeddings.read_request(json.dumps(body).encode())
            await embedder.embed(EmbedCall(request, 1e9, source=source))
        first, second = (call.source for call in inner.calls)
        assert json.loads(first.body)["input"] == ["one"]
        assert json.loads(second.body) == {**body, "input": ["two"]}
        assert openai_embeddings.write_request(inner.calls[1], "x").startswith(
            b'{"model":"x","input":["two"]'
        )

    run(scenario())


def test_a_broken_store_costs_nothing_but_hits() -> None:
    """While the store is down everything is made anew, and memory still helps."""

    async def scenario() -> None:
        store, inner = Shared(), Counting()
        store.down = True
        embedder = cached(inner, store)
        await near(embedder, "one")
        await near(embedder, "one")
        assert len(inner.calls) == 1
        await near(cached(inner, store), "one")
        assert len(inner.calls) == 2

    run(scenario())


def test_a_store_of_this_process_alone_is_not_filled() -> None:
    """Vectors do not push breakers and limits out of the memory store: this process has its own layer."""

    async def scenario() -> None:
        store, inner = Memory(MemoryStore()), Counting()
        embedder = cached(inner, store)
        await near(embedder, "one")
        await near(embedder, "one")
        assert len(inner.calls) == 1
        assert not store._entries

    run(scenario())


@pytest.mark.parametrize("damage", ["cut", "flip", "length", "magic", "empty"])
def test_a_corrupted_value_is_a_miss(damage: str) -> None:
    """What the store returns is checked, and made anew where it is not what was written."""

    async def scenario() -> None:
        store, inner = Shared(), Counting()
        await near(cached(inner, store), "one")
        ((_, key), entry) = next(item for item in store._entries.items())
        value = bytearray(entry.value)
        match damage:
            case "cut":
                del value[-1]
            case "flip":
                value[-1] ^= 1
            case "length":
                value[9] ^= 1
            case "magic":
                value[0] ^= 1
            case "empty":
                value.clear()
        await store.put(key, bytes(value), 100)
        await near(cached(inner, store), "one")
        assert len(inner.calls) == 2

    run(scenario())


def test_memory_is_bounded() -> None:
    """What was used least recently goes, by bytes."""

    async def scenario() -> None:
        inner = Counting(256)
        embedder = CachedEmbedder(
            inner, Memory(MemoryStore()), Shadow(), Cache(mode="on", memory_bytes=40_000), TARGET
        )
        for number in range(50):
            await embedder.embed(call_of(f"text {number}"))
            await embedder.embed(call_of("often"))
        assert embedder._bytes <= 10_000
        assert embedder._bytes == sum(len(k) + len(v) + 200 for k, v in embedder._memory.items())
        before = len(inner.calls)
        await embedder.embed(call_of("often"))
        assert len(inner.calls) == before
        await embedder.embed(call_of("text 0"))
        assert len(inner.calls) == before + 1

    run(scenario())


def test_a_failure_is_not_kept() -> None:
    """The target's error is the client's, and the next call is sent again."""

    async def scenario() -> None:
        inner = Counting()
        embedder = cached(inner)
        inner.fails = True
        with pytest.raises(UpstreamError):
            await embedder.embed(call_of("one"))
        inner.fails = False
        await near(embedder, "one")

    run(scenario())


@pytest.mark.parametrize("dimensions", [1, 3, 384, 1536, 3072])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_half_precision_keeps_direction_and_length(dimensions: int, scale: float) -> None:
    """The length is exact to a float32's last digits, the cosine to a millionth."""
    rng = Random(dimensions)
    values = [scale * rng.gauss(0, 1) for _ in range(dimensions)]
    kept = encode(pack(values))
    assert len(kept) == 20 + 2 * dimensions
    again = unpack(decode(kept))
    assert hypot(*again) == pytest.approx(hypot(*values), rel=1e-5)
    product = sum(a / scale * b / scale for a, b in zip(values, again, strict=True))
    lengths = sqrt(sum((a / scale) ** 2 for a in values)) * sqrt(sum((b / scale) ** 2 for b in again))
    assert product / lengths > 1 - 1e-6


def test_zeros_and_what_is_no_number() -> None:
    """A vector of zeros stays one; one that is no vector is not kept."""
    assert decode(encode(pack([0.0, 0.0]))) == pack([0.0, 0.0])
    assert encode(pack([float("nan"), 1.0])) == b""
    assert encode(pack([float("inf"), 1.0])) == b""
    assert decode(b"") is None


def test_vectors_are_encrypted_where_answers_are() -> None:
    """Another key opens nothing, and none is written in the clear."""

    async def scenario() -> None:
        store, inner = Shared(), Counting()
        one, two = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
        await near(cached(inner, store, encryption_key=one), "one")
        await near(cached(inner, store, encryption_key=one), "one")
        assert len(inner.calls) == 1
        await near(cached(inner, store, encryption_key=two), "one")
        await near(cached(inner, store), "one")
        assert len(inner.calls) == 3

    run(scenario())


def test_keys_do_not_tell_who_asked_the_same() -> None:
    """With a secret the keys of two deployments differ; no key holds the text."""
    one, two = cached(Counting(), key_secret="a"), cached(Counting(), key_secret="b")
    (first,), (second,) = one._keys(call_of("private words")), two._keys(call_of("private words"))
    assert first != second
    assert "private" not in first
