"""Azurite, the storage emulator of Azure, as a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_INSTALLED = Path(__file__).resolve().parents[1] / "node" / "node_modules" / ".bin" / "azurite"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_START_SECONDS = 90.0


@contextmanager
def running_azurite() -> Iterator[str]:
    """Run Azurite on free ports and give its connection string."""
    command = shlex.split(os.environ.get("FIRSTTOKEN_AZURITE") or str(_INSTALLED))
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = dict(
            zip(("blob", "queue", "table"), (item.getsockname()[1] for item in listeners), strict=True)
        )
    options = [f"--{service}Port={port}" for service, port in ports.items()]
    flags = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, *flags, *options], stdout=log, stderr=log, start_new_session=True
        )
        try:
            for port in ports.values():
                _wait(process, port)
            endpoints = [
                f"{service.title()}Endpoint=http://127.0.0.1:{port}/devstoreaccount1"
                for service, port in ports.items()
            ]
            account = ["DefaultEndpointsProtocol=http", "AccountName=devstoreaccount1", f"AccountKey={_KEY}"]
            yield ";".join([*account, *endpoints]) + ";"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    limit = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, f"azurite ended with status {process.returncode}"
            assert time.monotonic() < limit, f"azurite did not listen within {_START_SECONDS:.0f} s"
            time.sleep(0.05)
        else:
            return
