"""Nothing crosses: not from one tenant, model, system prompt, set of tools or conversation to another."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from cache.postgres import postgres
from cache.similar_bench import Instance
from policies.fleet import FakeStore
from policies.models import END, Scripted, make_call, say, text_of
from virtual_time import run

from firsttoken.cache import pgvector
from firsttoken.cache.pgvector import PgvectorIndex
from firsttoken.chat import Message, OutputFormat, Text, Tool, ToolChoice

QUESTIONS = [
    "How do I reset my password?",
    "How can I reset my password please?",
    "how do I reset my password",
]


def choices(rng: Random) -> dict[str, object]:
    """One of many surroundings of a question."""
    system = rng.choice(
        [(), (Message("system", (Text("Be brief."),)),), (Message("system", (Text("Be long."),)),)]
    )
    turns = rng.choice(
        [(), (Message("user", (Text("Hi"),)), Message("assistant", (Text(rng.choice("ab")),)))]
    )
    tools = rng.choice([(), (Tool("a"),), (Tool("b"),)])
    return {
        "tenant": rng.choice(["t1", "t2"]),
        "route": rng.choice(["m", "n"]),
        "version": rng.choice(["", "2"]),
        "before": (*system, *turns),
        "tools": tools,
        "tool_choice": ToolChoice("none") if tools else None,
        "output": rng.choice([None, OutputFormat()]),
        "max_tokens": rng.choice([None, 50]),
        "seed": rng.choice([None, 1]),
    }


def told(where: dict[str, object]) -> str:
    return repr(sorted(where.items(), key=lambda item: item[0]))


async def ask(instance: Instance, where: dict[str, object], text: str) -> tuple[str, str]:
    fields = {key: where[key] for key in ("tools", "tool_choice", "output", "max_tokens", "seed")}
    messages = (*where["before"], Message("user", (Text(text),)))
    call = make_call(temperature=0.0, tenant=where["tenant"], **fields)
    call.request = type(call.request)(
        **{
            **{name: getattr(call.request, name) for name in call.request.__struct_fields__},
            "messages": messages,
        }
    )
    call.headers = {"surroundings": told(where)}
    route = instance.route(where["route"], version=where["version"])
    answer = await text_of(route, call)
    await instance.shadow.settle(60)
    return answer, call.record.cache


def echo() -> Scripted:
    """A model that says in what surroundings it was asked."""
    return Scripted(lambda call: [say(call.headers["surroundings"]), END])


def test_no_answer_crosses_in_a_random_run():
    """Of 2,000 calls in hundreds of surroundings hundreds are hits, each of its own surroundings."""

    async def work():
        rng = Random(11)
        store = FakeStore()
        settings = {"tools": True}
        instances = [Instance(store, model=echo(), cache=settings, threshold=0.2) for _ in range(2)]
        hits = 0
        for _ in range(2000):
            where = choices(rng)
            answer, cache = await ask(rng.choice(instances), where, rng.choice(QUESTIONS))
            assert answer == told(where)
            hits += cache == "similar"
            await asyncio.sleep(0.5)
        assert hits > 200

    run(work())


def test_one_tenant_cannot_put_words_into_anothers_mouth():
    """Whatever a hostile tenant asks and is told, another gets the model's own answer."""

    async def work():
        instance = Instance(model=Scripted(lambda call: [say(f"for {call.tenant}"), END]), threshold=0.0)
        for text in (*QUESTIONS, "Passwords"):
            await instance.ask(text, tenant="hostile")
        for text in QUESTIONS:
            answered = await instance.ask(text, tenant="other")
            assert answered.text == "for other"

    run(work())


@pytest.mark.parametrize("tenant", ["a", "b", "a:b", "", "a\nb"])
def test_tenants_with_odd_names_are_apart_too(tenant):
    """Names that contain what separates them in a key change nothing."""

    async def work():
        instance = Instance(model=Scripted(lambda call: [say(call.tenant), END]))
        for other in ("a", "b", "a:b", "", "a\nb"):
            assert (await instance.ask(QUESTIONS[0], tenant=other)).text == other
        assert (await instance.ask(QUESTIONS[1], tenant=tenant)).text == tenant

    run(work())


def test_the_same_holds_with_an_index_that_all_share(monkeypatch):
    """In PostgreSQL, where all scopes are in one table, end to end on a real server."""

    async def work(url: str) -> None:
        rng = Random(12)
        instance = Instance(FakeStore(), model=echo(), cache={"tools": True}, threshold=0.2)
        index = instance.shared.lookup._index = PgvectorIndex(url, entries=1000, ttl=1e9)
        instance.shared.lookup._seconds = 60.0  # the machine may be busy
        hits = 0
        for _ in range(150):
            where = {**choices(rng), "seed": None, "max_tokens": None, "output": None, "version": ""}
            answer, cache = await ask(instance, where, rng.choice(QUESTIONS))
            assert answer == told(where)
            hits += cache == "similar"
        assert hits > 15
        await index.aclose()

    monkeypatch.setattr(pgvector, "COMMAND_SECONDS", 60.0)
    with postgres() as url:
        asyncio.run(work(url))
