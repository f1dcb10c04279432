"""``firsttoken jobs list | show | redrive | purge``: the calls that are answered later, and the dead letters.

It speaks to the configured store and queue itself, so it needs no running gateway; without a configuration
those are the files of ``firsttoken serve``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from firsttoken.commands.jobs_shown import (
    HEAD,
    Bar,
    depth_line,
    letter_line,
    letter_of,
    row_of,
    said,
    shown_of,
)
from firsttoken.errors import ConfigError, NotFoundError, RequestError

if TYPE_CHECKING:
    from firsttoken.gateway import Gateway
    from firsttoken.jobs.job import Job
    from firsttoken.jobs.jobs import Jobs
    from firsttoken.queues import Dead

Work = Callable[[argparse.Namespace, "Gateway", "Jobs"], Awaitable[int]]

_BATCH = 10
"""Dead letters that are sent again at a time."""


def register(commands: Any) -> None:
    """Add the group ``jobs`` to the commands."""
    parser = commands.add_parser("jobs", help="list, show or redrive the calls that are answered later")
    group = parser.add_subparsers(required=True, metavar="COMMAND")

    listed = group.add_parser("list", help="the latest jobs and how many messages the queue has")
    listed.add_argument("--dead", action="store_true", help="the dead letters instead, with their reasons")
    _limit(listed, 20)
    _tenant(listed)
    _json(listed)
    listed.set_defaults(run=_runs(run_list))

    show = group.add_parser("show", help="one job")
    show.add_argument("id", metavar="ID")
    show.add_argument("--answer", action="store_true", help="the text of its answer, too")
    _tenant(show)
    _json(show)
    show.set_defaults(run=_runs(run_show))

    redrive = group.add_parser("redrive", help="send dead letters again; their jobs wait as if new")
    redrive.add_argument("--id", metavar="ID", default="", help="only this job, failed or expired")
    _limit(redrive, 1000)
    _tenant(redrive)
    redrive.set_defaults(run=_runs(run_redrive))

    purge = group.add_parser("purge", help="delete dead letters for good")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    _limit(purge, 1000)
    purge.set_defaults(run=_runs(run_purge))


def _tenant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", default="", metavar="T", help="whose; else all that are known")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def _limit(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument("--limit", type=_count, default=default, metavar="N", help="default %(default)s")


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value}")
    return number


def _runs(work: Work) -> Callable[[argparse.Namespace], int]:
    """Return a command that does ``work`` with the jobs of the configuration. Raises ConfigError."""

    async def run(parsed: argparse.Namespace) -> int:
        from firsttoken import config
        from firsttoken.gateway import Gateway
        from firsttoken.settings import MemoryQueue

        gateway = Gateway(config.load(store="sqlite", queue="sqlite"))
        in_memory = isinstance(gateway.settings.queue, MemoryQueue) or not gateway.store.shared
        try:
            if gateway.jobs is None or in_memory:
                kinds = "sqlite, sqs, pubsub, storage_queue or service_bus, and a store that is not in memory"
                raise ConfigError(f"queue.kind: expected {kinds}, as in the gateway's configuration")
            await gateway.store.open()
            return await work(parsed, gateway, gateway.jobs)
        finally:
            await gateway.aclose()

    return lambda parsed: asyncio.run(run(parsed))


async def run_list(parsed: argparse.Namespace, gateway: Gateway, jobs: Jobs) -> int:
    """Print the latest jobs of all tenants, or the dead letters."""
    depth = await jobs.queue.depth()
    if parsed.dead:
        dead = await jobs.queue.dead(parsed.limit)
        _print_json(parsed, {"dead": [letter_of(one) for one in dead], "depth": msgspec.to_builtins(depth)})
        _print(parsed, [depth_line(gateway, depth), *[letter_line(letter_of(one)) for one in dead]])
        return 0
    found = [job for tenant in _tenants(parsed, gateway) for job in await jobs.recent(tenant, parsed.limit)]
    latest = sorted(found, key=lambda job: -job.created)[: parsed.limit]
    _print_json(parsed, {"jobs": [shown_of(job) for job in latest], "depth": msgspec.to_builtins(depth)})
    _print(parsed, [depth_line(gateway, depth), HEAD, *[row_of(job, jobs.wall()) for job in latest]])
    return 0


async def run_show(parsed: argparse.Namespace, gateway: Gateway, jobs: Jobs) -> int:
    """Print what is known of a job. Raises NotFoundError."""
    job = await _find(parsed, gateway, jobs, parsed.id)
    shown = shown_of(job)
    text = None
    if parsed.answer:
        chunks = await jobs.answer(job)
        text = None if chunks is None else "".join([chunk.text for chunk in chunks])
        shown["answer"] = text
    _print_json(parsed, shown)
    lines = [f"{name:<11} {said(name, value)}" for name, value in shown.items() if name != "answer"]
    answered = ["", "there is no answer" if text is None else text] if parsed.answer else []
    _print(parsed, [*lines, *answered])
    return 0


async def run_redrive(parsed: argparse.Namespace, gateway: Gateway, jobs: Jobs) -> int:
    """Send dead letters again, and let their jobs wait again. Raises RequestError, StoreError, QueueError."""
    if parsed.id:
        job = await _find(parsed, gateway, jobs, parsed.id)
        opened = await jobs.reopen(job.tenant, job.id) or job
        if opened.state != "queued":
            raise RequestError(
                f"{job.id} is {opened.state}; expected a failed or expired job, its request kept"
            )
        await jobs.send(opened)
        sys.stdout.write(f"{job.id} waits again\n")
        return 0
    letters = await jobs.queue.dead(parsed.limit)
    bar = Bar(2 * len(letters))
    opened_jobs = 0
    for letter in letters:  # first, so that no worker meets a message before its job is open
        opened_jobs += await _open(jobs, letter)
        bar.step(1)
    sent = 0
    while sent < len(letters) and (some := await jobs.queue.redrive(min(_BATCH, len(letters) - sent))):
        sent += some
        bar.step(some)
    bar.end()
    sys.stdout.write(f"{sent} dead letters sent again, {opened_jobs} jobs wait again\n")
    return 0


async def run_purge(parsed: argparse.Namespace, gateway: Gateway, jobs: Jobs) -> int:  # noqa: ARG001 - as all
    """Delete dead letters, after asking. Raises ConfigError where nobody can be asked."""
    depth = await jobs.queue.depth()
    if not parsed.yes:
        if not sys.stdin.isatty():
            raise ConfigError("jobs purge: nobody can be asked here; expected --yes")
        count = parsed.limit if depth.dead is None else min(depth.dead, parsed.limit)
        sys.stdout.write(f"Delete up to {count} dead letters for good? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            return 1
    sys.stdout.write(f"{await jobs.queue.purge_dead(parsed.limit)} dead letters deleted\n")
    return 0


async def _open(jobs: Jobs, letter: Dead) -> bool:
    """Make a dead letter worth sending again: its job waits, or its webhook was not called."""
    from firsttoken.jobs.job import Message

    try:
        message = msgspec.json.decode(letter.body, type=Message)
    except msgspec.DecodeError:
        return False
    if message.kind == "answer":
        job = await jobs.reopen(message.tenant, message.id)
        return job is not None and job.state == "queued"

    def untold(job: Job) -> Job | None:
        return msgspec.structs.replace(job, notified="", notices=0) if job.notified == "failed" else None

    return await jobs.change(message.tenant, message.id, untold) is not None


async def _find(parsed: argparse.Namespace, gateway: Gateway, jobs: Jobs, name: str) -> Job:
    """Return a job by its id, or by that of its background response. Raises NotFoundError."""
    if name.startswith("resp_"):
        name = f"job_{name.removeprefix('resp_')}"
    tenants = _tenants(parsed, gateway)
    for tenant in tenants:
        if (job := await jobs.get(tenant, name)) is not None:
            return job
    raise NotFoundError(f"there is no job {name} of {' or '.join(tenants)}; see also --tenant")


def _tenants(parsed: argparse.Namespace, gateway: Gateway) -> Sequence[str]:
    from firsttoken.auth import LOCAL

    return [parsed.tenant] if parsed.tenant else [LOCAL, *sorted(set(gateway.settings.auth.keys) - {LOCAL})]


def _print_json(parsed: argparse.Namespace, shown: Any) -> None:
    if parsed.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(shown)).decode() + "\n")


def _print(parsed: argparse.Namespace, lines: Sequence[str]) -> None:
    if not parsed.json:
        sys.stdout.write("\n".join(lines) + "\n")
