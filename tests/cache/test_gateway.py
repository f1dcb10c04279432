"""The caches where they belong: around the routes of a gateway, seen over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.errors import ConfigError
from firsttoken.settings import Cache, MemoryStore, Route, Rung, Semantic, SimulatedProvider

ON = Cache(mode="on")
PROVIDER = SimulatedProvider(profile="ttft_ms=0,itl_ms=0,tokens=6")


def app_with(**sections: Any) -> Any:
    """An application whose answers are kept."""
    route = Route(targets=["simulated/m"])
    defaults = {"cache": ON, "providers": {"simulated": PROVIDER}, "models": {"m": route}}
    return make_app(**{**defaults, **sections})


async def answers(app: Any, *bodies: dict[str, Any], **options: Any) -> list[Answer]:
    """Send one request after the other."""
    return [await ask(app, body, **options) for body in bodies]


def kept(answer: Answer) -> str | None:
    return answer.headers.get("x-firsttoken-cache")


def test_the_same_request_is_answered_again() -> None:
    """Streamed or whole, in the words of the first answer; one call went to the target."""

    async def work() -> tuple[list[Answer], int]:
        app = app_with()
        body = chat(temperature=0)
        said = await answers(app, {**body, "stream": True}, {**body, "stream": True}, body)
        report = (await ask(app, method="GET", path="/v1/status")).json()
        assert report["cache"] == {"miss": 1, "hit": 2}
        return said, app.gateway.targets["simulated/m"].stats.calls

    (first, again, whole), calls = asyncio.run(work())
    assert [kept(answer) for answer in (first, again, whole)][1:] == ["hit", "hit"]
    assert again.text() == first.text() == whole.json()["choices"][0]["message"]["content"]
    assert calls == 1


def test_a_random_answer_is_not_kept() -> None:
    """Nor is anything while the cache is off."""
    body = chat()
    assert [kept(answer) for answer in asyncio.run(answers(app_with(), body, body))] == [None, None]
    still = chat(temperature=0)
    assert [kept(a) for a in asyncio.run(answers(app_with(cache=Cache()), still, still))] == [None, None]


def test_an_old_answer_is_a_rung_of_the_ladder() -> None:
    """When all targets fail, what is kept answers before a fixed text does, and says so."""

    async def work() -> list[Answer]:
        provider = SimulatedProvider(profile="ttft_ms=0,itl_ms=0,tokens=6")
        route = Route(target="simulated/m", degrade=[Rung(text="Busy.", name="busy")])
        app = app_with(providers={"simulated": provider}, models={"m": route})
        body = chat(temperature=0)
        await ask(app, body)
        model = app.gateway.providers["simulated/m"]
        model.profile = model.profile.changed("fault=status,status=503")
        looked_past = {"headers": {"cache-control": "no-cache"}}
        return [await ask(app, body, **looked_past), await ask(app, chat("Else", temperature=0))]

    old, fixed = asyncio.run(work())
    assert (old.headers["x-firsttoken-rung"], kept(old)) == ("stale", "stale")
    assert fixed.headers["x-firsttoken-rung"] == "busy"


def test_a_similar_question_is_answered_where_that_is_on() -> None:
    """In shadow mode it is only noted."""
    first = chat("How do I reset my password?", temperature=0)
    second = chat("Please tell me how I reset my password.", temperature=0)

    def second_of(mode: str) -> Answer:
        app = app_with(semantic=Semantic(mode=mode), store=MemoryStore())
        return asyncio.run(answers(app, first, second))[1]

    assert kept(second_of("on")) == "similar"
    assert kept(second_of("shadow")) != "similar"


def test_what_needs_the_cache_says_so() -> None:
    """An old answer as a rung, and similar questions, need kept answers."""
    route = Route(target="simulated/m", degrade=[Rung(stale=True)])
    with pytest.raises(ConfigError, match=r"stale = true needs kept answers"):
        app_with(cache=Cache(), models={"m": route})
