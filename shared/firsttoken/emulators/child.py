"""A cloud's runtime as a process of its own: start it, wait until it answers, call it, stop it.

Each emulator says which command runs the runtime and which path answers once it is up; this module does the
rest.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from firsttoken.errors import ConfigError, FirstTokenError
from firsttoken.providers.http import HttpClient, Response, Timeouts

START_SECONDS = 60.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_PATIENT = Timeouts(connect=5.0, first_byte=300.0, gap=300.0)
CONNECTION_FIELDS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"}
    | {"proxy-connection", "transfer-encoding", "upgrade"}
)
"""Header fields that belong to one connection, or that the HTTP client writes itself."""
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class EmulatorError(FirstTokenError):
    """The runtime did not start; the message ends with what it wrote."""


class Emulator:
    """A runtime that serves the functions in ``root`` on a loopback port.

    Port 0 takes a free one. ``env`` is laid over this process's environment. What the runtime writes goes to
    `log`.
    """

    ready_path = "/"

    def __init__(
        self, *, root: Path, env: Mapping[str, str] | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.root = root.resolve()
        self.host = host
        self.port = port
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._written = ""

    def command(self) -> list[str]:
        """Return the command that runs the runtime on `port`."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where the runtime answers, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started; it leads a process group of its own."""
        if self._process is None:
            raise EmulatorError("the emulator is not running")
        return self._process.pid

    def log(self) -> str:
        """Return what the runtime wrote, unless it runs in the foreground."""
        if self._output is not None:
            # Reading by position leaves alone where the runtime goes on writing.
            size = os.fstat(self._output.fileno()).st_size
            self._written = os.pread(self._output.fileno(), size, 0).decode(errors="replace")
        return self._written

    def start(self, *, foreground: bool = False) -> None:
        """Start the runtime and return when it answers; raises `EmulatorError` when it ends before that."""
        self.port = self.port or _free_port(self.host)
        if is_taken(self.host, self.port):
            # Else the answers of whoever has the port would be taken for the runtime's.
            raise ConfigError(f"{self.host}:{self.port} is taken; choose another with --port")
        self._output = None if foreground else tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            self.command(),
            env=environment(self.root, self._env),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=None if foreground else subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the runtime and all processes that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(
                process.pid, signal.SIGKILL
            )  # children that outlived their leader, or a leader that hangs
        process.wait()
        self.log()
        if self._output is not None:
            self._output.close()
            self._output = None

    def serve(self, runtime: str) -> int:
        """Run in the foreground until the runtime ends or is interrupted; return the exit status."""
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self.start(foreground=True)
            print(f"firsttoken serves {self.url}/v1 through {runtime}", flush=True)  # noqa: T201
            return self._process.wait() if self._process else 0
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, previous)
            self.stop()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None
    ) -> AsyncIterator[Response]:
        """Send one HTTP request, ``body`` as JSON unless it is text or None; leaving the block hangs up."""
        fields = [
            (name, value) for name, value in (headers or {}).items() if name.lower() not in CONNECTION_FIELDS
        ]
        client = HttpClient()
        try:
            response = await client.request(
                method, self.url + path, headers=fields, body=encode_body(body), timeouts=_PATIENT
            )
            try:
                yield response
            finally:
                response.close()
        finally:
            await client.aclose()

    def __enter__(self) -> Self:
        """Start the runtime."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the runtime."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start the runtime."""
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the runtime."""
        await asyncio.to_thread(self.stop)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + START_SECONDS
        while not _answers(self.host, self.port, self.ready_path):
            if process.poll() is not None:
                message = (
                    f"{self.root} did not start (exit status {process.returncode})\n{self.log()}".rstrip()
                )
                raise EmulatorError(message)
            if time.monotonic() > limit:
                message = f"{self.root} did not answer within {START_SECONDS:.0f} s\n{self.log()}".rstrip()
                raise EmulatorError(message)
            time.sleep(_POLL_SECONDS)


def is_taken(host: str, port: int) -> bool:
    """Return whether somebody listens on an address already."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def environment(root: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child that imports the checkout of ``root``, or else this very package."""
    checkout = root.parents[1] / "shared"
    paths = [str(path) for path in (checkout, _PACKAGE_PARENT) if (path / "firsttoken").is_dir()]
    merged = {**os.environ, **extra}
    inherited = [path for path in merged.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**merged, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, *inherited]))}


def read_event(event: Mapping[str, object], *required: str) -> None:
    """Check that an event has the fields ``required``; raises `ConfigError` naming the first one missing."""
    for name in required:
        if name not in event:
            raise ConfigError(f"event without {name!r}: expected the fields {', '.join(required)}")


def encode_body(body: object) -> bytes:
    """Return the bytes of a request body: text as it stands, None as nothing, anything else as JSON."""
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
