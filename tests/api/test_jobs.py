"""Calls that become jobs, and what their clients ask of them afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from api.deferred import ASYNC, defer, fetch, keyed, queued_app, take, work
from policies.models import END, HELLO, Scripted, say
from support import ask, chat, make_app
from virtual_time import run

from firsttoken.errors import UnavailableError
from firsttoken.jobs.job import JobError
from firsttoken.model import Chunk, ToolCall
from firsttoken.settings import Jobs, Route, Server, Webhook

BODIES = json.loads((Path(__file__).parents[1] / "data" / "bodies.json").read_text("utf-8"))
PATHS = [path for path in BODIES if "count" not in path and "embed" not in path]
SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
DOWN = UnavailableError("no target", retry_after=9)
ODD_IDS = ("x", "job_", "job_" + "0" * 32, "job:a:b", "%00", "🙂", "a" * 600, "..", "job_\n", "resp_1")


@pytest.mark.parametrize("stream", [False, True])
def test_respond_async_is_answered_with_a_job(stream: bool) -> None:
    """202 says where the job is and when to ask, in the body as in the headers; nobody was called."""

    async def check() -> None:
        records: list[Any] = []
        app = queued_app(model := Scripted(), records)
        answer = await ask(app, chat(stream=stream), headers=ASYNC)
        told = answer.json()
        assert answer.status == 202
        assert answer.headers["location"] == f"/v1/jobs/{told['id']}"
        assert (answer.headers["retry-after"], answer.headers["preference-applied"]) == ("2", "respond-async")
        assert (told["object"], told["state"], told["model"], told["attempts"]) == ("job", "queued", "m", 0)
        assert told["expires_at"] - told["created_at"] == 3600
        assert not model.calls
        assert (records[0].job, records[0].status, records[0].error) == (told["id"], 202, None)

    run(check())


@pytest.mark.parametrize(("wait", "status"), [("1", 202), ("5", 200)])
def test_wait_is_how_long_the_answer_may_take_to_begin(wait: str, status: int) -> None:
    """With ``wait=N`` the call is tried first; what begins in time is no job."""

    async def check() -> None:
        app = queued_app(Scripted((3.0, *HELLO)))
        answer = await ask(app, chat(), headers={"prefer": f"respond-async, wait={wait}"})
        assert answer.status == status
        assert ("preference-applied" in answer.headers) == (status == 202)

    run(check())


@pytest.mark.parametrize(("outage", "status"), [(True, 202), (False, 503)])
def test_an_outage_makes_jobs_where_that_is_configured(outage: bool, status: int) -> None:
    """Who did not ask for a job gets one only where the route says so, and no preference was applied."""

    async def check() -> None:
        answer = await ask(queued_app(Scripted((DOWN,)), outage=outage), chat())
        assert answer.status == status
        assert "preference-applied" not in answer.headers

    run(check())


def test_a_stream_that_has_begun_with_heartbeats_goes_on_with_the_job() -> None:
    """Where 200 was sent already, the same stream waits for the job and ends with its answer."""

    async def check() -> None:
        app = queued_app(Scripted((10.0, *HELLO), HELLO), server=Server(log=False, heartbeat_seconds=2))
        asked = asyncio.create_task(ask(app, chat(stream=True), headers={"prefer": "respond-async, wait=5"}))
        await asyncio.sleep(6)
        await work(app.gateway, pause=4)
        answer = await asked
        assert (answer.status, answer.text(), answer.events()[-1]) == (200, "Hello", "[DONE]")
        comments = [line for line in answer.body.decode().split("\n\n") if line.startswith(":")]
        assert comments[:2] == [": keep-alive", ": keep-alive"]
        assert {": job queued", ": job running"} <= set(comments)

    run(check())


@pytest.mark.parametrize("heartbeat", [15.0, 2.0])
def test_an_idempotency_key_gives_the_same_job(heartbeat: float) -> None:
    """However often a request comes with its key, there is one job and one message, and all hear of it."""

    async def check() -> None:
        app = queued_app(Scripted((10.0, *HELLO)), server=Server(log=False, heartbeat_seconds=heartbeat))
        headers = {"prefer": "respond-async, wait=5", "idempotency-key": "k"}
        streamed = heartbeat < 5
        both = [asyncio.create_task(ask(app, chat(stream=streamed), headers=headers)) for _ in range(2)]
        await asyncio.sleep(6)
        if streamed:
            app.gateway.routes["m"]._model = Scripted()
            await work(app.gateway)
        first, second = [await one for one in both]
        third = await ask(app, chat(stream=streamed), headers=headers)
        depth = await app.gateway.queue.depth()
        assert (depth.waiting or 0) + (depth.delayed or 0) == (0 if streamed else 1)
        assert third.status == 202
        assert third.headers["x-firsttoken-replayed"] == "true"
        if streamed:
            assert [answer.text() for answer in (first, second)] == ["Hello", "Hello"]
        else:
            assert first.body == second.body == third.body
            assert third.headers["location"] == first.headers["location"]

    run(check())


def test_without_a_queue_the_preference_is_ignored() -> None:
    """A preference is no demand: the call is answered as any other, and there are no jobs to ask for."""

    async def check() -> None:
        app = make_app()
        answer = await ask(app, chat(), headers={**ASYNC, "x-firsttoken-webhook": "https://a.example"})
        assert (answer.status, "preference-applied" in answer.headers) == (200, False)
        assert (await fetch(app, "/v1/jobs")).status == 404

    run(check())


@pytest.mark.parametrize(
    ("url", "secret", "status", "said"),
    [
        ("https://hooks.example/x?y=1", SECRET, 202, ""),
        ("https://hooks.example/x", "", 400, "webhook.secret"),
        ("http://hooks.example/x", SECRET, 400, "https://"),
        ("https://" + "a" * 3000, SECRET, 400, "2048"),
        ("ftp://x", SECRET, 400, "'ftp://x'"),
    ],
)
def test_a_webhook_is_checked_at_once(url: str, secret: str, status: int, said: str) -> None:
    """An address that cannot be called is refused before there is a job; a good one is kept with it."""

    async def check() -> None:
        app = queued_app(webhook=Webhook(secret=secret))
        answer = await ask(app, chat(), headers={**ASYNC, "x-firsttoken-webhook": url})
        assert answer.status == status
        assert said in answer.body.decode()
        jobs = await app.gateway.jobs.recent("local", 5)
        assert [job.webhook for job in jobs] == ([url] if status == 202 else [])
        assert status == 400 or answer.json()["webhook"] == "pending"

    run(check())


@pytest.mark.parametrize("path", PATHS)
def test_a_job_that_is_done_has_the_answer_that_a_call_would_have_got(path: str) -> None:
    """In every format the answer is what the same request is answered with, but for its id and time."""

    async def check() -> None:
        app = queued_app()
        name = await defer(app, BODIES[path], path=path)
        waiting = await fetch(app, f"/v1/jobs/{name}")
        assert (waiting.json()["state"], waiting.headers["retry-after"]) == ("queued", "2")
        await work(app.gateway)
        told = await fetch(app, f"/v1/jobs/{name}")
        direct = (await ask(app, BODIES[path], path=path)).json()
        assert (told.json()["state"], told.json()["target"]) == ("done", "simulated/m")
        assert "retry-after" not in told.headers
        assert _timeless(told.json()["answer"]) == _timeless(direct)

    run(check())


def _timeless(answer: Any) -> Any:
    """An answer without what differs between two that say the same."""
    if isinstance(answer, list):
        return [_timeless(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    own = {"id", "created", "created_at", "completed_at", "responseId", "latencyMs", "call_id", "toolUseId"}
    return {name: _timeless(value) for name, value in answer.items() if name not in own}


def test_a_job_that_failed_says_why() -> None:
    """The document holds the error, and nothing more is to be waited for."""

    async def check() -> None:
        app = queued_app()
        name = await defer(app)
        error = JobError(503, "upstream_error", "The target is not available.", "target_unavailable")
        await work(app.gateway, error=error)
        told = await fetch(app, f"/v1/jobs/{name}")
        assert told.json()["state"] == "failed"
        assert told.json()["error"] == {
            "status": 503,
            "type": "upstream_error",
            "message": "The target is not available.",
            "code": "target_unavailable",
            "param": None,
        }
        assert "retry-after" not in told.headers

    run(check())


def test_cancelling() -> None:
    """DELETE cancels what waits or runs and changes nothing that has ended; the worker loses the job."""

    async def check() -> None:
        app = queued_app()
        first, second = await defer(app), await defer(app)
        assert (await fetch(app, f"/v1/jobs/{first}", "DELETE")).json()["state"] == "cancelled"
        running = await app.gateway.jobs.begin("local", second)
        assert (await fetch(app, f"/v1/jobs/{second}", "DELETE")).json()["state"] == "cancelled"
        assert not await running.is_mine()
        third = await defer(app)
        done = await app.gateway.jobs.begin("local", third)
        await done.done([say("Hi"), END], "simulated/m", 1)
        assert (await fetch(app, f"/v1/jobs/{third}", "DELETE")).json()["state"] == "done"
        assert (await fetch(app, "/v1/jobs/job_1", "DELETE")).status == 404

    run(check())


def test_a_job_whose_time_is_over_has_expired() -> None:
    """Without a worker a job ends by itself, and a little later it is forgotten."""

    async def check() -> None:
        app = queued_app(jobs=Jobs(expires=60, keep=100))
        name = await defer(app)
        await asyncio.sleep(61)
        assert (await fetch(app, f"/v1/jobs/{name}")).json()["state"] == "expired"
        await asyncio.sleep(200)
        assert (await fetch(app, f"/v1/jobs/{name}")).status == 404

    run(check())


def test_the_list_has_the_newest_first() -> None:
    """The list holds this tenant's jobs without their answers, as many as asked for."""

    async def check() -> None:
        app = queued_app()
        names = [await defer(app) for _ in range(3)]
        await work(app.gateway)
        listed = (await fetch(app, "/v1/jobs?limit=2")).json()
        assert (listed["object"], [job["id"] for job in listed["data"]]) == ("list", names[:0:-1])
        assert all("answer" not in job for job in (await fetch(app, "/v1/jobs")).json()["data"])
        for wrong in ("0", "101", "x", "", "9" * 30, "%F0"):
            refused = await fetch(app, f"/v1/jobs?limit={wrong}")
            assert (refused.status, refused.json()["error"]["param"]) == (400, "limit")

    run(check())


def test_tenants_know_nothing_of_each_other() -> None:
    """Another tenant's job looks like one that never was, whatever is asked of it."""

    async def check() -> None:
        app = queued_app(**keyed(a="key-a", b="key-b"))
        name = await defer(app, **{"x-api-key": "key-a"})
        other = {"headers": {"x-api-key": "key-b"}}
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            answers = [
                await fetch(app, f"/v1/jobs/{one}{path}", method, **other)
                for one in (name, "job_" + "0" * 32)
            ]
            texts = [answer.json()["error"]["message"].replace(name, "X") for answer in answers]
            assert [answer.status for answer in answers] == [404, 404]
            assert texts[0] == texts[1].replace("job_" + "0" * 32, "X")
        assert (await fetch(app, "/v1/jobs", **other)).json()["data"] == []
        mine = await fetch(app, f"/v1/jobs/{name}", headers={"x-api-key": "key-a"})
        assert mine.json()["state"] == "queued"
        assert (await fetch(app, f"/v1/jobs/{name}")).status == 401

    run(check())


@pytest.mark.parametrize("name", ODD_IDS)
def test_odd_ids_are_not_found(name: str) -> None:
    """Whatever stands in the path, the answer is 404 in the shape of an error."""

    async def check() -> None:
        app = queued_app()
        for method, path in (
            ("GET", f"/v1/jobs/{name}"),
            ("DELETE", f"/v1/jobs/{name}"),
            ("GET", f"/v1/jobs/{name}/events"),
            ("GET", f"/v1/responses/resp_{name}"),
            ("POST", f"/v1/responses/resp_{name}/cancel"),
            ("DELETE", f"/v1/responses/resp_{name}"),
        ):
            answer = await fetch(app, path, method)
            assert (answer.status, bool(answer.json()["error"]["message"])) == (404, True)

    run(check())


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/v1/jobs/x", "GET, DELETE"), ("/v1/responses/resp_x", "GET, DELETE"), ("/v1/jobs", "GET")],
)
def test_the_methods_of_a_path_are_all_named(path: str, allow: str) -> None:
    """405 names every method that is possible."""
    answer = asyncio.run(fetch(queued_app_now(), path, "PUT"))
    assert (answer.status, answer.headers["allow"]) == (405, allow)


def queued_app_now() -> Any:
    """An application whose jobs nobody asks for."""
    return make_app()


def test_a_route_may_have_no_jobs() -> None:
    """Where a route's ``defer`` is off, its calls are answered now."""

    async def check() -> None:
        app = queued_app(models={"m": Route(target="simulated/m", defer="off")})
        assert (await ask(app, chat(), headers=ASYNC)).status == 200
        background = {"model": "m", "input": "Hi", "background": True}
        refused = await ask(app, background, path="/v1/responses")
        assert (refused.status, refused.json()["error"]["param"]) == (400, "background")

    run(check())


def test_an_answer_that_cannot_be_said_is_an_error_in_the_document() -> None:
    """The target's answer does not fit the client's format: that will not change, so asking succeeds."""

    async def check() -> None:
        app = queued_app()
        body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
        name = await defer(app, body, path="/model/m/converse")
        held = await take(app.gateway)
        call = ToolCall(id="1", name="f", arguments="no JSON")
        await held.done([Chunk(tool_calls=(call,)), END], "simulated/m", 1)
        shown = await fetch(app, f"/v1/jobs/{name}")
        told = shown.json()
        assert (shown.status, told["state"], told["answer"]) == (200, "done", None)
        assert (told["error"]["code"], told["error"]["status"]) == ("upstream_protocol", 502)

    run(check())


def test_an_answer_that_is_gone_is_null() -> None:
    """A record may outlive its answer: the job is done, and there is nothing to give."""

    async def check() -> None:
        app = queued_app()
        name = await defer(app)
        held = await take(app.gateway)
        job = await held.done([say("Hi"), END], "simulated/m", 1)
        await app.gateway.jobs.kept.delete(job)
        assert (await fetch(app, f"/v1/jobs/{name}")).json()["answer"] is None

    run(check())
