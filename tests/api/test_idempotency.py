"""``Idempotency-Key``: one answer for one key, over retries, instances, errors and clients that leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from api.keyed import SLOW, WHOLE, instance, same, send, store
from policies.models import END, HELLO, Scripted, say
from support import ask, chat
from virtual_time import run

from firsttoken.api import idempotency
from firsttoken.auth import digest
from firsttoken.errors import UpstreamClosedError, UpstreamTimeoutError
from firsttoken.settings import Auth, Idempotency
from firsttoken.telemetry.record import Record

BODIES = json.loads((Path(__file__).parents[1] / "data" / "bodies.json").read_text("utf-8"))
PATHS = [path for path in BODIES if "count_tokens" not in path and "embeddings" not in path]


def streamed(path: str, body: Any) -> tuple[str, Any]:
    address = path.replace(":generate", ":streamGenerate").replace("/converse", "/converse-stream")
    return address, {**body, "stream": True} if path.startswith("/v1/") else body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*PATHS, "/v1beta/models/m:generateContent?alt=sse"])
def test_the_same_key_is_the_same_answer(path: str, stream: bool) -> None:
    """In every format a retry gets the bytes of the first answer, here and in another instance."""

    async def work() -> None:
        model, shared = Scripted(HELLO), store()
        body = BODIES[path.partition("?")[0]]
        address, body = streamed(path, body) if stream else (path, body)
        here, there = instance(model, shared), instance(model, shared)
        first, again = [await send(here, body, path=address) for _ in range(2)]
        other = await send(there, body, path=address)
        assert (first.status, len(model.calls)) == (200, 1), first.body
        assert same(first, again, other)
        assert "x-firsttoken-replayed" not in first.headers
        assert {answer.headers["x-firsttoken-replayed"] for answer in (again, other)} == {"true"}
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
        assert ("content-length" in again.headers) is not stream
        assert not idempotency._runs

    run(work())


def test_without_a_key_nothing_is_kept() -> None:
    """Two calls without a key, with two keys, or where it is switched off are two answers."""

    async def work() -> None:
        model, shared = Scripted(HELLO), store()
        app = instance(model, shared)
        for _ in range(2):
            await ask(app, chat(stream=True))
        await send(app, key="a")
        await send(app, key="b")
        off = instance(model, shared, idempotency=Idempotency(enabled=False))
        await send(off, key="a")
        assert len(model.calls) == 5

    run(work())


def test_later_ones_follow_the_answer_live() -> None:
    """While the first is on its way, others with its key get what was said at once, and then follow."""

    async def work() -> None:
        model = Scripted(SLOW)
        records: list[Record] = []
        app = instance(model, store(), records)
        tasks = [asyncio.ensure_future(send(app))]
        await asyncio.sleep(4.5)
        tasks += [asyncio.ensure_future(send(app)) for _ in range(20)]
        answers = await asyncio.gather(*tasks)
        assert asyncio.get_running_loop().time() == pytest.approx(8)
        assert same(*answers)
        assert answers[0].text() == WHOLE
        assert len(answers[1].pieces) > 4
        assert len(model.calls) == 1
        assert sorted(record.replayed for record in records) == [False] + [True] * 20

    run(work())


def test_followers_of_a_whole_answer() -> None:
    """An answer that is not streamed is shared, too, with its length."""

    async def work() -> None:
        model = Scripted(SLOW)
        app = instance(model, store())
        answers = await asyncio.gather(*[send(app, chat()) for _ in range(5)])
        assert same(*answers)
        assert len(model.calls) == 1
        assert int(answers[1].headers["content-length"]) == len(answers[1].body)

    run(work())


@pytest.mark.parametrize("when", ["meanwhile", "later", "elsewhere"])
@pytest.mark.parametrize("other", ["body", "path", "query"])
def test_another_request_with_the_same_key_is_refused(when: str, other: str) -> None:
    """A key stands for one path and one body: another one is told so, and the first answer stays."""

    async def work() -> None:
        model, shared = Scripted(SLOW), store()
        app = instance(model, shared)
        first = asyncio.ensure_future(send(app))
        await asyncio.sleep(2 if when != "later" else 10)
        asked = instance(model, shared) if when == "elsewhere" else app
        body = chat("Other", stream=True) if other == "body" else None
        path = {"path": "/v1/chat/completions/", "query": "/v1/chat/completions?a=b"}.get(other)
        refused = await send(asked, body, **({"path": path} if path else {}))
        assert refused.status == 422
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
        assert (await first).text() == WHOLE
        assert same(await first, await send(app))
        assert len(model.calls) == 1

    run(work())


def test_tenants_have_keys_of_their_own() -> None:
    """The same key of another tenant is another key, and the store's key says whose it is."""

    async def work() -> None:
        model, shared = Scripted(HELLO), store()
        auth = Auth(mode="on", keys={"acme": [digest("one")], "other": [digest("two")]})
        app = instance(model, shared, auth=auth)
        for key in ("one", "two", "one"):
            assert (await send(app, headers={"x-api-key": key})).status == 200
        assert len(model.calls) == 2
        names = [name for _, name in shared._entries]
        assert {name.split(":")[:2][1] for name in names} == {"acme", "other"}

    run(work())


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ké", "\x7f"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """A key is 1 to 255 printable ASCII characters; the error names the header."""

    async def work() -> None:
        model = Scripted(HELLO)
        answer = await send(instance(model, store()), key=key)
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "Idempotency-Key"
        assert not model.calls

    run(work())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", [0, 2])
def test_an_error_frees_the_key(stream: bool, at: int) -> None:
    """All who follow get the error, in their own words; a retry really tries again, here or elsewhere."""

    async def work() -> None:
        broken = (*SLOW[: 2 * at], 1.0, UpstreamTimeoutError("Too slow."))
        model, shared = Scripted(broken, broken, SLOW), store()
        app = instance(model, shared)
        body = chat(stream=stream)
        answers = await asyncio.gather(*[send(app, body) for _ in range(3)])
        assert len(model.calls) == 1
        for answer in answers:
            assert answer.status == (200 if stream and at else 504)
            error = (answer.events()[-1] if stream and at else answer.json())["error"]
            assert (error["code"], error["request_id"]) == (
                "upstream_timeout",
                answer.headers["x-request-id"],
            )
            assert answer.complete
        assert (await send(app, body)).status == answers[0].status
        whole = await send(instance(model, shared), body)
        assert len(model.calls) == 3
        assert same(whole, await send(app, body))

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_the_work_goes_on_when_the_client_leaves(stream: bool) -> None:
    """A retry finds the answer of the call whose client left, and the record of that is complete."""

    async def work() -> None:
        model, shared = Scripted(SLOW), store()
        records: list[Record] = []
        app = instance(model, shared, records)
        body = chat(stream=stream)
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, gone.set)
        left = await send(app, body, leave=gone)
        assert not left.complete
        assert asyncio.get_running_loop().time() == pytest.approx(8)
        assert records[0].disconnected
        assert records[0].output_tokens == 2
        again = await send(instance(model, shared), body)
        assert (again.status, again.complete, model.closed, len(model.calls)) == (200, True, 0, 1)

    run(work())


def test_a_retry_follows_the_work_that_its_first_try_began() -> None:
    """A client that gave up and comes back is told at once what was said so far."""

    async def work() -> None:
        model = Scripted(SLOW)
        app = instance(model, store())
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, gone.set)
        left = asyncio.ensure_future(send(app, leave=gone))
        await asyncio.sleep(3.5)
        assert (await send(app)).text() == WHOLE
        await left
        assert len(model.calls) == 1

    run(work())


def test_work_without_a_client_ends_at_its_deadline() -> None:
    """What nobody waits for is bounded by the deadline of the call that began it; the key is free again."""

    async def work() -> None:
        model, shared = Scripted((1.0, say("x"), 1000.0), HELLO), store()
        app = instance(model, shared)
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(2, gone.set)
        await send(app, leave=gone, headers={"x-firsttoken-timeout": "15"})
        assert asyncio.get_running_loop().time() == pytest.approx(15)
        assert (model.closed, model.active) == (1, 0)
        assert (await send(app)).text() == "Hello"

    run(work())


def test_the_deadline_is_an_error_like_any_other() -> None:
    """Who waits too long is told so; the key is free for the next one."""

    async def work() -> None:
        model = Scripted((100.0,), HELLO)
        app = instance(model, store())
        late = await send(app, chat(), headers={"x-firsttoken-timeout": "5"})
        assert (late.status, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert (await send(app, chat())).status == 200

    run(work())


def test_a_large_answer_is_sent_but_not_kept() -> None:
    """Over the limit an answer goes to those who listen; memory is bounded, and the key starts anew."""

    async def work() -> None:
        large = (say("x" * 600), 1.0, say("y" * 600), 1.0, say("z" * 600), END)
        model, shared = Scripted(large), store()
        app = instance(model, shared, idempotency=Idempotency(max_bytes=1024))
        first = await send(app)
        assert len(first.text()) == 1800
        assert len((await send(app)).text()) == 1800
        assert len(model.calls) == 2
        assert not shared._entries

    run(work())


def test_a_large_answer_that_nobody_hears_is_stopped() -> None:
    """It cannot be kept and nobody listens: the work behind it ends."""

    async def work() -> None:
        large = (say("x" * 600), 5.0, *[say("y" * 600), 5.0] * 20, END)
        model = Scripted(large)
        app = instance(model, store(), idempotency=Idempotency(max_bytes=1024))
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(2, gone.set)
        await send(app, leave=gone)
        assert asyncio.get_running_loop().time() == pytest.approx(5)
        assert (model.closed, model.active) == (1, 0)

    run(work())


def test_a_defect_frees_the_key_and_is_answered() -> None:
    """An exception that nobody expected reaches the client as a 500, not as silence."""

    async def work() -> None:
        model = Scripted((ZeroDivisionError("a defect"),), HELLO)
        app = instance(model, store())
        assert (await send(app)).status == 500
        assert (await send(app)).text() == "Hello"

    run(work())


def test_the_record_of_a_replay_says_so() -> None:
    """A replay names the target of the first answer and counts no tokens."""

    async def work() -> None:
        def script(call: Any) -> Any:
            call.record.target = "a/m"
            return HELLO

        records: list[Record] = []
        shared = store()
        for _ in range(2):
            await send(instance(Scripted(script), shared, records))
        first, again = (record.summary() for record in records)
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert again["target"] == "a/m"
        assert (first["output_tokens"], again["output_tokens"]) == (2, None)
        assert again["ttft_ms"] is not None

    run(work())


def test_a_stream_that_breaks_is_not_kept() -> None:
    """Half an answer is no answer: nothing of it is in the store."""

    async def work() -> None:
        model, shared = Scripted((say("half"), UpstreamClosedError("cut"))), store()
        answer = await send(instance(model, shared))
        assert "error" in answer.events()[-1]
        assert not shared._entries

    run(work())
