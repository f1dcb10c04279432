"""Where the halves of an answer meet: nothing is said twice, and what does not fit is not passed on."""

from __future__ import annotations

from typing import Any

import pytest
from policies.models import END, Step, collect, make_call, say, text_of
from policies.test_resume import ALL, BROKEN, CUT, REST, resumed, said
from virtual_time import run

from firsttoken.chat import OutputFormat
from firsttoken.errors import UpstreamClosedError
from firsttoken.model import Chunk, ToolCall, Usage

ASK = {"a/m": "ask", "b/m": "ask"}
LONG = "All happy families are alike"


def tool(index: int = 0, arguments: str = "", **fields: Any) -> Chunk:
    return Chunk(tool_calls=(ToolCall(index=index, arguments=arguments, **fields),))


def halves(
    first: tuple[Step, ...], second: tuple[Step, ...], methods: dict[str, str] = ALL, **fields: Any
) -> list[Chunk]:
    """The whole answer, made of two."""
    options = {"exact": fields.pop("exact", ())}

    async def test() -> list[Chunk]:
        return await collect(
            resumed((*first, CUT), second, methods=methods, **options)[0], make_call(**fields)
        )

    return run(test())


def text(chunks: list[Chunk]) -> str:
    return "".join([chunk.text for chunk in chunks])


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        (LONG, ["; every", " one"], "; every one"),
        (LONG, [f"{LONG}; every"], "; every"),
        (LONG, ["families", " are alike", "; every"], "; every"),
        (LONG, ["fam", "ilies are", " alike"], ""),
        (LONG, ["families are not"], "families are not"),
        (LONG, ["families are"], "families are"),
        (LONG, ["are alike, too"], "are alike, too"),
        ("abcabcabcabcabc", ["abcabcabcabcabc", "d"], "d"),
        ("x" * 900, ["x" * 400 + "y"], "y"),
        ("short", ["short", " more"], "short more"),
    ],
    ids=[
        *("new", "all of it", "its end", "only its end", "another end", "no end", "too short to tell"),
        *("itself", "the longest", "too little said"),
    ],
)
def test_what_an_asked_model_repeats_is_dropped(first: str, second: list[str], whole: str) -> None:
    """The longest end of what was said, of 12 characters and more, with which the second half begins."""
    steps = [say(piece) for piece in second]
    assert text(halves((say(first),), (*steps, END), ASK)) == first + whole
    assert text(halves((say(first),), tuple(steps), ASK)) == first + whole


def test_little_is_held_back() -> None:
    """A second half that can be no repetition is passed on as it comes."""
    chunks = halves((say(LONG),), (say("; e"), say("very"), END), ASK)
    assert [chunk.text for chunk in chunks] == [LONG, "; e", "very", ""]


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ("Hello ", [" wor", "ld"], "Hello world"),
        ("Hello ", ["wor", "ld"], "Hello world"),
        ("Hello", [" world"], "Hello world"),
        ("Hel", ["lo"], "Hello"),
        ("One.\n\n", ["\n", "\nTwo"], "One.\n\nTwo"),
        ("One.\n\n", ["\n", "Two"], "One.\n\nTwo"),
        ("One. ", ["\nTwo"], "One. \nTwo"),
        (" \n", [" \nHello"], " \nHello"),
    ],
)
def test_white_space_at_a_prefill_is_said_once(first: str, second: list[str], whole: str) -> None:
    """It is left out of the request, and dropped where the model says it (again); none is ever added."""
    assert text(halves((say(first),), (*[say(piece) for piece in second], END))) == whole

    async def test() -> None:
        model, targets = resumed((say("Hello "), CUT), REST)
        await collect(model, make_call())
        assert said(targets.calls[1])[-1] == ("assistant", "Hello")

    run(test())


def test_thoughts_are_said_once() -> None:
    """Before any text the same is asked again; its thoughts and their signature are another answer's."""

    async def test() -> None:
        again = (
            Chunk(reasoning="Well", signature="s2", redacted="r"),
            Chunk(text="Hi", usage=Usage(5, 1)),
            END,
        )
        model, targets = resumed((Chunk(reasoning="Hmm, let me"), CUT), again)
        call = make_call()
        chunks = await collect(model, call)
        assert "".join([chunk.reasoning for chunk in chunks]) == "Hmm, let me"
        assert not any(chunk.signature or chunk.redacted for chunk in chunks)
        assert text(chunks) == "Hi"
        assert targets.calls[1].request is call.request
        assert targets.calls[1].source is call.source

    run(test())


def test_sources_of_a_continuation_are_left_out() -> None:
    """The places that they name are counted from its own beginning."""
    cited = Chunk(text="lo", citations=({"start_index": 0},))
    chunks = halves((say("Hel"),), (cited, END))
    assert (text(chunks), [chunk.citations for chunk in chunks]) == ("Hello", [(), (), ()])


HEAD = tool(id="call_1", name="look", arguments='{"ci')
TOOLS = (tool(id="call_9", name="look"), tool(arguments='{"city"'), tool(arguments=':"Rome"}'))
SEARCH = tool(1, "{}", id="call_8", name="search", signature="s")
CALLED = Chunk(finish="tool_calls", usage=Usage(4, 9))


def test_a_tool_call_is_made_again_and_compared() -> None:
    """What was said already is skipped; the first ids stay; usage is that of the answer made again."""
    chunks = halves((say("So: "), HEAD), (say("So"), say(": "), *TOOLS, SEARCH, CALLED), temperature=0)
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert [(call.index, call.id, call.name) for call in calls] == [
        *((0, "call_1", "look"), (0, "", ""), (0, "", "")),
        (1, "call_8", "search"),
    ]
    assert "".join([call.arguments for call in calls if not call.index]) == '{"city":"Rome"}'
    assert text(chunks) == "So: "
    assert calls[-1].signature == ""
    assert (chunks[-1].finish, chunks[-1].usage) == ("tool_calls", Usage(4, 9))


@pytest.mark.parametrize(
    "second",
    [
        (tool(name="other", id="x"), CALLED),
        (tool(name="look", id="x", arguments='{"xx":1}'), CALLED),
        (tool(name="look", id="x"), CALLED),
        (say("Well: "), *TOOLS, CALLED),
        (say("No."), END),
        (SEARCH, *TOOLS, CALLED),
        (tool(name="look", id="x"), SEARCH, CALLED),
    ],
    ids=["name", "arguments", "less", "more text", "no call", "another call first", "a call too soon"],
)
def test_another_tool_call_is_refused(second: tuple[Step, ...]) -> None:
    """At the first difference the answer ends with the error that broke it."""
    with pytest.raises(UpstreamClosedError, match="cut"):
        halves((HEAD,), second, temperature=0)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"seed": 7}, {"exact": ("a/m", "b/m")}])
@pytest.mark.parametrize("second", ['{"a": 1}', '{"b": 1}'])
def test_structured_output_is_made_again(fields: dict[str, Any], second: str) -> None:
    """It goes on where the same request gives the same answer, and only if it did."""
    steps = (say(second[:2]), say(second[2:]), END)
    output = OutputFormat()
    if second.startswith('{"a'):
        assert text(halves((say('{"a"'),), steps, output=output, **fields)) == second
        return
    with pytest.raises(UpstreamClosedError):
        halves((say('{"a"'),), steps, output=output, **fields)


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ((HEAD,), {}),
        ((HEAD,), {"temperature": 0.2, "exact": ("a/m",)}),
        ((say("{"),), {"output": OutputFormat()}),
        ((Chunk(refusal="I can"),), {"temperature": 0}),
    ],
)
def test_what_would_differ_is_not_asked_for(first: tuple[Step, ...], fields: dict[str, Any]) -> None:
    """A tool call, an object or a refusal cannot be continued, and would be another one."""

    async def test() -> None:
        exact = fields.pop("exact", ())
        model, targets = resumed((*first, CUT), REST, exact=exact)
        with pytest.raises(UpstreamClosedError):
            await collect(model, make_call(**fields))
        assert len(targets.calls) == 1

    run(test())


def test_a_replay_that_breaks_is_made_again() -> None:
    """Each one is compared with all that the client has."""

    async def test() -> None:
        model, _ = resumed((HEAD, CUT), (*TOOLS[:2], CUT), (*TOOLS, CALLED))
        chunks = await collect(model, make_call(seed=1))
        calls = [call for chunk in chunks for call in chunk.tool_calls]
        assert "".join([call.arguments for call in calls]) == '{"city":"Rome"}'

    run(test())


def test_a_finished_answer_is_whole() -> None:
    """What breaks behind the reason to finish (token counts, an end mark) takes nothing away."""

    async def test() -> None:
        for first in ((say("Hi"), END, CUT), (HEAD, CALLED, CUT)):
            model, targets = resumed(first, REST)
            assert (await collect(model, make_call()))[-1] == first[1]
            assert len(targets.calls) == 1
        model, targets = resumed(BROKEN, (*REST, CUT))
        assert await text_of(model, make_call()) == "Hello, world"
        assert len(targets.calls) == 2

    run(test())
