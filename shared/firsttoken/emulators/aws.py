"""AWS Lambda on this machine: a function's execution environments behind a Function URL that truly streams.

Faithful where it matters to a streaming function: one invocation at a time in each environment, more of them
under load, warm ones used again, 429 beyond the limit, errors and time-outs as a Function URL shows them.
A client that leaves does not stop the function, as AWS documents.
Not covered: API Gateway's front end, IAM, the freezing of idle environments, bandwidth limits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import msgspec

from firsttoken import config
from firsttoken.emulators import files, project
from firsttoken.emulators.aws_environment import Environment, Function, FunctionError, Invocation, Options
from firsttoken.emulators.aws_queue import SqsPump
from firsttoken.emulators.aws_url import Answer, FunctionUrl, ThrottledError, open_answer
from firsttoken.emulators.http11 import start_server, stop_server
from firsttoken.errors import ConfigError
from firsttoken.runtimes.local import is_loopback
from firsttoken.settings import SqsQueue

__all__ = [
    "Answer",
    "AwsEmulator",
    "FunctionError",
    "Options",
    "ThrottledError",
    "function_for",
    "invoke",
    "serve",
]

CHAT = "functions.aws.chat.app"
RECOVER = "functions.aws.recover.handler"
SCHEDULED = "functions.aws.scheduled.handler"

_FINISH_GRACE = 1.0
"""Seconds to wait for an environment that has answered and not asked for more, before starting another."""


class AwsEmulator:
    """A Lambda function with a Function URL, while the ``async with`` block lasts.

    Without a ``command`` the function runs in our streaming runtime. ``env`` is laid over this environment.
    """

    def __init__(
        self,
        *,
        root: Path,
        handler: str = CHAT,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        options: Options | None = None,
    ) -> None:
        command = tuple(command or (sys.executable, "-m", "firsttoken.runtimes.aws"))
        self._options = options or Options()
        self._function = Function(handler, root.resolve(), command, dict(env or {}), self._options)
        self._environments: set[Environment] = set()
        self._idle: list[Environment] = []
        self._waiting: list[asyncio.Future[Environment | None]] = []
        self._stopping: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._front = FunctionUrl(self._invoke, self._options.region)

    async def __aenter__(self) -> Self:
        """Listen; the first environment starts with the first invocation."""
        options = self._options
        try:
            handle = self._front.handle
            self._server = await start_server(handle, options.host, options.port, self._connections)
        except OSError as error:
            message = f"{options.host}:{options.port}: {error.strerror}; choose another with --port"
            raise ConfigError(message) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every environment."""
        await stop_server(self._server, self._connections)
        for environment in list(self._environments):
            self._retire(environment)
        if self._stopping:
            await asyncio.wait(self._stopping)

    @property
    def url(self) -> str:
        """The Function URL, without a slash at the end."""
        if self._server is None:
            raise RuntimeError("the emulator is not running")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def environments(self) -> list[int]:
        """The process ids of the living execution environments."""
        return sorted(environment.pid for environment in self._environments if environment.pid is not None)

    async def invoke(self, event: Mapping[str, Any] | bytes) -> Answer:
        """Invoke the function with one event; returns as soon as it begins to answer.

        Raises `FunctionError` when it fails before that, `ThrottledError` when no environment is free.
        """
        payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
        return await open_answer(await self._invoke(payload))

    async def _invoke(self, event: bytes) -> Invocation:
        environment = await self._environment()
        invocation = Invocation(event, self._options.timeout)
        environment.invoke(invocation)
        await invocation.begun
        return invocation

    async def _environment(self) -> Environment:
        """Return a warm environment, or start one."""
        while True:
            if self._idle:
                return self._idle.pop()
            finishing = sum(environment.finishing for environment in self._environments)
            if finishing > len(self._waiting) and (finished := await self._finished()):
                return finished
            if len(self._environments) >= self._options.max_environments:
                raise ThrottledError(f"all {self._options.max_environments} execution environments are busy")
            environment = Environment(self._function, self._on_idle, self._on_gone)
            self._environments.add(environment)
            try:
                await environment.start()
            except BaseException:
                self._retire(environment)
                raise
            if environment in self._idle:
                self._idle.remove(environment)
                return environment

    async def _finished(self) -> Environment | None:
        """Wait a moment for an environment that has answered already; None if it has something left to do."""
        waiting: asyncio.Future[Environment | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await asyncio.wait({waiting}, timeout=_FINISH_GRACE)
        except asyncio.CancelledError:
            if waiting.done() and (environment := waiting.result()):
                self._on_idle(environment)
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return waiting.result() if waiting.done() else None

    def _on_idle(self, environment: Environment) -> None:
        if self._waiting:
            self._waiting.pop(0).set_result(environment)
        elif not environment.gone:
            self._idle.append(environment)

    def _on_gone(self, environment: Environment) -> None:
        if environment in self._idle:
            self._idle.remove(environment)
        elif self._waiting:
            self._waiting.pop(0).set_result(None)
        self._retire(environment)

    def _retire(self, environment: Environment) -> None:
        if environment in self._environments:
            self._environments.discard(environment)
            task = asyncio.ensure_future(environment.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)


def function_for(event: Mapping[str, Any]) -> tuple[str, list[str] | None]:
    """Return handler and command of the function that an event is for; only chat runs in our own runtime."""
    if "Records" in event:
        handler = RECOVER
    elif "detail-type" in event:
        handler = SCHEDULED
    else:
        return CHAT, None
    return handler, _command(handler)


async def invoke(event: Mapping[str, Any], root: Path | None = None) -> AsyncIterator[bytes]:
    """Run one event through the function that it is for, and stream the body of the answer.

    A message is answered without a configured queue, too: with one in a file, that nobody empties.
    """
    handler, command = function_for(event)
    env = files() if handler == RECOVER else {}
    async with AwsEmulator(root=root or project(), handler=handler, command=command, env=env) as emulator:
        answer = await emulator.invoke(event)
        async for piece in answer.body:
            yield piece


def serve(host: str, port: int, root: Path | None = None) -> int:
    """Serve the chat function in the foreground until Ctrl-C or SIGTERM; return the exit status.

    With an ``sqs`` queue on this machine `recover` runs too, fed from it. One elsewhere is left to whatever
    answers it there.
    """
    queue = config.load().queue
    local = isinstance(queue, SqsQueue) and is_loopback(urlsplit(queue.endpoint or queue.url).hostname or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or Options().region
    options = Options(host=host, port=port, region=region)

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with AsyncExitStack() as stack:
            chat = AwsEmulator(root=root or project(), options=options)
            emulator = await stack.enter_async_context(chat)
            if local:
                recover = AwsEmulator(
                    root=root or project(),
                    handler=RECOVER,
                    command=_command(RECOVER),
                    options=Options(region=region, name="firsttoken-recover"),
                )
                await stack.enter_async_context(recover)
                await stack.enter_async_context(SqsPump(recover, cast("SqsQueue", queue)))
            sys.stderr.write(
                f"firsttoken serves {emulator.url}/v1 as an AWS Lambda function behind a Function URL"
                f"{', and answers its queue' if local else ''}\n"
            )
            sys.stderr.flush()
            await stopped.wait()

    asyncio.run(until_stopped())
    return 0


def _command(handler: str) -> list[str]:
    """Return what runs a function in AWS's own runtime client."""
    return [sys.executable, "-m", "awslambdaric", handler]
