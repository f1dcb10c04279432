"""Processes that a run starts, breaks and stops: simulated providers, the gateway, a Redis server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from firsttoken.errors import ConfigError, FirstTokenError

HOST = "127.0.0.1"
START_SECONDS = 30.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class BenchError(FirstTokenError):
    """A process of the run did not start; the message ends with what it wrote."""


class Child:
    """A process on a loopback port. It keeps the port when it is started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command that serves on `port`."""
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """Return what is added to its environment."""
        return {}

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be frozen)."""
        return self._process is not None

    def start(self) -> None:
        """Start the process and wait until it listens. Raises BenchError when it does not."""
        self.port = self.port or _free_port()
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            self.command(),
            env=_environment(self.variables()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        limit = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > limit:
                raise BenchError(f"{self.name} did not start\n{self.written().decode(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the process at once: its connections are reset, new ones refused."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # works on a frozen process too
            process.wait()

    def freeze(self) -> None:
        """Stop the process's clock: the kernel accepts connections for it, and nothing follows."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def written(self) -> bytes:
        """Return what the process wrote to stderr so far."""
        if self._log is None:
            return b""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    def stop(self) -> None:
        """End the process and forget what it wrote."""
        self.kill()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


class Simulator(Child):
    """A simulated provider."""

    def __init__(self, name: str, profile: str) -> None:
        super().__init__(name)
        self._profile = profile

    def command(self) -> list[str]:
        """Return the command that serves on `port`."""
        return _ours("sim", self.port, "--profile", self._profile)


class Server(Child):
    """The gateway with a configuration file."""

    def __init__(self, config: Path) -> None:
        super().__init__("the gateway")
        self._config = config

    def command(self) -> list[str]:
        """Return the command that serves on `port`."""
        return _ours("serve", self.port)

    def variables(self) -> dict[str, str]:
        """Return what is added to its environment."""
        return {"FIRSTTOKEN_CONFIG": str(self._config)}


class Redis(Child):
    """A Redis server without a disk."""

    def command(self) -> list[str]:
        """Return the command that serves on `port`. Raises ConfigError where Redis is not installed."""
        program = shutil.which("redis-server")
        if program is None:
            raise ConfigError("store.kind: redis-server is not installed; expected it on the PATH")
        options = {"port": str(self.port), "bind": HOST, "save": "", "appendonly": "no"}
        return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def _ours(command: str, port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "firsttoken.cli", command, "--port", str(port), *options]


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return an environment without settings of ours: a run depends on its scenario alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTTOKEN_")}
    paths = [str(_PACKAGE_PARENT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **more}


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
