"""A job as a stream: live, from what is kept, and to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api.deferred import defer, fetch, queued_app, take, work
from api.test_jobs import BODIES, PATHS
from policies.models import END, Scripted, say
from support import Answer
from virtual_time import run

from firsttoken.app import App
from firsttoken.jobs.job import JobError
from firsttoken.settings import Jobs, Server
from firsttoken.wire import codec_of

SLOW = (*[step for number in range(6) for step in (1.0, say(f"{number} "))], END)
FORMATS = {
    "/v1/chat/completions": ("openai_chat", "text/event-stream; charset=utf-8", True),
    "/v1/responses": ("openai_responses", "text/event-stream; charset=utf-8", True),
    "/v1/messages": ("anthropic", "text/event-stream; charset=utf-8", True),
    "/v1beta/models/m:generateContent": ("gemini.array", "application/json; charset=utf-8", False),
    "/model/m/converse": ("bedrock", "application/vnd.amazon.eventstream", False),
}


async def follow(app: App, name: str, query: str = "", **options: Any) -> Answer:
    return await fetch(app, f"/v1/jobs/{name}/events{query}", **options)


def text_of(wire: str, body: bytes) -> str:
    """The text of a stream, read by the format's own reader, which checks that it is whole."""
    if wire == "gemini.array":
        import json

        body = b"".join([b"data: " + json.dumps(item).encode() + b"\n\n" for item in json.loads(body)])
    reader = codec_of(wire).open_reader()
    text, chunk = "", reader.feed(body)
    while chunk is not None:
        text += chunk.text
        chunk = reader.feed(b"")
    reader.close()
    return text


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_a_job_streams_in_the_format_of_its_client(path: str, live: bool) -> None:
    """While a worker answers, or from what is kept: the same stream, of the format's own content type."""
    wire, kind, comments = FORMATS[path]

    async def check() -> None:
        app = queued_app(Scripted(SLOW))
        name = await defer(app, BODIES[path], path=path)
        if live:
            following = asyncio.create_task(follow(app, name))
            await asyncio.sleep(1)
            await work(app.gateway, pause=3)
            answer = await following
        else:
            await work(app.gateway)
            answer = await follow(app, name)
        assert (answer.status, answer.headers["content-type"], answer.complete) == (200, kind, True)
        assert text_of(wire, answer.body) == "0 1 2 3 4 5 "
        assert (b": job queued\n\n" in answer.body) == (comments and live)
        assert len(answer.pieces) > (6 if live else 1)

    run(check())


def test_gemini_streams_events_where_the_address_says_so() -> None:
    """``alt=sse`` chooses events, as it does for Google's own streams; no comment stands among them."""

    async def check() -> None:
        app = queued_app(Scripted(SLOW))
        name = await defer(app, BODIES[PATHS[3]], path=PATHS[3])
        await work(app.gateway)
        answer = await follow(app, name, "?alt=sse")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert text_of("gemini", answer.body) == "0 1 2 3 4 5 "
        assert not any(line.startswith(b":") for line in answer.body.splitlines())

    run(check())


def test_heartbeats_tell_the_state() -> None:
    """While nothing happens the stream says each interval how the job stands."""

    async def check() -> None:
        app = queued_app(Scripted((9.0, say("Hi"), END)), server=Server(log=False, heartbeat_seconds=2))
        name = await defer(app)
        following = asyncio.create_task(follow(app, name))
        await asyncio.sleep(5)
        await work(app.gateway)
        said = [line for line in (await following).body.decode().split("\n\n") if line.startswith(":")]
        assert said[:3] == [": job queued"] * 3
        assert said[3:7] == [": job running"] * 4

    run(check())


ERROR = JobError(503, "upstream_error", "The target is not available.", "target_unavailable")


@pytest.mark.parametrize("path", PATHS)
def test_a_job_without_an_answer_ends_with_the_error_of_the_format(path: str) -> None:
    """The status is 200 whenever one looks; the last event says why, and no end mark follows."""

    async def check() -> None:
        app = queued_app()
        name = await defer(app, BODIES[path], path=path)
        following = asyncio.create_task(follow(app, name))
        await work(app.gateway, pause=1, error=ERROR)
        for answer in (await following, await follow(app, name)):
            assert (answer.status, answer.complete) == (200, True)
            assert b"The target is not available." in answer.body
            assert b"[DONE]" not in answer.body

    run(check())


@pytest.mark.parametrize(("state", "code"), [("cancelled", "job_cancelled"), ("expired", "job_expired")])
def test_a_job_that_was_given_up_says_so(state: str, code: str) -> None:
    """A stream ends when its job is cancelled or its time is over."""

    async def check() -> None:
        app = queued_app(jobs=Jobs(expires=10))
        name = await defer(app)
        following = asyncio.create_task(follow(app, name))
        await asyncio.sleep(1)
        if state == "cancelled":
            await fetch(app, f"/v1/jobs/{name}", "DELETE")
        else:
            await asyncio.sleep(10)
            await fetch(app, f"/v1/jobs/{name}")
        assert (await following).events()[-1]["error"]["code"] == code

    run(check())


@pytest.mark.parametrize("begun", [False, True])
def test_before_the_deadline_the_stream_says_that_the_job_goes_on(begun: bool) -> None:
    """A connection has a deadline, the job another one: the error says where to connect again."""

    async def check() -> None:
        app = queued_app(Scripted((*SLOW[:6], 60.0, *SLOW[6:])))
        name = await defer(app)
        working = asyncio.create_task(work(app.gateway)) if begun else None
        answer = await follow(app, name, headers={"x-firsttoken-timeout": "12"})
        error = answer.events()[-1]["error"]
        assert (error["code"], f"/v1/jobs/{name}/events" in error["message"]) == ("job_unfinished", True)
        assert (answer.text(), answer.complete) == ("0 1 2 " if begun else "", True)
        if working is not None:
            await working
            assert (await follow(app, name)).text() == "0 1 2 3 4 5 "

    run(check())


def test_an_answer_that_begins_anew_ends_the_stream() -> None:
    """Another worker's words are not put behind those of one that vanished."""

    async def check() -> None:
        app = queued_app(Scripted((*SLOW[:6], 500.0)), jobs=Jobs(lease=6))
        gateway = app.gateway
        name = await defer(app)
        following = asyncio.create_task(follow(app, name))
        first = asyncio.create_task(work(gateway))
        await asyncio.sleep(4)
        first.cancel()
        await asyncio.sleep(4)  # its lease is over
        second = await gateway.jobs.begin("local", name)
        await second.done([say("other"), END], "simulated/m", 2)
        answer = await following
        assert answer.events()[-1]["error"]["code"] == "job_restarted"
        assert (await follow(app, name)).text() == "other"

    run(check())


def test_a_client_that_leaves_leaves_the_job_alone() -> None:
    """Following costs nothing once nobody listens, and the job goes on."""

    async def check() -> None:
        app = queued_app(Scripted(SLOW))
        name = await defer(app)
        leave = asyncio.Event()
        following = asyncio.create_task(follow(app, name, leave=leave))
        held = await take(app.gateway)
        leave.set()
        assert not (await following).complete
        assert await held.is_mine()

    run(check())


def test_head_has_no_body() -> None:
    """HEAD of a stream is answered at once, with its headers."""

    async def check() -> None:
        app = queued_app()
        answer = await follow(app, await defer(app), method="HEAD")
        assert (answer.status, answer.body, answer.complete) == (200, b"", True)

    run(check())
