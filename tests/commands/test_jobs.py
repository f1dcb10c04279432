"""``firsttoken jobs``."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api.deferred import take, work
from policies.models import END, say

from firsttoken import config
from firsttoken.auth import digest
from firsttoken.chat import ChatRequest
from firsttoken.cli import main
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job, JobError, Message
from firsttoken.model import Call, Later, Source

ERROR = JobError(503, "upstream_error", "Not\x1b[2J here.", "target_unavailable")
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTTOKEN_STORE__PATH", str(tmp_path / "store.db"))
    monkeypatch.setenv("FIRSTTOKEN_QUEUE__KIND", "sqlite")
    monkeypatch.setenv("FIRSTTOKEN_QUEUE__PATH", str(tmp_path / "queue.db"))
    monkeypatch.setenv("FIRSTTOKEN_KEYS", f"acme:{digest('k')}")


def with_gateway(do: Callable[[Gateway], Awaitable[Any]]) -> Any:
    """Do something as a process of its own would."""

    async def run() -> Any:
        gateway = Gateway(config.load(store="sqlite"))
        try:
            await gateway.store.open()
            return await do(gateway)
        finally:
            await gateway.aclose()

    return asyncio.run(run())


def submit(tenant: str = "local", model: str = "simulated") -> Job:
    """Make a job."""

    async def do(gateway: Gateway) -> Job:
        request = ChatRequest(model=model, messages=())
        call = Call(request=request, source=Source("openai-chat", BODY), id="r", deadline=0, tenant=tenant)
        return await gateway.jobs.submit(call, Later(asked=True))

    return with_gateway(do)


def end(error: JobError | None = None) -> Job:
    """Answer the next job, or let it fail and put its message to the dead letters."""

    async def do(gateway: Gateway) -> Job:
        if error is not None:
            job = await work(gateway, error=error)
            letter = msgspec.json.encode(Message(job.id, job.tenant))
            await gateway.queue.bury(letter, "target_unavailable\x1b")
            return job
        held = await take(gateway)
        return await held.done([say("Hello "), say("there"), END], "simulated/simulated", 1)

    return with_gateway(do)


def state(job: Job) -> Job:
    return with_gateway(lambda gateway: gateway.jobs.get(job.tenant, job.id))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["jobs", *arguments]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the jobs of all tenants, the newest first, and the line of the queue."""
    first, second = submit(), submit("acme", "a\x1bb")
    lines = said(capsys, "list").splitlines()
    assert lines[0] == "queue sqlite: 2 waiting, 0 delayed, 0 running, 0 dead"
    assert [line.split()[0] for line in lines[1:]] == ["ID", second.id, first.id]
    assert "(acme)" in lines[2]
    assert "a?b" in lines[2]
    only = json.loads(said(capsys, "list", "--tenant", "acme", "--json"))
    assert [(job["id"], job["tenant"]) for job in only["jobs"]] == [(second.id, "acme")]
    assert only["depth"]["waiting"] == 2
    assert len(said(capsys, "list", "--limit", "1").splitlines()) == 3


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    """The document is shown; the text of the answer only where it was asked for."""
    job = submit()
    end()
    shown = said(capsys, "show", job.id)
    assert "state       done" in shown
    assert "Hello" not in shown
    assert said(capsys, "show", job.id, "--answer").endswith("\nHello there\n")
    told = json.loads(said(capsys, "show", job.id.replace("job_", "resp_"), "--json", "--answer"))
    assert (told["id"], told["answer"], told["target"]) == (job.id, "Hello there", "simulated/simulated")
    assert "no job job_1 of local or acme" in said(capsys, "show", "job_1", code=1)
    assert "of acme" in said(capsys, "show", job.id, "--tenant", "acme", code=1)


def test_dead_letters_and_redrive(capsys: pytest.CaptureFixture[str]) -> None:
    """Dead letters tell their reason; sent again, their jobs wait as if new, and a worker answers them."""
    jobs = [submit() for _ in range(12)]
    for _ in jobs:
        end(ERROR)
    told = said(capsys, "list", "--dead", "--limit", "50")
    assert "12 dead" in told.splitlines()[0]
    assert told.count("target_unavailable?\n") == 12
    letters = json.loads(said(capsys, "list", "--dead", "--json"))["dead"]
    assert {json.loads(one["body"])["id"] for one in letters} == {job.id for job in jobs}
    assert "Not?[2J here. (target_unavailable)" in said(capsys, "show", jobs[0].id)
    assert said(capsys, "redrive", "--limit", "11") == "11 dead letters sent again, 11 jobs wait again\n"
    assert said(capsys, "redrive") == "1 dead letters sent again, 1 jobs wait again\n"
    assert said(capsys, "redrive") == "0 dead letters sent again, 0 jobs wait again\n"
    again = [state(job) for job in jobs]
    assert {(job.state, job.error, job.attempts, job.finished) for job in again} == {("queued", None, 0, 0.0)}
    for _ in jobs:
        end()
    assert {state(job).state for job in jobs} == {"done"}


def test_redrive_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    """One job is sent again by its id, if it failed."""
    job = submit("acme")
    assert state(job).state == "queued"
    end(ERROR)
    assert said(capsys, "redrive", "--id", job.id) == f"{job.id} waits again\n"
    end()
    assert state(job).state == "done"
    assert "is done; expected a failed" in said(capsys, "redrive", "--id", job.id, code=1)


def test_redrive_of_what_is_no_job(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters without a job are sent again as they are; a webhook that was given up is called again."""
    job = submit()
    end()

    async def bury(gateway: Gateway) -> None:
        def given_up(one: Job) -> Job:
            return msgspec.structs.replace(one, webhook="https://a.example", notified="failed", notices=6)

        await gateway.jobs.change("local", job.id, given_up)
        await gateway.queue.bury(b"\xff", "no job's message")
        await gateway.queue.bury(msgspec.json.encode(Message(job.id, "local", "notify")), "webhook")

    with_gateway(bury)
    assert said(capsys, "redrive") == "2 dead letters sent again, 1 jobs wait again\n"
    assert (state(job).state, state(job).notified, state(job).notices) == ("done", "", 0)


def test_purge_asks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is deleted without a yes, or ``--yes``."""
    submit()
    end(ERROR)
    assert "--yes" in said(capsys, "purge", code=2)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(["jobs", "purge"]) == 1
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert "up to 1 dead" in said(capsys, "purge")
    assert said(capsys, "purge", "--yes") == "0 dead letters deleted\n"


@pytest.mark.parametrize("name", ["FIRSTTOKEN_QUEUE__KIND", "FIRSTTOKEN_STORE__KIND"])
def test_what_is_in_memory_cannot_be_reached(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs of another process are reached through what both share, or not at all."""
    monkeypatch.delenv("FIRSTTOKEN_QUEUE__PATH")
    monkeypatch.delenv("FIRSTTOKEN_STORE__PATH")
    monkeypatch.setenv(name, "memory")
    assert "queue.kind" in said(capsys, "list", code=2)


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar shows how far it is."""
    submit()
    end(ERROR)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["jobs", "redrive"]) == 0
    assert capsys.readouterr().err.endswith("100%\n")
