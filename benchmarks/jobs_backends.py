"""The queues of deferred calls, each with what it needs on this machine, and workers that are killed.

A worker is a process that is killed with SIGKILL and started again: `firsttoken worker` where workers ask the
queue, functions-framework with the function `recover` where the queue pushes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from msgspec import Struct

from benchmarks.processes import ROOT, environment

_RECOVER = [
    "-m",
    "functions_framework",
    "--source",
    str(ROOT / "functions/gcp/main.py"),
    "--target",
    "recover",
]
_PROJECT = "projects/bench"


class Backend(Struct, frozen=True):
    """A queue: its section of the configuration, and how its workers are started."""

    queue: dict[str, Any]
    env: Mapping[str, str] = {}
    command: tuple[str, ...] = ("-m", "firsttoken.cli", "worker")


class Worker:
    """A process that answers jobs. What it logs is read by the line; a line that was cut is none."""

    def __init__(self, backend: Backend, config: Path) -> None:
        self._command = [sys.executable, *backend.command]
        self._env = environment(**backend.env, FIRSTTOKEN_CONFIG=str(config))
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it is not waited for."""
        self._process = subprocess.Popen(
            self._command, env=self._env, cwd=ROOT, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def kill(self) -> None:
        """End the process and its children at once, with whatever they are doing."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that it has logged so far."""
        size = os.fstat(self._log.fileno()).st_size
        for line in os.pread(self._log.fileno(), size, 0).splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def tail(self) -> str:
        """Return the end of what it wrote, for a report of what went wrong."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 2000, max(size - 2000, 0)).decode(errors="replace")

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        self._log.close()


@contextmanager
def sqlite(directory: Path) -> Iterator[Backend]:
    """Give a file."""
    yield Backend({"kind": "sqlite", "path": str(directory / "queue.sqlite")})


@contextmanager
def sqs(_: Path) -> Iterator[Backend]:
    """Give SQS, by moto's server."""
    from tests.queues import moto_server

    urls = moto_server.new_queues(50)
    queue = {"kind": "sqs", "url": urls.queue, "dead_url": urls.dead, "endpoint": moto_server.endpoint()}
    with patch.dict(os.environ, moto_server.AWS):
        yield Backend({**queue, "region": moto_server.REGION}, moto_server.AWS)


@contextmanager
def storage_queue(_: Path) -> Iterator[Backend]:
    """Give an Azure Storage queue, by Azurite."""
    from tests.emulators.azurite import running_azurite

    with running_azurite() as connection:
        yield Backend({"kind": "storage_queue", "connection": connection})


@contextmanager
def pubsub(_: Path) -> Iterator[Backend]:
    """Give Pub/Sub, by our simulator: a twentieth of the messages comes twice, a tenth late."""
    from firsttoken.emulators.gcp import pushing
    from firsttoken.emulators.pubsub_subscription import Faults
    from firsttoken.settings import PubsubQueue

    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [listener.getsockname()[1] for listener in listeners]
    queue = {
        "kind": "pubsub",
        "topic": f"{_PROJECT}/topics/jobs",
        "dead_topic": f"{_PROJECT}/topics/dead",
        "dead_subscription": f"{_PROJECT}/subscriptions/dead",
        "endpoint": f"http://127.0.0.1:{ports[0]}",
    }
    settings = PubsubQueue(**{name: value for name, value in queue.items() if name != "kind"})
    faults = Faults(seed=1, duplicates=0.05, reorder=0.1)
    command = (*_RECOVER, "--host", "127.0.0.1", "--port", str(ports[1]))
    with pushing(settings, f"http://127.0.0.1:{ports[1]}/", faults=faults):
        yield Backend(queue, {"FIRSTTOKEN_AUTH": "off"}, command)


BACKENDS = {
    "SQLite": sqlite,
    "SQS (moto)": sqs,
    "Azure Storage queue (Azurite)": storage_queue,
    "Pub/Sub (simulator)": pubsub,
}
