"""Kept answers as bytes: what comes back, what is no answer any more, and nobody gets another one's."""

from __future__ import annotations

import base64
import itertools
from random import Random
from typing import Any

import msgspec
import pytest
from cache.caches import END, Instance, Scripted, SharedStore, asked, text
from hypothesis import given, settings
from hypothesis import strategies as some
from policies.models import HELLO, say
from virtual_time import EPOCH, run

from firsttoken.cache import entry as entries
from firsttoken.cache.crypto import Aes256Gcm, Checksum
from firsttoken.cache.entry import Collector, Entry, Refusal, decode, encode
from firsttoken.cache.memory_tier import MemoryTier
from firsttoken.cache.replay import BURST, bursts
from firsttoken.chat import ChatRequest, Message, Text, Tool
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.stores.parts import get_large, put_large
from firsttoken.wire.chunks import join, whole

SEALS = [Checksum(), Aes256Gcm(b"k" * 32)]
RICH = Entry(
    "key",
    EPOCH,
    {"all": "", "tenant:a": "1-b"},
    "eu/m",
    (
        Chunk(reasoning="Hm", model="m"),
        Chunk(signature="sig", redacted="enc", model="m"),
        Chunk("na\u00efve 🙂", model="m"),
        Chunk(" text", model="m", citations=({"url": "x", "n": [1, 2.5, None]},)),
        Chunk(tool_calls=(ToolCall(0, "id", "f", '{"a":1}', "s"),), model="m"),
        Chunk(finish="tool_calls", usage=Usage(5, 4, 3, 2, 1), model="m", stopped_by="END"),
    ),
)


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize(
    "entry", [RICH, Entry("key", EPOCH), Entry("key", EPOCH, refusal=Refusal("No.", 400, "c", "p"))]
)
def test_an_entry_comes_back(entry: Entry, seal: Any) -> None:
    """Every field of every chunk, the target, the labels, or the refusal."""
    data = encode(entry, seal)
    assert data is not None
    assert decode(data, "key", seal, EPOCH) == entry


@pytest.mark.parametrize("seal", SEALS)
def test_what_is_damaged_is_no_entry(seal: Any) -> None:
    """Truncated anywhere, changed anywhere, empty, or something else: a miss."""
    data = encode(RICH, seal) or b""
    for position in range(len(data)):
        assert decode(data[:position], "key", seal, EPOCH) is None
        changed = bytearray(data)
        changed[position] ^= 0x41
        assert decode(bytes(changed), "key", seal, EPOCH) is None
    assert decode(b"FT\x01c" + b"\xff" * 100, "key", seal, EPOCH) is None


def test_an_entry_is_bound_to_its_key() -> None:
    """Copied to another key it is no entry; nor is one whose inside names another key."""
    seal = Checksum()
    data = encode(RICH, seal) or b""
    assert decode(data, "other", seal, EPOCH) is None
    forged = b"FT\x01c" + seal.close("other", data[4 + 16 :])
    assert decode(forged, "other", seal, EPOCH) is None


def test_another_version_or_seal_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older or newer release wrote is a miss, and so is what was sealed another way."""
    data = encode(RICH, Checksum()) or b""
    assert decode(data, "key", Aes256Gcm(b"k" * 32), EPOCH) is None
    assert decode(encode(RICH, Aes256Gcm(b"k" * 32)) or b"", "key", Checksum(), EPOCH) is None
    monkeypatch.setattr(entries, "_MAGIC", b"FT\x02")
    assert decode(data, "key", Checksum(), EPOCH) is None


@pytest.mark.parametrize("created", [EPOCH + 3600, -1.0, float("nan"), float("inf")])
def test_an_entry_from_the_future_is_none(created: float) -> None:
    """It would never grow old."""
    data = encode(msgspec.structs.replace(RICH, created=created), Checksum()) or b""
    assert decode(data, "key", Checksum(), EPOCH) is None


@pytest.mark.parametrize("chunk", [Chunk("\ud800"), Chunk("a", citations=({"n": 2**70},))])
def test_what_cannot_be_written_is_not(chunk: Chunk) -> None:
    """Half a character, or a number of more than 64 bits: such an answer is not kept."""
    assert encode(Entry("key", EPOCH, chunks=(chunk,)), Checksum()) is None


@pytest.mark.parametrize("how", ["cut", "changed", "another's", "other key", "nonsense"])
def test_a_damaged_answer_is_made_again(how: str) -> None:
    """A store that gives back something else costs a call; the record says so, and it is replaced."""

    async def work() -> None:
        model, store = Scripted(HELLO), SharedStore()
        secret = base64.b64encode(b"k" * 32).decode() if how == "other key" else ""
        await Instance(model, store, encryption_key=secret).ask()
        (name,) = store.names("cache:")
        data = await get_large(store, name) or b""
        if how == "another's":
            await Instance(model, store).ask(text="Ho")
            other = next(one for one in store.names("cache:") if one != name)
            data = await get_large(store, other) or b""
        changed = {"cut": data[:-3], "changed": data[:-1] + b"\x00", "nonsense": b"\xc1"}.get(how, data)
        await put_large(store, name, changed, 1000)
        calls = len(model.calls)
        reader = Instance(model, store, encryption_key="" if how != "other key" else other_key())
        call = asked()
        assert (await reader.ask(call))[0] == "miss"
        assert call.record.notes["cache_entry"] == "damaged"
        assert reader.tiers.damaged >= 1
        assert len(model.calls) == calls + 1
        assert text((await reader.ask())[1]) == "Hello"
        assert len(model.calls) == calls + 1

    run(work())


def other_key() -> str:
    return base64.b64encode(b"o" * 32).decode()


def test_an_encrypted_answer_is_found_again() -> None:
    """With the key another instance reads it, and the store holds nothing of the text."""

    async def work() -> None:
        store = SharedStore()
        secret = other_key()
        await Instance(Scripted(HELLO), store, encryption_key=secret).ask()
        (name,) = store.names("cache:")
        assert b"Hel" not in (await store.get(name) or b"")
        assert (await Instance(Scripted(HELLO), store, encryption_key=secret).ask())[0] == "hit"

    run(work())


def test_a_large_answer_is_let_go_of() -> None:
    """Beyond ``max_entry_bytes`` an answer streams on and is not kept; one of some size is."""

    async def work() -> None:
        steps = [*[say("x" * 100) for _ in range(100)], END]
        small = Instance(Scripted(steps), SharedStore(), max_entry_bytes=10_000)
        assert [len(text((await small.ask())[1])) for _ in range(2)] == [10_000] * 2
        assert (await small.ask())[0] == "miss"
        large = Instance(Scripted(steps), SharedStore(), max_entry_bytes=100_000, memory_bytes=0)
        assert [(await large.ask())[0] for _ in range(2)] == ["miss", "hit"]

    run(work())


def test_a_collector_forgets_what_is_too_much() -> None:
    """Its memory is bounded, whatever comes."""
    kept = Collector(1000)
    for _ in range(100):
        kept.note(Chunk("x" * 50))
    assert kept.over
    assert kept.chunks() == ()
    assert not kept._pieces


def test_memory_is_bounded() -> None:
    """What was used least recently goes; a larger entry than the whole room is not taken."""
    tier = MemoryTier(10_000)
    for number in range(100):
        tier.put(Entry(str(number), EPOCH, chunks=(Chunk("x" * 1000),)))
        tier.get("0")
        assert tier.bytes <= 10_000
    assert tier.get("0") is not None
    assert tier.get("50") is None
    tier.put(Entry("large", EPOCH, chunks=(Chunk("x" * 20_000),)))
    assert tier.get("large") is None
    for key in list(tier._entries):
        tier.drop(key)
    assert (tier.bytes, len(tier)) == (0, 0)


CHUNKS = some.lists(
    some.builds(
        Chunk,
        text=some.text(max_size=30),
        reasoning=some.sampled_from(["", "", "hm"]),
        tool_calls=some.lists(
            some.builds(ToolCall, some.integers(0, 2), some.just("i"), some.just("f"), some.text(max_size=5)),
            max_size=2,
        ).map(tuple),
        signature=some.sampled_from(["", "", "", "s"]),
        refusal=some.sampled_from(["", "", "r"]),
    ),
    min_size=1,
    max_size=40,
)


@given(CHUNKS)
@settings(max_examples=200, deadline=None)
def test_bursts_say_the_same(chunks: list[Chunk]) -> None:
    """However chunks are joined, a whole answer of them is the same one."""
    chunks = [chunk for chunk in chunks if chunk.has_content()]
    assert whole(bursts(chunks)) == whole(chunks)
    order = [(kind, said) for chunk in chunks for kind, said in spoken(chunk)]
    again = [(kind, said) for chunk in bursts(chunks) for kind, said in spoken(chunk)]
    assert runs(again) == runs(order)


def spoken(chunk: Chunk) -> list[tuple[str, str]]:
    said = [("reasoning", chunk.reasoning), ("signature", chunk.signature), ("text", chunk.text)]
    return [pair for pair in said if pair[1]]


def runs(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind as one."""
    grouped = itertools.groupby(said, key=lambda pair: pair[0])
    return [(kind, "".join([words for _, words in pairs])) for kind, pairs in grouped]


def test_bursts_are_not_too_long() -> None:
    """A long answer stays several chunks: readers have limits."""
    joined = bursts([Chunk("word " * 10) for _ in range(1000)])
    assert max(len(chunk.text) for chunk in joined) < BURST + 50
    assert join(joined).text == "word " * 10_000


TENANTS = ["a", "b", "a\n", "", "ab", "a:b"]
MODELS = ["m", "n", "m\nb"]
SYSTEMS = ["", "Be kind.", "Be kind", "Be kind.\nBe short."]
TOOLS: list[tuple[Tool, ...]] = [(), (Tool("f"),), (Tool("g"),), (Tool("f"), Tool("g")), (Tool("f", "g"),)]
PROMPTS = ["Hi", "hi", "Hi ", "Ho", "Hi\nHo"]


def test_nobody_gets_another_ones_answer() -> None:
    """A hundred thousand look-ups over tenants, models, prompts and tools: no answer crosses over."""

    async def work() -> None:
        one = Instance(Scripted(), tools=True)
        pools = (TENANTS, MODELS, SYSTEMS, TOOLS, PROMPTS)
        combined = list(itertools.product(*[range(len(pool)) for pool in pools]))
        calls = {
            numbers: call_of(*[pool[n] for pool, n in zip(pools, numbers, strict=True)])
            for numbers in combined
        }
        rng = Random(7)
        crossed = found = 0
        for _ in range(100_000):
            numbers = combined[min(rng.randrange(len(combined)), rng.randrange(len(combined)))]
            key = one.answers.key_to_keep(calls[numbers]) or ""
            kept = one.tiers.memory.get(key)
            if kept is None:
                one.tiers.remember(Entry(key, EPOCH, chunks=(Chunk(str(numbers)),)))
            else:
                found += 1
                crossed += kept.chunks[0].text != str(numbers)
        assert crossed == 0
        assert found + len(one.tiers.memory) == 100_000

    def call_of(tenant: str, model: str, system: str, tools: tuple[Tool, ...], prompt: str) -> Call:
        first = (Message("system", (Text(system),)),) if system else ()
        turns = (*first, Message("user", (Text(prompt),)))
        request = ChatRequest(model, turns, temperature=0.0, tools=tools)
        return Call(request, Source("openai_chat", b"{}"), "1", 0.0, tenant)

    run(work())
