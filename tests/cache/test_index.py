"""The index in memory: what is near, what is kept, and what is forgotten."""

from __future__ import annotations

import asyncio
import sys
from random import Random

import numpy as np
import pytest

from firsttoken.cache import index as index_module
from firsttoken.cache.index import MemoryIndex, Question
from firsttoken.cache.vectors import Vectors
from firsttoken.embedding import pack
from firsttoken.errors import ConfigError
from firsttoken.providers import lexical

SIZE = 96


def vectors_of(count: int, *, seed: int = 1, size: int = SIZE) -> np.ndarray:
    """Unit vectors in clusters, as texts about a few subjects have them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, size))
    found = centres[rng.integers(0, 20, count)] + 0.6 * rng.standard_normal((count, size))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("<f4")


def question(number: int, vector: bytes | None = None, **fields) -> Question:
    vector = pack([1.0, float(number)]) if vector is None else vector
    return Question(f"k{number}", f"question {number}", f"q{number}", vector, **fields)


@pytest.mark.parametrize("size", [96, 384])
@pytest.mark.parametrize("count", [1, 7, 16, 17, 500, 3000])
def test_the_nearest_are_those_that_brute_force_finds(count, size):
    """Whatever its size and however it grew, an index finds the nearest, with the right cosines."""
    known, rng = vectors_of(count, size=size), np.random.default_rng(2)
    asked = known[rng.integers(0, count, 60)] + 0.3 * rng.standard_normal((60, size)) / np.sqrt(size)
    asked = asked.astype("<f4") / np.linalg.norm(asked, axis=1, keepdims=True).astype("<f4")
    vectors = Vectors(size)
    for number, row in enumerate(known):
        vectors.put(str(number), row.tobytes())
    hits = total = 0
    for one in asked:
        scores = known @ one
        best = np.argsort(-scores)[:5]
        found = vectors.nearest(one.tobytes(), 5)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        for key, score in found:
            assert score == pytest.approx(float(scores[int(key)]), abs=2e-3)
        assert found[0][1] == pytest.approx(float(scores[best[0]]), abs=2e-3)
        total += len(best)
        hits += len({int(key) for key, _ in found} & set(best.tolist()))
    assert hits / total >= (0.99 if count <= vectors.exact_rows else 0.9)


def test_words_are_found_among_thousands_by_the_embedded_embedder():
    """Sparse vectors, too, are found by their signs: a question with one word more finds its twin."""
    rng = Random(3)
    nouns = [f"{a}{b}" for a in ("invoice", "order", "refund", "router") for b in ("", "s", "ing", "er")]
    texts = [f"how do I {rng.choice(nouns)} {n} with {rng.choice(nouns)} {n * 7 % 1000}" for n in range(1500)]
    vectors = Vectors(384)
    for number, text in enumerate(texts):
        vectors.put(str(number), lexical.embed(text, 384))
    for number in range(0, 1500, 50):
        key, score = vectors.nearest(lexical.embed(f"{texts[number]} please", 384), 1)[0]
        assert key == str(number)
        assert score > 0.8


def test_removed_vectors_are_not_found_and_the_others_are():
    """A row that is filled by the last one keeps every key with its own vector."""
    known = vectors_of(700)
    vectors, rng = Vectors(SIZE), Random(4)
    for number, row in enumerate(known):
        vectors.put(str(number), row.tobytes())
    gone = set(rng.sample(range(700), 300))
    for number in gone:
        vectors.remove(str(number))
    vectors.remove("never there")
    assert len(vectors) == 400
    for number in range(700):
        key, score = vectors.nearest(known[number].tobytes(), 1)[0]
        assert (key == str(number)) == (number not in gone)
        assert (score > 0.999) == (number not in gone)


@pytest.mark.parametrize(
    "vector", [b"", pack([1.0] * 3), pack([float("nan")] * 2), pack([float("inf"), 1.0])]
)
def test_what_is_no_vector_of_the_scope_is_refused(vector):
    """Another length, and numbers that are none, are a ValueError."""
    vectors = Vectors(2)
    with pytest.raises(ValueError, match=r"^The vector has"):
        vectors.put("k", vector)
    assert not len(vectors)


def test_vectors_are_scaled_and_zeros_stay_zeros():
    """Length says nothing: only the angle counts."""
    vectors = Vectors(2)
    vectors.put("long", pack([30.0, 40.0]))
    vectors.put("none", pack([0.0, 0.0]))
    assert vectors.nearest(pack([0.3, 0.4]), 2) == [("long", pytest.approx(1.0, abs=1e-3)), ("none", 0.0)]


def test_the_oldest_questions_go_beyond_the_limit_and_asked_again_is_new():
    """A scope holds so many entries; the one added longest ago goes first."""

    async def work():
        index = MemoryIndex(3)
        for number in (0, 1, 2, 0, 3):
            await index.add("s", question(number))
        assert [one.key for one in index.newest("s", 9)] == ["k2", "k0", "k3"]
        assert await index.equal("s", "q1") is None
        assert [one.key for one in await index.nearest("s", pack([1.0, 1.0]), 9)] == ["k2", "k3", "k0"]

    asyncio.run(work())


def test_equal_forms_are_found_without_a_vector_in_their_scope_only():
    """The canonical form finds the question that was added last under it, until that is removed."""

    async def work():
        index = MemoryIndex(9)
        await index.add("s", Question("a", "A?", "form", pack([1.0]), 5.0))
        await index.add("s", Question("b", "B?", "form", pack([1.0]), 6.0))
        found = await index.equal("s", "form")
        assert (found.key, found.text, found.score, found.asked) == ("b", "B?", 1.0, 6.0)
        assert await index.equal("other", "form") is None
        assert await index.equal("s", "") is None
        await index.remove("s", "b")
        await index.remove("s", "never there")
        await index.remove("nowhere", "b")
        assert await index.equal("s", "form") is None
        await index.drop("s")
        assert await index.nearest("s", pack([1.0]), 3) == []
        assert index.nbytes == 0

    asyncio.run(work())


def test_another_embedder_begins_anew():
    """Vectors of another length find nothing; where one is added, the old ones go."""

    async def work():
        index = MemoryIndex(9)
        await index.add("s", question(1, pack([1.0, 0.0])))
        assert await index.nearest("s", pack([1.0, 0.0, 0.0]), 3) == []
        await index.add("s", question(2, pack([1.0, 0.0, 0.0])))
        assert [one.key for one in index.newest("s", 9)] == ["k2"]
        for broken in (b"", b"abc", pack([float("nan")] * 3)):
            await index.add("s", question(3, broken))
            await index.add(f"t{len(broken)}", question(3, broken))
        assert await index.nearest("s", pack([0.0, 1.0, 0.0]), 9)

    asyncio.run(work())


def test_memory_is_bounded_over_all_scopes():
    """Scopes used least recently go; one scope alone takes no more than half of all memory."""

    async def work():
        index = MemoryIndex(100_000, max_bytes=400_000)
        vector = vectors_of(1, size=384)[0].tobytes()
        for number in range(30):
            await index.add(f"s{number}", question(number, vector))
            await index.equal("s0", "")
        assert "s0" in index
        assert "s29" in index
        assert "s1" not in index
        assert index.nbytes <= 400_000
        for number in range(1000):
            await index.add("big", question(number, vector))
        assert index.nbytes <= 400_000
        assert 100 < len(index.newest("big", 1000)) < 200

    asyncio.run(work())


def test_without_numpy_the_index_says_what_it_needs(monkeypatch):
    """The extra is named at start."""
    monkeypatch.setattr(index_module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="extra 'semantic'"):
        MemoryIndex(10)


def test_numpy_is_imported_when_the_first_question_is_added():
    """A process whose cache is off, or not used, pays nothing for it."""
    code = (
        "import asyncio, sys; from firsttoken.cache.index import MemoryIndex, Question\n"
        "index = MemoryIndex(10); asyncio.run(index.nearest('s', b'0000', 1))\n"
        "assert 'numpy' not in sys.modules\n"
        "index.put('s', Question('k', 't', 'c', b'0000')); assert 'numpy' in sys.modules"
    )

    async def work():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        assert await process.wait() == 0

    asyncio.run(work())
