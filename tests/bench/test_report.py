"""Reports: what is counted, what is compared, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from firsttoken.bench import calls, report
from firsttoken.bench.fleet import State
from firsttoken.bench.load import Sample
from firsttoken.bench.scenario import Expect, Fault, Scenario, Target
from firsttoken.bench.table import render
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.simulator import text

PROFILE = "ttft_ms=1,tokens=5"
SCENARIO = Scenario(
    name="mine",
    duration=30,
    settle=1,
    targets={"near": Target(profile=PROFILE), "far": Target(profile=PROFILE)},
    faults=[Fault(at=10, until=20, target="near", kind="kill")],
)


def said(prompt: str) -> str:
    request = ChatRequest(model="m", messages=(Message("user", (Text(prompt),)),))
    return "".join(text.answer(request, 0, 5))


def sample(at: float, *, ms: float = 50.0, **fields: Any) -> Sample:
    prompt = f"at {at}"
    given = {
        "text": said(prompt),
        "target": "near/m",
        "model": "m",
        "usage": True,
        "finish": "stop",
        **fields,
    }
    first, done = at + ms / 1000, at + ms / 500
    id_ = f"req_{at:g}"
    defaults = {"status": 200, "sent": at, "first": first, "done": done, "typed": True, "request_id": id_}
    return Sample(at=at, prompt=prompt, stream=True, **{**defaults, **given})


def line(one: Sample, *attempts: str, **fields: Any) -> bytes:
    return json.dumps({"request_id": one.request_id, "attempts": attempts, **fields}).encode() + b"\n"


def build(samples: list[Sample], scenario: Scenario = SCENARIO, **measured: Any) -> report.Report:
    return report.build(scenario, report.Measured(samples=samples, seconds=30, **measured))


def test_an_answer_has_the_expected_text() -> None:
    """Only the text that a healthy target gives for the prompt, or the ladder, is right."""
    ladder = replace(SCENARIO, gateway={"models": {"chat": {"degrade": [{"text": "Later."}]}}})
    samples = [sample(1), sample(2, text="nonsense"), sample(3, text="Later."), sample(4, error="cut")]
    found = build([*samples, sample(5, left=True, finish="")], ladder)
    assert (found.requests, found.answered, found.left, found.wrong, found.rungs) == (5, 2, 1, 1, 1)
    assert found.availability == 0.5
    assert found.errors == {"wrong": 1, "cut": 1}


def test_phases_and_what_was_added() -> None:
    """What a fault added is measured against the time before it, without the seconds that breakers need."""
    slow = [sample(10.5, ms=5000), *(sample(at, ms=80) for at in range(12, 20)), sample(25, ms=60)]
    found = build([*(sample(at) for at in range(10)), *slow])
    assert [found.phases[name].requests for name in ("before", "during", "after")] == [10, 9, 1]
    assert found.phases["during"].ttft_p99 == 5000
    assert found.added == {"p50": 30.0, "p99": 30.0}


def test_nothing_to_compare_with() -> None:
    """Without a time before the fault nothing can be said of what it added."""
    assert build([sample(15)]).added == {"p50": None, "p99": None}
    assert build([]).availability is None


def test_calls_are_those_of_the_log() -> None:
    """Attempts count where a connection was refused, too; hedges and resumed answers are told apart."""
    one, other, warm = sample(15), sample(16), sample(17)
    log = line(one, "first:near/m:upstream_unreachable", "failover:far/m:ok")
    log += b"Traceback: not JSON\n" + line(other, "first:far/m:ok", "hedge:near/m:left", resumed=1)
    log += line(warm, "first:near/m:ok")
    found = build(
        [one, other],
        log=log,
        not_counted={warm.request_id},
        states={"near": State(requests=1), "far": State(2)},
    )
    assert (found.upstream_calls, found.amplification, found.hedges, found.resumed) == (4, 2.0, 1, 1)
    assert found.targets["near"].while_down == 2
    assert found.targets["far"].while_down is None


def test_without_a_log_the_targets_count() -> None:
    """Of a gateway that somebody else started only the targets can tell."""
    found = build([sample(1)], states={"near": State(requests=3)})
    assert (found.upstream_calls, found.hedges, found.targets["near"].while_down) == (3, None, None)


@pytest.mark.parametrize(
    ("header", "logged", "model", "target"),
    [("near/m", "far/m", "x", "near"), ("", "far/m", "x", "far"), ("", "", "far", "far"), ("", "", "x", "")],
)
def test_who_answered(header: str, logged: str, model: str, target: str) -> None:
    """The header says it, else the log, else the model's name."""
    one = sample(1, target=header, model=model)
    calls.attribute(SCENARIO, [one], [calls.Logged(target=logged, sample=one)])
    assert one.target == target


def test_calls_in_a_cool_down() -> None:
    """A request sent after a 429 and before its time is over was sent too early."""
    waiting = replace(SCENARIO, targets={"near": Target(profile="fault=status,status=429,retry_after=5")})
    samples = [sample(at) for at in (1, 3, 7, 8)]
    logged = [
        calls.Logged(attempts=["first:near/m:rate_limit_exceeded"], sample=samples[0]),
        calls.Logged(attempts=["first:near/m:rate_limit_exceeded"], sample=samples[1]),  # too early
        calls.Logged(attempts=[], sample=samples[2]),
        calls.Logged(attempts=["first:near/m:ok"], sample=sample(8.2)),
    ]
    assert calls.in_cooldown(waiting, logged) == 1


def test_back_on_the_preferred_target() -> None:
    """It is back when nine of ten answers of a second are its own again."""
    before = [sample(at) for at in range(10)]
    after = [sample(20 + at / 10, target="near/m" if at > 30 else "far/m") for at in range(60)]
    after.append(replace(sample(21.05), target="near/m"))  # a probe
    assert build([*before, *after], mended=[20.0]).back_within_s == 3.1
    assert build([*before, *after[:20]], mended=[20.0]).back_within_s is None


def test_expectations() -> None:
    """Some must be reached, others not passed, and what was not measured fails."""
    expect = Expect(availability=0.9, wrong=0, ttft_p99_ms=10, hedge_share=0.5, ttft_p99_gain=3)
    fast = build([sample(1)])
    slow = build([sample(1, ms=100)])
    found = report.checked(fast, replace(SCENARIO, expect=expect), slow)
    passed = {check.name: check.passed for check in found.checks}
    assert passed == {
        "availability": True,
        "wrong": True,
        "ttft_p99_ms": False,
        "hedge_share": False,
        "ttft_p99_gain": False,
    }
    assert not found.passed
    shown = render(found)
    assert "PASS  availability (expected 0.9): 1" in shown
    assert "FAIL  hedge share (expected 0.5): not measured" in shown
    assert shown.count("simulated upstream") == 2


def test_the_timeline() -> None:
    """Second by second: requests, answers, times, who answered, and calls upstream."""
    found = build([sample(0.1), sample(0.2, ms=70), sample(2)], calls=[{"near": 2}])
    assert [(row.at, row.requests, row.targets, row.calls) for row in found.timeline] == [
        (0, 2, {"near": 2}, {"near": 2}),
        (2, 1, {"near": 1}, {}),
    ]
    assert (found.timeline[0].ttft_p50, found.timeline[0].ttft_p99) == (50, 70)
