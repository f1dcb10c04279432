"""Answers to similar questions: when one is given, what is only noted, and what must not matter."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from cache.similar_bench import Instance
from policies.fleet import FakeStore
from policies.models import END, Scripted, collect, make_call, say
from virtual_time import run

from firsttoken.cache.index import Question
from firsttoken.cache.similar import YOUNG_SECONDS
from firsttoken.chat import ToolChoice
from firsttoken.errors import StoreError, UpstreamClosedError, UpstreamError

FIRST = "How do I reset my password?"
ALIKE = "How can I reset my password please?"
OTHER = "How do I bake bread?"


def test_a_similar_question_gets_the_answer_of_the_first():
    """Equal words in another form are enough; the record says so, and the model is not asked."""

    async def work():
        instance = Instance()
        first = await instance.ask(FIRST)
        assert (first.record.cache, first.text) == ("miss", f"About: {FIRST}")
        alike = await instance.ask(ALIKE)
        assert (alike.record.cache, alike.text) == ("similar", f"About: {FIRST}")
        assert alike.record.notes["similar"] == "1.000"
        assert alike.record.notes["similar_reason"] == "words"
        other = await instance.ask(OTHER)
        assert (other.record.cache, other.text) == ("miss", f"About: {OTHER}")
        assert len(instance.model.calls) == 2

    run(work())


def test_an_answer_that_was_given_again_is_not_kept_under_the_new_question():
    """So a bad label ends it for good: it is in no other place."""

    async def work():
        instance = Instance()
        await instance.ask(FIRST)
        for _ in range(3):
            assert (await instance.ask(ALIKE)).record.cache == "similar"
        assert len(instance.tiers.memory) == 1

    run(work())


def test_a_near_question_is_served_by_its_vector():
    """Other words: found by cosine, at or above the threshold, past the guard."""

    async def work():
        asked = "What are the opening hours of the city library?"
        near = "What are the opening hours of the big city library?"
        instance = Instance(threshold=0.5)
        await instance.ask(asked)
        call = await instance.ask(near)
        lowest = float(call.record.notes["similar"])
        assert 0.5 <= lowest < 1.0
        strict = Instance(threshold=min(1.0, lowest + 0.01))
        await strict.ask(asked)
        assert (await strict.ask(near)).record.cache == "miss"

    run(work())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
        ("What is 5 mg in grams?", "What is 50 mg in grams?"),
        ("How far is it from Rome to Paris?", "How far is it from Paris to Rome?"),
        ("Is the app free?", "Is the app not free?"),
    ],
)
def test_a_near_miss_is_vetoed_by_the_guard(first, second):
    """However near the vectors are; the record has the rule that spoke against it."""

    async def work():
        instance = Instance(threshold=0.1)
        await instance.ask(first)
        call = await instance.ask(second)
        assert (call.record.cache, call.text) == ("miss", f"About: {second}")
        assert call.record.notes["similar_reason"] not in ("words", "meaning", "")
        assert "similar" in call.record.notes

    run(work())


def test_shadow_never_serves():
    """Every call is answered by the model; what would have been is noted before the answer ends."""

    async def work():
        instance = Instance(mode="shadow")
        for text in (FIRST, ALIKE, FIRST + "!", OTHER):
            call = await instance.ask(text)
            assert (call.record.cache, call.text) == ("miss", f"About: {text}")
        assert len(instance.model.calls) == 4
        alike = (await instance.ask("Please, how could I reset my password?")).record
        assert (alike.notes["similar"], alike.notes["similar_reason"]) == ("1.000", "shadow: words")

    run(work())


def test_shadow_takes_no_time_of_the_call():
    """Embedder and store may be slow: the model's answer waits for neither."""

    async def work():
        instance = Instance(mode="shadow", cache={"memory_bytes": 0})
        instance.embedder.fault = 3.0
        instance.store.delay = 0.0
        call = make_call(FIRST, temperature=0.0)
        began = asyncio.get_running_loop().time()
        await collect(instance.route(), call)
        assert asyncio.get_running_loop().time() == began
        await instance.shadow.settle(60)
        instance.embedder.fault = None
        assert (await instance.ask(ALIKE)).record.notes["similar_reason"] == "shadow: words"

    run(work())


def test_a_question_is_embedded_once():
    """A look-up and the addition after it share one vector; equal words need none."""

    async def work():
        for mode in ("on", "shadow"):
            instance = Instance(mode=mode)
            await instance.ask(FIRST)
            assert instance.embedder.calls == 1
        instance = Instance()
        await instance.ask(FIRST)
        await instance.ask(ALIKE)
        assert instance.embedder.calls == 1

    run(work())


@pytest.mark.parametrize(
    "fault", [UpstreamError("no"), StoreError("no"), 60.0], ids=["error", "store", "slow"]
)
def test_an_embedder_that_fails_is_a_miss(fault):
    """Nor is it asked again for a while; then everything works as before."""

    async def work():
        instance = Instance()
        instance.embedder.fault = fault
        call = await instance.ask(FIRST)
        assert call.text == f"About: {FIRST}"
        assert call.record.notes["similar_reason"].startswith("failed")
        began = asyncio.get_running_loop().time()
        assert (await instance.ask(OTHER)).record.notes["similar_reason"] == "paused"
        assert instance.embedder.calls == 1
        assert asyncio.get_running_loop().time() == began
        instance.embedder.fault = None
        await asyncio.sleep(2.0)
        await instance.ask("How do I reset my password today or so?")
        await instance.ask(OTHER + "!")
        assert instance.embedder.calls > 1

    run(work())


def test_a_slow_look_up_costs_half_a_second_at_most():
    """The limit of a look-up in the way of a call."""

    async def work():
        instance = Instance()
        instance.embedder.fault = 60.0
        call = make_call(FIRST, temperature=0.0)
        began = asyncio.get_running_loop().time()
        await collect(instance.route(), call)
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.5)

    run(work())


def test_an_index_that_fails_is_a_miss():
    """Whatever a service says of itself, the call is answered."""

    class Broken:
        async def equal(self, *_):
            raise StoreError("gone")

        nearest = add = remove = equal

    async def work():
        instance = Instance()
        instance.shared.lookup._index = Broken()
        for _ in range(3):
            call = await instance.ask(FIRST)
            assert call.text == f"About: {FIRST}"

    run(work())


@pytest.mark.parametrize(("wait", "stays"), [(0.0, True), (YOUNG_SECONDS * 1.1, False)])
def test_a_damaged_answer_is_a_miss(wait, stays):
    """What does not open is no answer; after a minute a question without one goes from the index."""

    async def work():
        store = FakeStore()
        first = Instance(store)
        await first.ask(FIRST)
        key = next(iter(first.tiers.memory._entries))
        assert await store.get(f"cache:{key}")
        await store.put(f"cache:{key}", b"vFTgarbage", 3600.0)
        await asyncio.sleep(wait)
        other = Instance(store)
        answered = await other.ask(ALIKE)
        assert (answered.record.cache, answered.text) == ("miss", f"About: {ALIKE}")
        assert answered.record.notes["similar_reason"] == "gone"
        scope = next(iter(other.index._memory._scopes))
        held = {one.text for one in other.index._memory.newest(scope, 9)}
        assert held == ({FIRST, ALIKE} if stays else {ALIKE})

    run(work())


def test_an_answer_that_is_due_for_renewal_answers_no_other_question():
    """Only its own question renews it: older than its time it is a miss here."""

    async def work():
        instance = Instance(cache={"ttl": 100.0})
        await instance.ask(FIRST)
        await asyncio.sleep(99)
        assert (await instance.ask(ALIKE)).record.cache == "similar"
        await asyncio.sleep(2)
        assert (await instance.ask(ALIKE)).record.cache == "miss"

    run(work())


@pytest.mark.parametrize(
    "script",
    [
        [say("cut"), UpstreamClosedError("cut")],
        [say("too long"), say("", finish="length")],
        [say("", finish="stop")],
    ],
    ids=["broken", "length", "empty"],
)
def test_only_whole_answers_are_given_again(script):
    """What broke off, was cut or is empty answers no other question."""

    async def work():
        instance = Instance(model=Scripted(script, [say("whole"), END]))
        call = make_call(FIRST, temperature=0.0)
        with suppress(UpstreamClosedError):
            await collect(instance.route(), call)
        await instance.shadow.settle(60)
        assert (await instance.ask(ALIKE)).text == "whole"

    run(work())


def test_a_client_that_leaves_adds_nothing():
    """An answer that nobody read to its end is not in the index."""

    async def work():
        instance = Instance(model=Scripted([say("a"), 5.0, END], [say("whole"), END]))
        stream = instance.route().stream(make_call(FIRST, temperature=0.0))
        await anext(stream)
        await stream.aclose()
        await instance.shadow.settle(60)
        assert (await instance.ask(ALIKE)).text == "whole"

    run(work())


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.0},
        {"tools": (), "tool_choice": ToolChoice("none"), "temperature": 0.7},
    ],
)
def test_what_may_not_be_kept_is_neither_looked_up_nor_added(fields):
    """The exact cache's rules hold here, too."""

    async def work():
        instance = Instance()
        for text in (FIRST, ALIKE):
            call = await instance.ask(text, **fields)
            assert call.record.cache == ""
            assert not call.record.notes
        assert instance.embedder.calls == 0

    run(work())


def test_a_client_that_wants_a_new_answer_gets_one():
    """``cache-control: no-cache`` passes both caches by."""

    async def work():
        instance = Instance()
        await instance.ask(FIRST)
        call = make_call(ALIKE, temperature=0.0)
        call.headers = {"cache-control": "no-cache"}
        await collect(instance.route(), call)
        assert call.record.cache == "miss"

    run(work())


def test_a_cold_instance_serves_what_others_were_asked():
    """Questions and answers are in the store: a new process has hits from its first call on."""

    async def work():
        store = FakeStore()
        await Instance(store).ask(FIRST)
        cold = Instance(store)
        call = await cold.ask(ALIKE)
        assert (call.record.cache, call.text) == ("similar", f"About: {FIRST}")

    run(work())


def test_a_store_that_is_down_is_a_miss():
    """Whether an answer is in quarantine cannot be told then, so none is served."""

    async def work():
        instance = Instance()
        await instance.ask(FIRST)
        instance.store.down = True
        call = await instance.ask(ALIKE)
        assert (call.record.cache, call.text) == ("miss", f"About: {ALIKE}")

    run(work())


def test_the_index_takes_no_key_of_its_own_answer():
    """A question whose own answer expired is not answered by itself."""

    async def work():
        instance = Instance(cache={"max_age": 50.0, "ttl": 20.0})
        await instance.ask(FIRST)
        await asyncio.sleep(60)
        call = await instance.ask(FIRST)
        assert call.record.cache == "miss"
        assert call.record.notes["similar_reason"] == "nothing near"

    run(work())


def test_questions_of_equal_vectors_are_tried_one_after_the_other():
    """Where the nearest is vetoed or gone, the next one may answer."""

    async def work():
        instance = Instance(threshold=0.1, candidates=5)
        first = await instance.ask("How do I return a parcel?")
        assert first.record.cache == "miss"
        scope, held = next(iter(instance.index._memory._scopes.items()))
        good = held.newest(1)[0]
        ghost = Question("ghost", "How do I return my parcel?", "x", good.vector, good.asked)
        instance.index._memory.put(scope, ghost)
        call = await instance.ask("How can I return a parcel, please?")
        assert (call.record.cache, call.text) == ("similar", "About: How do I return a parcel?")

    run(work())
