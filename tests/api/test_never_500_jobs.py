"""No request about jobs, files or batches is answered with a 500, whatever its body, header or query."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api.test_never_500 import BODIES, HOW, ODD, changed, paths
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Answer, ask, make_app

from firsttoken.app import App
from firsttoken.settings import MemoryQueue, Webhook
from firsttoken.worker import answer_message

PATHS = [path for path in BODIES if "count" not in path and "embed" not in path]
WANTED = {
    "input_file_id": "file-x",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"a": "b"},
    "output_expires_after": {"anchor": "created_at", "seconds": 3600},
}
FORM = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
NAMES = ("x", "job_" + "0" * 32, "resp_" + "0" * 32, "file-x", "batch_x", "a:b", "..", "\x00", "\udc80", "🙂")
ADDRESSES = (
    *("/v1/jobs", "/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/files", "/v1/files/{}", "/v1/files/{}/content"),
    *("/v1/batches", "/v1/batches/{}", "/v1/batches/{}/cancel", "/v1/responses/{}"),
    "/v1/responses/{}/cancel",
)
VALUES = st.sampled_from(["", "0", "1", "-1", "9" * 5000, "000000001" + "0" * 5000, "%ff", "true", "desc"])
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
MANY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def queued() -> App:
    return make_app(queue=MemoryQueue(), webhook=Webhook(secret="s" * 32))


def is_fine(answer: Answer, sent: Any) -> None:
    assert answer.status not in {0, 500}, (sent, answer.body)
    assert b"internal_error" not in answer.body, (sent, answer.body)


@pytest.mark.parametrize("path", PATHS)
def test_a_job_of_any_body_ends_and_can_be_asked_for(path: str) -> None:
    """Whatever is asked for, a worker comes to an end with it, and its document and its stream are there."""
    places = paths(BODIES[path])

    async def one(sent: Any) -> None:
        app = queued()
        is_fine(await ask(app, sent, path=path, headers={"prefer": "respond-async"}), sent)
        assert app.gateway.queue is not None
        for delivery in await app.gateway.queue.receive(1, 30.0, 0.0):
            row = await answer_message(app.gateway, delivery.body)
            assert row["status"] in {"done", "failed"}, (sent, row)
            for address in (f"/v1/jobs/{row['id']}", f"/v1/jobs/{row['id']}/events"):
                shown = await ask(app, path=address, method="GET")
                is_fine(shown, sent)
                assert shown.status == 200, (sent, shown.body)

    @MANY
    @given(st.lists(st.tuples(st.sampled_from(places), ODD, HOW), max_size=3))
    def check(changes: list[tuple[tuple[Any, ...], Any, str]]) -> None:
        sent = BODIES[path]
        for place, odd, how in changes:
            sent = changed(sent, place, odd, how)
        asyncio.run(one(sent))

    check()


@MANY
@given(st.lists(st.tuples(st.sampled_from(paths(WANTED)), ODD, HOW), min_size=1, max_size=3))
def test_any_batch(changes: list[tuple[tuple[Any, ...], Any, str]]) -> None:
    """What is no batch is refused."""
    sent = WANTED
    for place, odd, how in changes:
        sent = changed(sent, place, odd, how)
    is_fine(asyncio.run(ask(queued(), json.dumps(sent).encode(), path="/v1/batches")), sent)


@MANY
@given(st.integers(0, 400), st.binary(max_size=4), st.integers(0, 8), st.binary(max_size=20))
def test_any_form(at: int, put: bytes, cut: int, content: bytes) -> None:
    """Bytes are put into it, and others are cut out."""
    whole = FORM % (b"purpose", b"", b"batch") + FORM % (b"file", b'; filename="x"', content) + b"--b--\r\n"
    sent = whole[:at] + put + whole[at + cut :]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    is_fine(asyncio.run(ask(queued(), sent, path="/v1/files", headers=headers)), sent)


@MANY
@given(
    st.sampled_from(ADDRESSES),
    st.sampled_from(NAMES),
    st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
    st.lists(st.tuples(st.sampled_from(["limit", "after", "order", "stream", "starting_after"]), VALUES)),
)
def test_any_address(address: str, name: str, method: str, query: list[tuple[str, str]]) -> None:
    """Wrong names are not found, wrong parameters named."""
    said = "&".join(f"{key}={value}" for key, value in query)
    path = f"{address.format(name)}?{said}"
    is_fine(asyncio.run(ask(queued(), path=path, method=method)), (method, path))


@MANY
@given(PLAIN, PLAIN)
def test_any_header(prefer: str, webhook: str) -> None:
    """A preference is read over where it is none; an address that is none is refused."""
    headers = {"prefer": f"respond-async, {prefer}", "x-firsttoken-webhook": f"https://{webhook}"}
    answer = asyncio.run(ask(queued(), BODIES["/v1/chat/completions"], headers=headers))
    is_fine(answer, headers)
    assert answer.status in {200, 202, 400}
