"""What an answer says of itself: headers, the comment at its end, and an end that is never mistaken."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from policies.models import END, HELLO, Scripted, say
from support import Answer, ask, chat, make_app, simulate
from virtual_time import run

from firsttoken.errors import UpstreamClosedError
from firsttoken.model import Chunk
from firsttoken.settings import Idempotency, Resume, Route, Timeouts
from firsttoken.telemetry.record import Attempt

BODIES = json.loads((Path(__file__).parents[1] / "data" / "bodies.json").read_text("utf-8"))


def answered(
    script: Any = HELLO, body: Any = None, path: str = "/v1/chat/completions", **written: Any
) -> Answer:
    """The answer of a model whose policies have ``written`` to the record."""

    def follow(call: Any) -> Any:
        for name, value in written.items():
            setattr(call.record, name, value)
        return script

    app = make_app()
    app.gateway.routes["m"] = Scripted(follow)
    return run(ask(app, body or chat(stream=True), path=path))


def told(answer: Answer) -> dict[str, str]:
    names = {"target", "rung", "attempts", "coalesced"}
    return {name: answer.headers[f"x-firsttoken-{name}"] for name in names & said(answer)}


def said(answer: Answer) -> set[str]:
    return {name.removeprefix("x-firsttoken-") for name in answer.headers if name.startswith("x-firsttoken-")}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("written", "headers"),
    [
        ({}, {}),
        ({"target": "eu/gpt-4o"}, {"target": "eu/gpt-4o"}),
        ({"target": "a/m", "attempts": [Attempt()]}, {"target": "a/m"}),
        ({"attempts": [Attempt(), Attempt()]}, {"attempts": "2"}),
        ({"target": "b/s", "rung": "small"}, {"target": "b/s", "rung": "small"}),
        ({"coalesced": True}, {"coalesced": "true"}),
    ],
)
def test_headers_say_where_an_answer_came_from(
    stream: bool, written: dict[str, Any], headers: dict[str, str]
) -> None:
    """Streamed or not: the target, the rung below the first, attempts beyond the first, sharing."""
    assert told(answered(body=chat(stream=stream), **written)) == headers


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/m:1.2@x+y~z", "a/m:1.2@x+y~z"),
        ("a/two words", "a/two%20words"),
        ("a/100%", "a/100%25"),
        ("a/é", "a/%C3%A9"),
        ("a/m\r\nset-cookie: x", "a/m%0D%0Aset-cookie:%20x"),
        ("a/\ud800", "a/%ED%A0%80"),
    ],
)
def test_odd_names_fit_into_headers(name: str, shown: str) -> None:
    """A header holds visible ASCII; whatever else a target's name has is percent-encoded."""
    assert told(answered(target=name))["target"] == shown


def test_a_route_names_its_target() -> None:
    """Through all policies of a route the answer says which target it is from."""
    for stream in (False, True):
        answer = run(ask(make_app(), chat(stream=stream)))
        assert told(answer) == {"target": "simulated/m"}


def test_calls_that_share_say_so() -> None:
    """Who listens to another call's answer is told, with the target of that one."""

    async def work() -> list[Answer]:
        app = make_app(models={"m": Route(target="simulated/m")})
        return await asyncio.gather(*[ask(app, chat(stream=True, temperature=0)) for _ in range(3)])

    first, *others = run(work())
    assert told(first) == {"target": "simulated/m"}
    assert [told(answer) for answer in others] == [{"target": "simulated/m", "coalesced": "true"}] * 2
    assert [answer.text() for answer in others] == [first.text()] * 2


def comment(answer: Answer) -> Any:
    lines = [line for line in answer.body.split(b"\n") if line.startswith(b": firsttoken ")]
    assert len(lines) < 2
    return json.loads(lines[0].removeprefix(b": firsttoken ")) if lines else None


EVENTS = {
    "/v1/chat/completions": True,
    "/v1/responses": True,
    "/v1/messages": True,
    "/v1beta/models/m:streamGenerateContent?alt=sse": True,
    "/v1beta/models/m:streamGenerateContent": False,
    "/model/m/converse-stream": False,
}
"""The streaming addresses, and whether their answers are server-sent events."""


def body_for(path: str) -> Any:
    plain = path.partition("?")[0].replace(":streamGenerate", ":generate").replace("-stream", "")
    return {**BODIES[plain], "stream": True} if path.startswith("/v1/") else BODIES[plain]


@pytest.mark.parametrize("path", EVENTS)
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"target": "a/m"}, None),
        ({"target": "a/m", "resumed": 1}, {"target": "a/m", "resumed": 1}),
        ({"target": "é/m", "rung": "small"}, {"target": "é/m", "rung": "small"}),
    ],
)
def test_the_end_of_a_stream_tells_what_became_of_it(path: str, written: Any, expected: Any) -> None:
    """Resumed and degraded answers have one comment, in formats whose clients read over it."""
    answer = answered(body=body_for(path), path=path, **written)
    google = "generate" in path.lower()  # its own SDK takes comments for JSON
    assert comment(answer) == (expected if EVENTS[path] and not google else None)
    assert answer.complete
    if path == "/v1/chat/completions":
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.text() == "Hello"


def raw(text: str) -> Chunk:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "chatcmpl-theirs", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data = b"data: " + json.dumps({**event, "choices": [delta]}).encode() + b"\n\n"
    return Chunk(text=text, raw=data, wire="openai-chat")


def test_what_follows_another_targets_bytes_fits_to_them() -> None:
    """Where an answer is gone on with, a new writer goes on behind the bytes that were passed on."""
    first = raw("Hel")
    answer = answered((first, say("lo", follows=first), END), target="b/m", resumed=1)
    assert answer.body.startswith(first.raw)
    assert answer.text() == "Hello"
    events = answer.events()
    assert events[-1] == "[DONE]"
    assert {event["id"] for event in events[:-1]} == {"chatcmpl-theirs"}
    assert comment(answer) == {"target": "b/m", "resumed": 1}


WHOLE = {
    "/v1/chat/completions": (b"[DONE]", b'"finish_reason":"'),
    "/v1/responses": (b"response.completed", b"response.incomplete"),
    "/v1/messages": (b"message_stop", b"message_delta"),
    "/v1beta/models/m:streamGenerateContent?alt=sse": (b"finishReason",),
    "/v1beta/models/m:streamGenerateContent": (b"finishReason",),
    "/model/m/converse-stream": (b"messageStop", b"metadata"),
}
"""What only the end of a whole answer holds."""
FAILED = {
    "/v1/responses": b"event: error",
    "/v1/messages": b"event: error",
    "/model/m/converse-stream": b":exception-type",
}
BREAKS = {
    "gap": (simulate("fault=stall,after=2"), "upstream_timeout"),
    "deadline": ({**simulate("fault=stall,after=2"), "x-firsttoken-timeout": "0.5"}, "deadline_exceeded"),
    "cut": (simulate("fault=cut,after=2"), "upstream_closed"),
    "malformed": (simulate("fault=malformed,after=2"), "upstream_protocol"),
}


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("path", EVENTS)
def test_a_broken_stream_never_looks_whole(path: str, fault: str, resume: bool, keyed: bool) -> None:
    """In every format, whatever breaks: an error ends the body, and no mark of a whole answer is in it."""
    headers, code = BREAKS[fault]
    sections: dict[str, Any] = {"resume": Resume(enabled=resume), "timeouts": Timeouts(gap=1)}
    app = make_app(**sections, idempotency=Idempotency(enabled=keyed))
    plain = {
        **body_for(path),
        "tools": None,
        "tool_choice": None,
        "toolConfig": None,
        "response_format": None,
    }
    plain = {name: value for name, value in plain.items() if value is not None}
    answer = run(ask(app, plain, path=path, headers={**headers, "idempotency-key": "k"}))
    assert (answer.status, answer.complete) == (200, True)
    assert not [mark for mark in WHOLE[path] if mark in answer.body]
    assert FAILED.get(path, b'"error"') in answer.body
    if path == "/v1/chat/completions":
        assert answer.events()[-1]["error"]["code"] == code
    if EVENTS[path] is False and "Gen" in path:
        assert "error" in json.loads(answer.body)[-1]


def test_an_answer_that_breaks_behind_passed_bytes_ends_with_an_error() -> None:
    """Bytes of a target that were passed on are closed by an error event, and no metadata follows it."""
    answer = answered((raw("Hel"), UpstreamClosedError("cut")), target="a/m", resumed=1)
    assert "error" in answer.events()[-1]
    assert b"[DONE]" not in answer.body
    assert comment(answer) is None
