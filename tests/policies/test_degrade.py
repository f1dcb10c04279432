"""The ladder: less good answers, labelled, when all targets failed; the cause is not hidden."""

import asyncio

import pytest

from firsttoken.chat import OutputFormat, ToolChoice
from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    InternalError,
    RequestError,
    UnavailableError,
    UnsupportedFieldError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.policies.degrade import FIXED_TEXT, Degrade, FixedText
from tests.policies.models import Scripted, collect, make_call, open_model, say, text_of
from tests.policies.targets import attempts, failing, failover, saying, target
from tests.virtual_time import run


async def _fails(model, call) -> FirstTokenError:
    with pytest.raises(FirstTokenError) as caught:
        await open_model(model, call)
    return caught.value


def test_healthy() -> None:
    """While the route's own targets answer no rung is asked."""

    async def work() -> None:
        rung = Scripted()
        call = make_call()
        assert await text_of(Degrade(saying("hi"), [("mini", rung)]), call) == "hi"
        assert (call.record.rung, rung.calls) == ("", [])

    run(work())


@pytest.mark.parametrize(
    "error",
    [UpstreamError("x"), UnavailableError("x"), UpstreamRateLimitError("x"), UpstreamAuthError("x")],
    ids=lambda error: type(error).__name__,
)
def test_rungs(error: FirstTokenError) -> None:
    """When they fail the rungs are asked in order, each as a round of its own; the record names the one."""

    async def work() -> None:
        call = make_call()
        down, mini = target("x/down", failing(UpstreamError("y"))), target("x/mini", saying("mini"))
        model = Degrade(failover(a=failing(error)), [("down", down), ("mini", mini)])
        assert await text_of(model, call) == "mini"
        assert (call.record.rung, call.record.target) == ("mini", "x/mini")
        assert attempts(call)[1:] == ["rung:x/down:upstream_error", "rung:x/mini:ok"]
        assert (call.tried, call.kind) == ({"a"}, "first")

    run(work())


@pytest.mark.parametrize(
    "error",
    [
        RequestError("x"),
        UnsupportedFieldError("x"),
        UpstreamRefusedError("x"),
        DeadlineError("x"),
        InternalError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_not_degraded(error: FirstTokenError) -> None:
    """The client's own mistake, a used-up deadline and a defect of ours are said, not covered up."""

    async def work() -> None:
        rung = Scripted()
        assert await _fails(Degrade(failing(error), [("mini", rung)]), make_call()) is error
        assert not rung.calls

    run(work())


def test_all_fail() -> None:
    """When the rungs fail as well the first error is raised; theirs are its notes."""

    async def work() -> None:
        cause = UpstreamRateLimitError("busy", retry_after=7)
        rungs = [("mini", failing(UpstreamError("down"))), ("other", failing(UpstreamRefusedError("no")))]
        call = make_call()
        assert await _fails(Degrade(failing(cause), rungs), call) is cause
        assert cause.__notes__ == ["mini: down", "other: no"]
        assert call.record.rung == ""

    run(work())


def test_middle() -> None:
    """An answer that breaks after its first content is not replaced by a rung's."""

    async def work() -> None:
        rung = Scripted()
        with pytest.raises(UpstreamError):
            await text_of(Degrade(Scripted((say("x"), UpstreamError("cut"))), [("mini", rung)]), make_call())
        assert not rung.calls

    run(work())


@pytest.mark.parametrize("stream", [True, False])
def test_fixed_text(stream: bool) -> None:
    """A fixed text is one labelled answer that cost nothing."""

    async def work() -> None:
        call = make_call(stream=stream)
        model = Degrade(failing(UpstreamError("x")), [("busy", FixedText("We are busy."))])
        (chunk,) = await collect(model, call)
        assert (chunk.text, chunk.finish, chunk.model) == ("We are busy.", "stop", FIXED_TEXT)
        assert (chunk.usage.input, chunk.usage.output) == (0, 0)
        assert (call.record.rung, call.record.target) == ("busy", FIXED_TEXT)

    run(work())


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"output": OutputFormat()}, False),
        ({"tool_choice": ToolChoice("required")}, False),
        ({"tool_choice": ToolChoice("tool", "f")}, False),
        ({"tool_choice": ToolChoice("auto")}, True),
        ({"tool_choice": ToolChoice("none")}, True),
    ],
)
def test_fixed_text_that_does_not_fit(fields: dict[str, object], fits: bool) -> None:
    """Who asks for structured output, or for a tool's call, never gets a text instead."""

    async def work() -> None:
        cause = UpstreamError("x")
        model = Degrade(failing(cause), [("busy", FixedText("Busy."))])
        call = make_call(**fields)
        if fits:
            assert await text_of(model, call) == "Busy."
        else:
            assert await _fails(model, call) is cause
            assert call.record.target == ""

    run(work())


@pytest.mark.parametrize("after", [0.5, 1.5])
def test_cancelled(after: float) -> None:
    """Cancelled while the model or a rung is awaited, nothing is left running."""

    async def work() -> None:
        model, rung = Scripted((1.0, UpstreamError("x"))), Scripted((1.0, say("x")))
        task = asyncio.create_task(open_model(Degrade(model, [("mini", rung)]), make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (model.active, rung.active) == (0, 0)

    run(work())
