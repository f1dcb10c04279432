"""AWS's own Runtime Interface Emulator on this machine: the protocol as AWS wrote it, one call at a time.

It hands an answer over only when it is complete, so it proves that a runtime speaks the protocol, not that it
streams. The binary comes with the PyPI package aws-sam-cli and runs without docker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from firsttoken.emulators.aws_environment import Function, Options, lambda_environ
from firsttoken.errors import ConfigError
from firsttoken.providers.http import HttpClient, Timeouts

_PATH = "/2015-03-31/functions/function/invocations"
_MAX_ANSWER = 8 << 20
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02


def find_rie() -> Path:
    """Return the emulator's binary. Raises `ConfigError` when it is not there."""
    named = os.environ.get("FIRSTTOKEN_RIE")
    path = Path(named) if named else Path(sys.prefix) / "share" / "firsttoken" / "aws-lambda-rie"
    if path.is_file() and os.access(path, os.X_OK):
        return path
    origin = "FIRSTTOKEN_RIE" if named else "AWS's Runtime Interface Emulator"
    raise ConfigError(f"{origin}: there is no program {path}; expected the one that `make test` installs")


class RieEmulator:
    """A function under AWS's emulator, while the ``async with`` block lasts."""

    def __init__(
        self,
        *,
        root: Path,
        handler: str,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        options: Options | None = None,
    ) -> None:
        command = tuple(command or (sys.executable, "-m", "firsttoken.runtimes.aws", handler))
        self._function = Function(handler, root.resolve(), command, dict(env or {}), options or Options())
        self._client = HttpClient()
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""

    async def __aenter__(self) -> Self:
        """Start the emulator; the function's process starts with the first invocation."""
        function = self._function
        runtime_api, port = f"127.0.0.1:{_free_port()}", _free_port()
        self._url = f"http://127.0.0.1:{port}{_PATH}"
        timeout = {"AWS_LAMBDA_FUNCTION_TIMEOUT": str(max(1, round(function.options.timeout)))}
        self._process = await asyncio.create_subprocess_exec(
            str(find_rie()),
            *("--log-level", "error"),
            *(
                "--runtime-api-address",
                runtime_api,
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{port}",
            ),
            *function.command,
            cwd=function.root,
            env=lambda_environ(function, runtime_api) | timeout,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=function.options.log,
            stderr=function.options.log,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._listening(port)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the emulator and the function."""
        await self._stop()

    async def invoke(self, event: Mapping[str, Any] | bytes) -> bytes:
        """Invoke the function with one event and return its whole answer: prelude and body, or an error.

        Invocations wait for each other: the emulator crashes when two are under way.
        """
        payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
        limit = self._function.options.timeout + _START_SECONDS
        async with self._turn:
            timeouts = Timeouts(connect=_START_SECONDS, first_byte=limit, gap=limit)
            response = await self._client.request(
                "POST", self._url, headers=[], body=payload, timeouts=timeouts
            )
            return await response.read(_MAX_ANSWER)

    async def _listening(self, port: int) -> None:
        while True:
            if self._process is None or self._process.returncode is not None:
                raise ConfigError("AWS's Runtime Interface Emulator ended at once; its output says why")
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _stop(self) -> None:
        await self._client.aclose()
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()  # it stops the function's process in turn
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
