"""What a judge or a person says of similar answers decides whether they are served."""

from __future__ import annotations

import asyncio

from cache.similar_bench import Instance
from policies.fleet import FakeStore
from policies.models import END, Scripted, say
from virtual_time import run

from firsttoken.cache.judge import READ_SECONDS
from firsttoken.cache.similar import _label_name

FIRST = "How do I reset my password?"
ALIKE = "How can I reset my password please?"
JUDGED = {"judge": "judge", "sample": 1.0, "precision": 0.5}


def test_a_bad_label_by_hand_ends_it_for_all_instances():
    """One is enough; its own question still has it."""

    async def work():
        store = FakeStore()
        one, other = Instance(store), Instance(store)
        await one.ask(FIRST)
        hit = await one.ask(ALIKE)
        assert hit.record.cache == "similar"
        assert await other.similar().label("local", hit.id, good=True)
        assert (await other.ask(ALIKE)).record.cache == "similar"
        assert not await other.similar().label("somebody else", hit.id, good=False)
        assert not await other.similar().label("local", "unknown", good=False)
        assert (await other.ask(ALIKE)).record.cache == "similar"
        assert await other.similar().label("local", hit.id, good=False)
        for number, instance in enumerate((one, other, Instance(store))):
            again = await instance.ask(ALIKE + "!" * number)
            assert again.text != f"About: {FIRST}"
        assert (await one.ask(FIRST)).record.cache == "hit"

    run(work())


def test_a_bad_judgement_ends_it_in_shadow_as_well():
    """The judge's NO puts an answer into quarantine before anybody was served."""

    async def work():
        store = FakeStore()
        shadow = Instance(store, mode="shadow", judging=Scripted([say("NO"), END]), **JUDGED)
        await shadow.ask(FIRST)
        await shadow.ask(ALIKE)
        assert len(shadow.judge.calls) == 1
        assert (await Instance(store).ask("Please how can I reset my password")).record.cache == "miss"

    run(work())


def test_with_a_judge_only_categories_that_were_shown_good_serve():
    """Hits of others are noted and judged, not served: four good ones show a precision of one half."""

    async def work():
        instance = Instance(**JUDGED)
        await instance.ask(FIRST)
        served = []
        for number in range(7):
            answered = await instance.ask(f"How can I reset my password{'!' * number}")
            served.append(answered.record.cache)
            await asyncio.sleep(READ_SECONDS)
        assert served == ["miss"] * 4 + ["similar"] * 3
        other = await instance.ask("Please explain how I reset my password")
        assert other.record.notes["similar_reason"].startswith("shadow")
        assert other.record.cache == "miss"

    run(work())


def test_a_label_without_a_judge_counts_nothing():
    """A good one changes nothing; a bad one still ends the answer's use."""

    async def work():
        instance = Instance()
        await instance.ask(FIRST)
        hit = await instance.ask(ALIKE)
        assert await instance.similar().label("local", hit.id, good=True)
        assert instance.shared.judge is None
        assert (await instance.ask(ALIKE)).record.cache == "similar"

    run(work())


def test_what_is_kept_for_a_label_holds_no_words():
    """Neither the question nor the answer: only which answer it was."""

    async def work():
        instance = Instance()
        await instance.ask(FIRST)
        hit = await instance.ask(ALIKE)
        kept = await instance.store.get(_label_name("local", hit.id))
        assert b"password" not in kept

    run(work())
