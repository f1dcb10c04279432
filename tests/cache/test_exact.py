"""The exact cache: what is given again, when, by whom it is renewed, and what a broken store costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cache.caches import SLOW, WHOLE, Instance, SharedStore, asked, later, text
from policies.models import END, HELLO, Scripted, collect, make_call, open_model, say
from virtual_time import run

from firsttoken.cache.answers import Place, place_of
from firsttoken.cache.stale import Stale
from firsttoken.chat import Tool
from firsttoken.errors import (
    UnavailableError,
)
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.settings import Route, Weighted


def test_an_equal_request_gets_the_same_answer() -> None:
    """The second call is answered from memory: same text, finish and usage, nothing asked upstream."""

    async def work() -> None:
        model = Scripted(SLOW)
        one = Instance(model)
        assert (await one.ask())[0] == "miss"
        before = asyncio.get_running_loop().time()
        state, chunks = await one.ask()
        assert asyncio.get_running_loop().time() == before
        assert (state, text(chunks)) == ("hit", WHOLE)
        assert (chunks[-1].finish, chunks[-1].usage) == ("stop", END.usage)
        assert len(model.calls) == 1

    run(work())


def test_another_instance_finds_it_in_the_store() -> None:
    """What one instance was told, all of them know; the target's name goes with it."""

    async def work() -> None:
        def named(call: Call) -> Any:
            call.record.target = "eu/m"
            return SLOW

        model, store = Scripted(named), SharedStore()
        here, there = Instance(model, store), Instance(model, store)
        await here.ask()
        call = asked()
        state, chunks = await there.ask(call)
        assert (state, text(chunks), call.record.target) == ("hit", WHOLE, "eu/m")
        gets = store.asked["get"]
        assert (await there.ask())[0] == "hit"
        assert store.asked["get"] == gets  # now from memory
        assert len(model.calls) == 1

    run(work())


def test_it_can_be_opened() -> None:
    """A policy around it opens a hit like any answer."""

    async def work() -> None:
        one = Instance(Scripted(HELLO))
        await one.ask()
        opened = await open_model(one.cached, asked())
        assert text([chunk async for chunk in opened.chunks()]) == "Hello"

    run(work())


@pytest.mark.parametrize("pace", [0.0, 10.0])
def test_pace(pace: float) -> None:
    """At full speed an answer is few chunks; at a pace it is its own, on a schedule."""

    async def work() -> None:
        one = Instance(Scripted(SLOW), SharedStore(), pace=pace)
        await one.ask()
        started = asyncio.get_running_loop().time()
        _, chunks = await one.ask()
        took = asyncio.get_running_loop().time() - started
        assert text(chunks) == WHOLE
        assert (len(chunks), round(took, 3)) == ((9, 1.6) if pace else (1, 0.0))
        _, whole = await one.ask(stream=False)
        assert asyncio.get_running_loop().time() == pytest.approx(started + took)
        assert text(whole) == WHOLE

    run(work())


def test_a_paced_answer_of_one_chunk_is_cut() -> None:
    """An answer that came whole is paced as well."""

    async def work() -> None:
        one = Instance(Scripted((say("x" * 100, finish="stop"),)), pace=100.0)
        await one.ask(stream=False)
        _, chunks = await one.ask()
        assert [len(chunk.text) for chunk in chunks] == [24, 24, 24, 24, 4]
        assert [chunk.finish for chunk in chunks] == [None] * 4 + ["stop"]
        assert asyncio.get_running_loop().time() == pytest.approx(0.96)

    run(work())


APART: list[dict[str, Any]] = [
    {"text": "Ho"},
    {"tenant": "other"},
    {"seed": 1},
    {"max_tokens": 5},
    {"tools": (Tool("f"),)},
    {"headers": {"x-firsttoken-simulate": "tokens=3"}},
]


@pytest.mark.parametrize("fields", APART, ids=str)
def test_whatever_changes_the_answer_has_its_own(fields: dict[str, Any]) -> None:
    """Another prompt, tenant, parameter, tool or header that targets see is another answer."""

    async def work() -> None:
        model = Scripted(HELLO)
        one = Instance(model, tools=True)
        await one.ask()
        assert (await one.ask(**fields))[0] == "miss"
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize(
    "route",
    [
        Route(target="p/m", version="2"),
        Route(target="p/other"),
        Route(targets=["p/m", Weighted("q/m")]),
        Route(target="p/m", content_filter=["q/m"]),
        Route(target="p/m", context_overflow=["q/m"]),
    ],
    ids=str,
)
def test_a_route_that_changed_has_its_own(route: Route) -> None:
    """Another version, or other targets: old answers are not given any more."""
    places = {place_of("m", Route(target="p/m")).scope, place_of("n", Route(target="p/m")).scope}
    assert place_of("m", route).scope not in places
    assert len(places) == 2


def test_labels_of_a_call_do_not_matter() -> None:
    """Delivery, user and metadata are no part of the question."""

    async def work() -> None:
        one = Instance(Scripted(HELLO))
        await one.ask()
        assert (await one.ask(stream=False, user="u", metadata={"a": "b"}))[0] == "hit"

    run(work())


def test_a_key_secret_hides_what_was_asked() -> None:
    """With a secret the names in the store cannot be made from the request."""

    async def work() -> None:
        names = []
        for secret in ("", "one", "two"):
            store = SharedStore()
            await Instance(Scripted(HELLO), store, key_secret=secret).ask()
            names += store.names("cache:")
        assert len(set(names)) == len(names) == 3

    run(work())


def test_answers_with_the_targets_bytes_are_given_in_their_form_only() -> None:
    """Where a field has no neutral word the answer's bytes are kept, for the same form of delivery."""

    async def work() -> None:
        chunk = Chunk(text="Hi", finish="stop", usage=Usage(1, 1), raw=b"data: {}\n\n", wire="openai_chat")
        model = Scripted((chunk,))
        one = Instance(model)
        source = Source("openai_chat", b'{"logprobs":true}', ("logprobs",))

        def call(**fields: Any) -> Call:
            made = asked(**fields)
            made.source = source
            return made

        await one.ask(call())
        state, (again,) = await one.ask(call())
        assert (state, again.raw, again.wire) == ("hit", chunk.raw, chunk.wire)
        assert (await one.ask(call(stream=False)))[0] == "miss"
        assert (await one.ask(call(include_usage=True)))[0] == "miss"
        assert one.answers.key(call()) is None
        _, (plain,) = await one.ask() and await one.ask()
        assert (plain.raw, plain.wire) == (b"", "")

    run(work())


def test_an_answer_without_token_counts_serves_who_does_not_ask_for_them() -> None:
    """Where the target told no usage, a client that must get it makes the answer anew."""

    async def work() -> None:
        model = Scripted((say("Hi"), Chunk(finish="stop")), HELLO)
        one = Instance(model)
        await one.ask()
        assert (await one.ask())[0] == "hit"
        assert (await one.ask(include_usage=True))[0] == "miss"
        assert (await one.ask(stream=False))[0] == "hit"  # the new one has them

    run(work())


def test_tool_calls_come_back_whole() -> None:
    """Fragments of tool calls are joined, each call keeps its id, name and arguments."""

    async def work() -> None:
        fragments = [ToolCall(0, "a", "f"), ToolCall(0, arguments='{"x"'), ToolCall(0, arguments=":1}")]
        others = [ToolCall(1, "b", "g"), ToolCall(1, arguments="{}")]
        steps = [Chunk(tool_calls=(piece,)) for piece in (*fragments, *others)]
        one = Instance(Scripted((*steps, Chunk(finish="tool_calls", usage=Usage(1, 2)))), tools=True)
        await one.ask(tools=(Tool("f"),))
        _, (chunk,) = await one.ask(tools=(Tool("f"),))
        assert chunk.tool_calls == (ToolCall(0, "a", "f", '{"x":1}'), ToolCall(1, "b", "g", "{}"))
        assert chunk.finish == "tool_calls"

    run(work())


def test_the_order_of_what_was_said_is_kept() -> None:
    """Thoughts, text, thoughts again: each has its place."""

    async def work() -> None:
        said = [Chunk(reasoning="a"), Chunk(signature="s"), say("b"), Chunk(reasoning="c"), say("d"), END]
        one = Instance(Scripted(said))
        await one.ask()
        _, chunks = await one.ask()
        assert [(chunk.reasoning, chunk.signature, chunk.text) for chunk in chunks] == [
            ("a", "s", "b"),
            ("c", "", "d"),
        ]

    run(work())


def test_the_client_who_leaves_leaves_nothing() -> None:
    """An answer that was not read to its end is not kept, and the turn is free for the next."""

    async def work() -> None:
        model, store = Scripted(SLOW), SharedStore()
        one = Instance(model, store)
        (task,) = await later(one.ask())
        await asyncio.sleep(3.5)
        task.cancel()
        await asyncio.wait({task})
        assert (model.closed, model.active) == (1, 0)
        started = asyncio.get_running_loop().time()
        assert (await Instance(model, store).ask())[0] == "miss"
        assert asyncio.get_running_loop().time() == started + 8  # it did not wait

    run(work())


def test_without_a_store_every_instance_has_its_own() -> None:
    """A store that is down costs nothing: no wait, no failure, and the memory still answers."""

    async def work() -> None:
        model, store = Scripted(HELLO), SharedStore()
        store.down = True
        one, other = Instance(model, store), Instance(model, store)
        assert [(await one.ask())[0] for _ in range(3)] == ["miss", "hit", "hit"]
        assert (await other.ask())[0] == "miss"
        assert asyncio.get_running_loop().time() == 0
        store.down = False
        assert (await Instance(model, store).ask())[0] == "miss"

    run(work())


def test_a_store_that_goes_down_keeps_the_memory() -> None:
    """What an instance holds already it goes on giving."""

    async def work() -> None:
        store = SharedStore()
        one = Instance(Scripted(HELLO), store)
        await one.ask()
        store.down = True
        await asyncio.sleep(60)
        assert (await one.ask())[0] == "hit"

    run(work())


def test_the_ladder_has_old_answers() -> None:
    """The rung gives an answer up to ``max_age`` old, where the client lets it, and is unavailable else."""

    async def work() -> None:
        one = Instance(Scripted(HELLO), ttl=10, max_age=100)
        rung = Stale(one.answers)
        with pytest.raises(UnavailableError):
            await collect(rung, asked())
        await one.ask()
        await asyncio.sleep(50)
        call = asked(headers={"cache-control": "no-cache"})
        assert text(await collect(rung, call)) == "Hello"
        assert call.record.cache == "stale"
        with pytest.raises(UnavailableError):
            await collect(rung, asked(headers={"cache-control": "no-store"}))
        await asyncio.sleep(51)
        with pytest.raises(UnavailableError):
            await collect(rung, asked())

    run(work())


def test_place_is_only_what_it_says() -> None:
    """A call without tags has the labels of everything, its tenant and its route."""
    place = place_of("r", Route(target="p/m"), ["x-a"])
    assert isinstance(place, Place)
    assert place.labels == ("route:r",)
    assert set(place.headers) == {"x-a", "x-firsttoken-simulate"}

    async def work() -> None:
        one = Instance(Scripted(HELLO), place=place)
        assert one.answers.labels(make_call()) == ("all", "tenant:local", "route:r")

    run(work())
