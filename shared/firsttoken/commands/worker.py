"""``firsttoken worker``: answer deferred calls from a queue that workers ask (SQLite, SQS, Azure Storage...).

``firsttoken serve`` does the same beside its own work.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.gateway import Gateway
    from firsttoken.runtimes.local import Beside

DRAIN_SECONDS = 20.0
"""What jobs have to end once the worker is told to stop; then they are handed back."""


def register(commands: Any) -> None:
    """Add the command."""
    worker = commands.add_parser("worker", help="answer deferred calls from the queue, and nothing else")
    worker.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        metavar="S",
        help="seconds that jobs have to end on SIGTERM (default %(default)s)",
    )
    worker.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Answer jobs until SIGTERM or SIGINT, with one JSON line for each; return the exit code."""
    from firsttoken import config
    from firsttoken.gateway import create_gateway

    settings = config.load(store="sqlite", queue="sqlite")
    if settings.queue is None or settings.queue.__struct_config__.tag == "memory":
        raise ConfigError("queue.kind: expected a queue that several processes share")
    gateway = create_gateway(settings)
    _build(gateway)
    return asyncio.run(_work(gateway, parsed.drain))


async def _work(gateway: Gateway, drain: float) -> int:
    from firsttoken.worker.loop import work

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    try:
        await work(gateway, stop=stop, log=_print, drain=drain)
    finally:
        await gateway.aclose()
    return 0


def beside(gateway: Gateway) -> Beside:
    """Return what a process that serves does as well: it answers jobs, where it may, and moves batches on.

    Raises ConfigError where jobs could not be made, or not be answered.
    """
    queue = gateway.queue
    if queue is not None:
        _build(gateway)
    answers = queue is not None and queue.pulls and gateway.settings.jobs.worker

    async def run_beside(stop: asyncio.Event) -> None:
        from firsttoken.worker.batches import tick_until

        async with asyncio.TaskGroup() as group:
            group.create_task(tick_until(gateway, stop))
            if answers:
                from firsttoken.worker.loop import work

                log = _log if gateway.settings.server.log else _nothing
                group.create_task(work(gateway, stop=stop, log=log))

    return run_beside


def _build(gateway: Gateway) -> None:
    """Build what jobs need, which is built when first used otherwise: a wrong secret stops the start."""
    for name in ("jobs", "webhooks"):
        getattr(gateway, name)


def _print(row: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
    sys.stdout.flush()


def _log(row: dict[str, Any]) -> None:
    sys.stderr.write(msgspec.json.encode(row).decode() + "\n")


def _nothing(_row: dict[str, Any]) -> None:
    return
