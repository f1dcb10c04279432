"""Resuming: who is asked to go on with a broken answer, with which words, and what the client hears."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace
from policies.models import END, Scripted, Step, collect, make_call, open_model, say, text_of
from virtual_time import run

from firsttoken.chat import Message, ReasoningWish, Text
from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    UnavailableError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Call, Chunk, Usage
from firsttoken.policies.resume import WAIT, Resume
from firsttoken.policies.timeouts import Timeouts
from firsttoken.settings import Resume as Limits
from firsttoken.settings import Timeouts as TimeLimits
from firsttoken.wire.continued import INSTRUCTION

CUT = UpstreamClosedError("cut")
ALL = {"a/m": "prefill", "b/m": "prefill"}


class Targets(Scripted):
    """A model that says which target answered, as the targets of a route do: one name for each call."""

    def __init__(self, *scripts: Any, names: tuple[str, ...] = ("a/m", "b/m", "c/m")) -> None:
        super().__init__(*scripts)
        self._names = names

    async def stream(self, call: Call) -> Any:
        call.record.target = self._names[len(self.calls)]
        async with aclosing(super().stream(call)) as chunks:
            async for chunk in chunks:
                yield chunk


def resumed(
    *scripts: Any, methods: dict[str, str] | None = None, attempts: int = 2, **options: Any
) -> tuple[Resume, Targets]:
    model = Targets(*scripts)
    limits = Limits(attempts=attempts, max_chars=options.pop("max_chars", 1000))
    return Resume(model, limits, methods or ALL, **options), model


def said(call: Call) -> list[tuple[str, str]]:
    return [(message.role, message.text()) for message in call.request.messages]


BROKEN: tuple[Step, ...] = (say("Hel"), say("lo, w"), CUT)
REST: tuple[Step, ...] = (say("or"), say("ld"), END)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (ALL, [("user", "Hi"), ("assistant", "Hello, w")]),
        ({**ALL, "b/m": "ask"}, [("user", "Hi"), ("assistant", "Hello, w"), ("user", INSTRUCTION)]),
    ],
)
def test_another_target_goes_on(methods: dict[str, str], words: list[tuple[str, str]]) -> None:
    """The next target gets what was said; all of them are asked unless each takes a prefill."""

    async def test() -> None:
        model, targets = resumed(BROKEN, REST, methods=methods)
        call = make_call()
        assert await text_of(model, call) == "Hello, world"
        second = targets.calls[1]
        assert said(second) == words
        assert (second.kind, second.tried, second.source.wire) == ("resume", {"a/m"}, "")
        assert second.record is call.record
        assert (call.record.resumed, call.record.target) == (1, "b/m")
        assert call.tried == set()

    run(test())


def test_it_can_be_opened() -> None:
    """Opened, it holds the first content, and the rest of it resumes; left unread, nothing runs on."""

    async def test() -> None:
        model, targets = resumed(BROKEN, REST)
        opened = await open_model(model, make_call())
        assert [chunk.text for chunk in opened.head] == ["Hel"]
        assert "".join([chunk.text async for chunk in opened.chunks()]) == "Hello, world"
        model, targets = resumed(BROKEN)
        await (await open_model(model, make_call())).aclose()
        assert (targets.active, targets.closed) == (0, 1)

    run(test())


def test_an_answer_that_holds_is_passed_on_as_it_is() -> None:
    """The same chunks, bytes included."""

    async def test() -> None:
        chunks = [say("a", raw=b"1", wire="w"), say("b", raw=b"2", wire="w"), END]
        model, _ = resumed(chunks)
        assert await collect(model, make_call()) == chunks

    run(test())


def test_bytes_are_followed_once() -> None:
    """Behind bytes of the client's format the first chunk tells what was said; none has bytes of its own."""

    async def test() -> None:
        raw = {"wire": "openai_chat", "model": "x"}
        first = (say("Hel", raw=b"1", **raw), say("lo", raw=b"2", **raw), CUT)
        second = (say(", ", raw=b"3", **raw), say("w", raw=b"4", **raw), CUT)
        model, _ = resumed(first, second, (say("orld"), END))
        chunks = await collect(model, make_call())
        assert [chunk.raw for chunk in chunks] == [b"1", b"2", *[b""] * 4]
        follows = [chunk.follows for chunk in chunks]
        assert follows == [None, None, say("Hello", raw=b"12", **raw), None, None, None]
        model, _ = resumed((say("Hel", raw=b"1", wire="other"), CUT), REST)
        assert all(chunk.follows is None for chunk in await collect(model, make_call()))

    run(test())


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (CUT, True),
        (UpstreamError("event"), True),
        (UpstreamTimeoutError("gap"), True),
        (DeadlineError("late"), False),
        (UpstreamRefusedError("no"), False),
    ],
)
def test_only_what_another_target_may_do_better_is_resumed(error: FirstTokenError, heard: bool) -> None:
    """The rest ends with its own error."""

    async def test() -> None:
        model, targets = resumed((say("Hel"), error), (say("lo"), END))
        if heard:
            assert await text_of(model, make_call()) == "Hello"
            return
        with pytest.raises(type(error), match=str(error)):
            await collect(model, make_call())
        assert len(targets.calls) == 1

    run(test())


def test_silence_counts_as_broken() -> None:
    """A gap is an error like any other; the silent call is closed."""

    async def test() -> None:
        targets = Targets((say("Hel"), 60.0, say("never")), (say("lo"), END))
        model = Resume(Timeouts(targets, TimeLimits(), gap=5.0), Limits(), ALL)
        assert await text_of(model, make_call()) == "Hello"
        assert (targets.closed, targets.active) == (1, 0)

    run(test())


def test_what_broke_before_it_began_is_not_ours() -> None:
    """Until the first content other policies act."""

    async def test() -> None:
        model, targets = resumed((CUT,))
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call())
        assert len(targets.calls) == 1

    run(test())


def test_whole_answers_pass() -> None:
    """What is not streamed is not resumed."""

    async def test() -> None:
        model, targets = resumed((say("all"), CUT))
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call(stream=False))
        assert len(targets.calls) == 1

    run(test())


def test_an_answer_may_break_again() -> None:
    """Each time the next one gets all that was said."""

    async def test() -> None:
        model, targets = resumed((say("a"), CUT), (say("b"), CUT), (say("c"), END))
        call = make_call()
        assert await text_of(model, call) == "abc"
        assert said(targets.calls[2])[-1] == ("assistant", "ab")
        assert [asked.tried for asked in targets.calls[1:]] == [{"a/m"}, {"b/m"}]
        assert call.record.resumed == 2

    run(test())


def test_attempts_are_counted() -> None:
    """After so many the client gets the error of the last break, with what was said before it."""

    async def test() -> None:
        last = UpstreamError("the last one")
        model, targets = resumed((say("a"), CUT), (say("b"), last), attempts=1)
        chunks = model.stream(make_call())
        assert [(await anext(chunks)).text, (await anext(chunks)).text] == ["a", "b"]
        with pytest.raises(UpstreamError, match="the last one"):
            await anext(chunks)
        assert len(targets.calls) == 2

    run(test())


def test_the_only_target_is_asked_again() -> None:
    """Where there is no other one, after a short wait."""

    async def test() -> None:
        model, targets = resumed(BROKEN, REST, methods={"a/m": "prefill"})
        assert await text_of(model, make_call()) == "Hello, world"
        assert targets.calls[1].tried == set()
        assert WAIT / 2 <= targets.times[1] - targets.times[0] <= WAIT * 1.5
        model, targets = resumed(BROKEN, REST, methods={"a/m": "prefill"})
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call(deadline=WAIT / 2))

    run(test())


def test_who_cannot_go_on_is_left_out() -> None:
    """Not called, thrown away where another policy called it all the same, and never asked in vain."""

    async def test() -> None:
        methods = {"a/m": "prefill", "b/m": "no", "c/m": "prefill"}
        model, targets = resumed(BROKEN, REST, methods=methods)
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call())
        assert targets.calls[1].tried == {"a/m", "b/m"}
        assert (targets.active, targets.closed) == (0, 1)
        model, targets = resumed(BROKEN, REST, methods={"a/m": "no", "b/m": "no"})
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call())
        assert len(targets.calls) == 1

    run(test())


def test_nobody_goes_on() -> None:
    """The client gets the error that broke its answer; the reason why nobody went on is its cause."""

    async def test() -> None:
        model, targets = resumed(BROKEN, (UnavailableError("all down"),))
        call = make_call()
        with pytest.raises(UpstreamClosedError, match="cut") as caught:
            await collect(model, call)
        assert isinstance(caught.value.__cause__, UnavailableError)
        assert [asked.tried for asked in targets.calls[1:]] == [{"a/m"}, set()]
        assert call.record.resumed == 0

    run(test())


def test_a_refused_prefill_is_asked_for() -> None:
    """A model that turns out not to take the beginning of its answer is asked instead."""

    async def test() -> None:
        model, targets = resumed(BROKEN, (UpstreamRefusedError("no prefill"),), REST)
        assert await text_of(model, make_call()) == "Hello, world"
        assert said(targets.calls[2])[-1] == ("user", INSTRUCTION)
        model, targets = resumed(BROKEN, (UpstreamRefusedError("bad"),), methods={**ALL, "b/m": "ask"})
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call())
        assert len(targets.calls) == 2

    run(test())


def test_a_long_answer_is_not_kept() -> None:
    """Beyond the limit of characters it is not resumed; one that finishes is whole."""

    async def test() -> None:
        model, _ = resumed((say("x" * 9), say("y" * 9), CUT), REST, max_chars=10)
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call())
        model, _ = resumed((say("x" * 19), END, CUT), max_chars=10)
        assert await text_of(model, make_call()) == "x" * 19

    run(test())


def test_who_leaves_stops_everything() -> None:
    """A client that goes away while the next target is being called leaves no call behind."""

    async def test() -> None:
        model, targets = resumed(BROKEN, (60.0, *REST))
        task = asyncio.ensure_future(text_of(model, make_call()))
        await asyncio.sleep(1)
        assert targets.active == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (targets.active, targets.closed) == (0, 1)
        model, targets = resumed(BROKEN, REST)
        chunks: Any = model.stream(make_call())
        while "or" not in (await anext(chunks)).text:
            pass
        await chunks.aclose()
        assert targets.active == 0

    run(test())


def test_a_turn_that_the_client_began_grows() -> None:
    """Two turns of the assistant in a row are none of any format."""

    async def test() -> None:
        turns = (Message("user", (Text("Hi"),)), Message("assistant", (Text("Oh: "),)))
        model, targets = resumed(BROKEN, REST)
        call = make_call()
        await collect(model, replace(call, request=replace(call.request, messages=turns)))
        assert said(targets.calls[1]) == [("user", "Hi"), ("assistant", "Oh: Hello, w")]

    run(test())


def test_tokens_are_counted_on() -> None:
    """The limit shrinks by what was said; usage is of the whole answer, as far as anybody can tell."""

    async def test() -> None:
        model, targets = resumed((say("x" * 40), CUT), (say("y"), Chunk(finish="stop", usage=Usage(19, 7))))
        chunks = await collect(model, make_call(max_tokens=100, reasoning=ReasoningWish("low")))
        request = targets.calls[1].request
        assert (request.max_tokens, request.reasoning) == (90, None)
        assert chunks[-1].usage == Usage(input=9, output=17)
        known = Chunk(usage=Usage(input=5, output=1, cached=3))
        model, _ = resumed((known, say("x" * 40), CUT), (say("y"), Chunk(finish="stop", usage=Usage(19, 7))))
        assert (await collect(model, make_call()))[-1].usage == Usage(input=5, output=17, cached=3)

    run(test())


def test_a_limit_that_is_reached_ends_the_answer() -> None:
    """There is nothing left to ask for."""

    async def test() -> None:
        model, targets = resumed((say("x" * 40), CUT), REST)
        chunks = await collect(model, make_call(max_tokens=10))
        assert [chunk.finish for chunk in chunks] == [None, "length"]
        assert len(targets.calls) == 1

    run(test())
