"""``/v1/batches`` and ``/v1/files`` with the official SDK, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvicorn
from support import ask, make_app

from firsttoken.app import App
from firsttoken.settings import Auth, Batch, SqliteStore
from firsttoken.worker.batches import tick


def line(number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}], **fields}
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class _Ticking:
    """An application whose batches move on with each call of `tick`, on the server's own loop."""

    def __init__(self, app: App, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.app, self.url, self._loop = app, url, loop

    def tick(self) -> list[dict[str, Any]]:
        return asyncio.run_coroutine_threadsafe(tick(self.app.gateway), self._loop).result(20)


@contextmanager
def serving(app: App) -> Iterator[_Ticking]:
    """Serve ``app`` on a free port of loopback."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup
    loops: list[asyncio.AbstractEventLoop] = []

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        loops.append(asyncio.get_running_loop())
        ready.set()

    server.startup = start
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(10)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield _Ticking(app, f"http://127.0.0.1:{port}/v1", loops[0])
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def served() -> Iterator[_Ticking]:
    with serving(make_app()) as one:
        yield one


def test_the_official_sdk_runs_a_batch(served: _Ticking) -> None:
    """Upload, create, retrieve, list and download as the SDK does it; the batch ends with all answers."""
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        file = client.files.create(file=("in.jsonl", jsonl(line(0), line(1))), purpose="batch")
        assert (file.filename, file.purpose, file.status) == ("in.jsonl", "batch", "processed")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"night": "1"},
        )
        assert (batch.status, batch.metadata) == ("validating", {"night": "1"})
        served.tick()
        batch = client.batches.retrieve(batch.id)
        assert (batch.status, batch.model) == ("completed", "m")
        counts = batch.request_counts
        assert counts
        assert (counts.total, counts.completed, counts.failed) == (2, 2, 0)
        assert batch.usage
        assert batch.usage.total_tokens > 0
        assert batch.error_file_id is None
        rows = [json.loads(row) for row in client.files.content(batch.output_file_id or "").iter_lines()]
        assert {row["custom_id"] for row in rows} == {"id-0", "id-1"}
        assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in rows)
        answer = openai.types.chat.ChatCompletion.model_validate(rows[0]["response"]["body"])
        assert "question" in (answer.choices[0].message.content or "")
        assert [one.id for one in client.batches.list()] == [batch.id]
        listed = client.files.list()
        assert {one.purpose for one in listed} == {"batch", "batch_output"}


def test_sdk_paginates_and_deletes(served: _Ticking) -> None:
    """Lists go on behind the last one, newest first; a deleted file is gone."""
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        names = [client.files.create(file=b"x" * 9, purpose="batch").id for _ in range(3)]
        assert [file.id for file in client.files.list(limit=1)] == names[::-1]
        assert [file.id for file in client.files.list(order="asc")] == names
        made = [
            client.batches.create(
                input_file_id=names[0], endpoint="/v1/chat/completions", completion_window="24h"
            ).id
            for _ in range(3)
        ]
        assert [batch.id for batch in client.batches.list(limit=1)] == made[::-1]
        with pytest.raises(openai.BadRequestError) as caught:
            client.files.delete(names[0])
        assert caught.value.code == "file_in_use"
        for _ in made:
            served.tick()
        assert client.files.delete(names[0]).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(names[0])
        assert client.files.retrieve(names[1]).bytes == 9


def test_sdk_cancels(served: _Ticking) -> None:
    """A cancelled batch is `cancelling` until the next tick; a finished one cannot be cancelled."""
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        file = client.files.create(file=jsonl(line(0)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert client.batches.cancel(batch.id).status == "cancelling"
        served.tick()
        assert client.batches.retrieve(batch.id).status == "cancelled"
        assert client.batches.cancel(batch.id).status == "cancelled"
        done = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        served.tick()
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.cancel(done.id)
        assert caught.value.code == "batch_not_cancellable"


def test_wrong_lines_are_told_by_number(served: _Ticking) -> None:
    """A file with wrong lines fails the batch, and says of each what was expected."""
    wrong = line(2)
    wrong["method"] = "GET"
    content = jsonl(line(0)) + b"{oops\n" + jsonl(line(0), wrong, line(3, model="x"), line(4, stream=True))
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        file = client.files.create(file=content, purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        served.tick()
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "failed"
        assert batch.errors
        assert [(error.line, error.code) for error in batch.errors.data or []] == [
            (2, "invalid_json_line"),
            (3, "duplicate_custom_id"),
            (4, "invalid_method"),
            (5, "mismatched_model"),
            (6, "invalid_value"),
        ]


def run(*asked: tuple[str, str, Any, dict[str, str]], **options: Any) -> list[Any]:
    async def all_of() -> list[Any]:
        app = make_app(**options)
        try:
            return [
                await ask(app, body, method=method, path=path, headers=headers)
                for method, path, body, headers in asked
            ]
        finally:
            await app.gateway.aclose()

    return asyncio.run(all_of())


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (
            {"input_file_id": "file-x", "endpoint": "/v1/chat/completions"},
            "invalid_value",
            "completion_window",
        ),
        (
            {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"},
            "invalid_value",
            "endpoint",
        ),
        (
            {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "1h"},
            "invalid_value",
            "completion_window",
        ),
        (
            {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
            "invalid_input_file",
            "input_file_id",
        ),
    ],
)
def test_a_wrong_batch_is_refused(body: dict[str, str], code: str, param: str) -> None:
    """The refusal names the field and what was expected."""
    (answer,) = run(("POST", "/v1/batches", body, {}))
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (400, code, param)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/batches/batch_none", 404),
        ("POST", "/v1/batches/batch_none/cancel", 404),
        ("GET", "/v1/files/file-none", 404),
        ("GET", "/v1/files/file-none/content", 404),
        ("DELETE", "/v1/files/file-none", 404),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/files?after=file-x", 400),
        ("GET", "/v1/batches?limit=101", 400),
        ("GET", "/v1/batches?limit=000000001" + "0" * 5000, 400),
        ("GET", "/v1/files?" + "a&" * 50 + "limit=x", 400),
        ("GET", "/v1/batches?after=batch_x", 400),
        ("PUT", "/v1/files", 405),
    ],
)
def test_what_is_not_there(method: str, path: str, status: int) -> None:
    """Unknown names are a 404, wrong parameters a 400, other methods a 405."""
    (answer,) = run((method, path, None, {}))
    assert answer.status == status
    assert answer.json()["error"]["message"]


def test_tenants_see_only_their_own(tmp_path: Any) -> None:
    """Another tenant's files and batches do not exist for anyone else."""
    from firsttoken.auth import digest

    keys = {"a": [digest("key-a")], "b": [digest("key-b")]}
    app = make_app(
        deployed=True, auth=Auth(mode="on", keys=keys), store=SqliteStore(path=str(tmp_path / "s"))
    )
    with serving(app) as one:
        mine = openai.OpenAI(base_url=one.url, api_key="key-a")
        other = openai.OpenAI(base_url=one.url, api_key="key-b")
        with mine, other:
            file = mine.files.create(file=jsonl(line(0)), purpose="batch")
            batch = mine.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            one.tick()
            assert mine.batches.retrieve(batch.id).status == "completed"
            assert not list(other.files.list())
            assert not list(other.batches.list())
            for attempt in (
                lambda: other.files.content(file.id),
                lambda: other.files.delete(file.id),
                lambda: other.batches.retrieve(batch.id),
                lambda: other.batches.cancel(batch.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    attempt()
            with pytest.raises(openai.BadRequestError):
                other.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )


def test_open_batches_are_bounded() -> None:
    """A tenant with too many batches without an end is refused another."""
    with (
        serving(make_app(batch=Batch(max_open_tenant=1))) as one,
        openai.OpenAI(base_url=one.url, api_key="any") as client,
    ):
        file = client.files.create(file=jsonl(line(0)), purpose="batch")
        wanted: dict[str, Any] = {
            "input_file_id": file.id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        client.batches.create(**wanted)
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.create(**wanted)
        assert caught.value.code == "too_many_batches"
        one.tick()
        client.batches.create(**wanted)
