"""One Lambda execution environment on this machine: a process, its Runtime API, one invocation at a time.

The Runtime API is the documented one, so AWS's own runtime client (awslambdaric) runs against it unmodified.
Unlike AWS's Runtime Interface Emulator it hands a streamed answer on piece by piece.
"""

from __future__ import annotations

import asyncio
import binascii
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from firsttoken.emulators.http11 import BrokenRequestError, Request, response, start_server, stop_server
from firsttoken.errors import FirstTokenError

PAYLOAD_LIMIT = 6 * 1024 * 1024
"""Bytes of a request, and of an answer that is not streamed."""
HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"

_ACCEPTED = response(202, b'{"status":"OK"}\n')
_STOP_GRACE = 2.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_QUEUED_PIECES = 64


class FunctionError(FirstTokenError):
    """The function failed: it raised, crashed, did not load or ran out of time."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind


class Options(Struct, frozen=True, kw_only=True):
    """What one would configure in AWS besides the code."""

    max_environments: int = 100
    """Reserved concurrency: one more invocation at the same time is answered by 429."""
    timeout: float = 300.0
    """Seconds for one invocation, and for the start of an environment."""
    memory_mb: int = 1024
    region: str = "us-east-1"
    name: str = "firsttoken-chat"
    host: str = "127.0.0.1"
    port: int = 0
    """Of the Function URL; 0 takes a free one."""
    log: int = 2
    """File descriptor that takes what the function writes to stdout and stderr."""


class Function(Struct, frozen=True):
    """The code that every environment runs, and how."""

    handler: str
    root: Path
    command: Sequence[str]
    env: Mapping[str, str]
    options: Options


class Invocation:
    """One event on its way through an environment, and its answer as it comes."""

    def __init__(self, event: bytes, timeout: float) -> None:
        self.id = str(uuid.uuid4())
        self.event = event
        self.deadline_ms = int((time.time() + timeout) * 1000)
        self.streaming = False
        self.content_type = ""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the function begins to answer; fails with `FunctionError` when it fails before that."""
        self.ended = False
        self._pieces: asyncio.Queue[bytes | FunctionError | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_QUEUED_PIECES)

    async def payload(self) -> AsyncIterator[bytes]:
        """Yield the answer's bytes as they come.

        Raises `FunctionError` when the function fails on the way.
        """
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, FunctionError):
                raise piece
            self._room.release()
            yield piece

    async def put(self, piece: bytes) -> None:
        """Take a piece of the answer; waits while the caller is slower than the function."""
        await self._room.acquire()
        if not self.ended:
            self._pieces.put_nowait(piece)

    def end(self, error: FunctionError | None = None) -> None:
        """End the answer; only the first end counts."""
        if self.ended:
            return
        self.ended = True
        if not self.begun.done():
            if error is None:
                self.begun.set_result(None)
            else:
                self.begun.set_exception(error)
                self.begun.exception()  # the caller may have left: that is no defect to warn about
                return
        self._pieces.put_nowait(error)


class Environment:
    """A process that asks for invocations; ``on_idle`` and ``on_gone`` tell its owner when it has none."""

    def __init__(
        self,
        function: Function,
        on_idle: Callable[[Environment], None],
        on_gone: Callable[[Environment], None],
    ) -> None:
        self._function = function
        self._on_idle = on_idle
        self._on_gone = on_gone
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Invocation] | None = None
        self._invocation: Invocation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: FunctionError | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the runtime asked for its first invocation; fails with `FunctionError`."""
        self.gone = False
        self._reaped = False

    @property
    def finishing(self) -> bool:
        """Whether the answer is complete and the runtime has not asked for the next invocation yet."""
        return self._invocation is not None and self._invocation.ended and not self.gone

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and wait until it can take an invocation.

        Raises `FunctionError` when it cannot.
        """
        self._server = await start_server(self._request, "127.0.0.1", 0, self._connections)
        port = self._server.sockets[0].getsockname()[1]
        function = self._function
        self._process = await asyncio.create_subprocess_exec(
            *function.command,
            cwd=function.root,
            env=lambda_environ(function, f"127.0.0.1:{port}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=function.options.log,
            stderr=function.options.log,
            start_new_session=True,  # Ctrl-C stops the emulator, and the emulator stops this
        )
        self._watch = asyncio.ensure_future(self._exited(self._process))
        try:
            await asyncio.wait_for(asyncio.shield(self.ready), function.options.timeout)
        except TimeoutError:
            message = f"not ready within {function.options.timeout:g} seconds"
            raise FunctionError("Sandbox.Timedout", message) from None

    def invoke(self, invocation: Invocation) -> None:
        """Hand over an invocation; the environment must be idle."""
        if self._next is None:
            raise RuntimeError("the environment is not idle")
        if self.gone:
            invocation.end(FunctionError("Runtime.ExitError", "the environment ended while it was idle"))
            return
        self._invocation = invocation
        self._next.set_result(invocation)
        self._next = None
        delay = invocation.deadline_ms / 1000 - time.time()
        self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._timed_out, invocation)

    async def stop(self) -> None:
        """Stop the process and everything that it started."""
        self._leave()
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_GRACE)
        self.kill()
        if self._watch is not None:
            await asyncio.wait({self._watch})
        await stop_server(self._server, self._connections)

    def kill(self) -> None:
        """Kill the process and everything that it started, at once."""
        self._leave()
        if self._process is not None and not self._reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.gone:
            self.gone = True
            self._on_gone(self)

    def _timed_out(self, invocation: Invocation) -> None:
        if not invocation.ended:
            self._failure = FunctionError(
                "Sandbox.Timedout", f"Task timed out after {self._function.options.timeout:.2f} seconds"
            )
        self.kill()

    async def _exited(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self.kill()  # what it started must not outlive it
        self._reaped = True  # from here on the number may be somebody else's
        error = self._failure or FunctionError(
            "Runtime.ExitError", f"the runtime ended with exit status {status}"
        )
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()
        if self._invocation is not None:
            self._invocation.end(error)

    async def _request(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request of the Runtime API."""
        match request.target.removeprefix("/2018-06-01/runtime/").split("/"):
            case ["invocation", "next"]:
                writer.write(await self._next_invocation())
            case ["invocation", invocation_id, "response" | "error" as kind]:
                invocation = self._invocation
                if invocation is None or invocation.id != invocation_id or invocation.ended:
                    writer.write(_refusal(400, "InvalidRequestID", "unknown or answered invocation"))
                elif kind == "error":
                    invocation.end(_error(await request.read(PAYLOAD_LIMIT)))
                    writer.write(_ACCEPTED)
                else:
                    writer.write(await _take_answer(request, invocation))
            case ["init" | "restore", "error"]:
                self._failure = _error(await request.read(PAYLOAD_LIMIT))
                writer.write(_ACCEPTED)
            case ["restore", "next"]:
                writer.write(response(200, b""))
            case _:
                writer.write(_refusal(404, "NotFound", request.target))
        await writer.drain()
        return True

    async def _next_invocation(self) -> bytes:
        self._invocation = None
        if self._timer is not None:
            self._timer.cancel()
        self._next = waiting = asyncio.get_running_loop().create_future()
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_idle(self)
        invocation: Invocation = await waiting
        function = self._function
        return response(
            200,
            invocation.event,
            Lambda_Runtime_Aws_Request_Id=invocation.id,
            Lambda_Runtime_Deadline_Ms=str(invocation.deadline_ms),
            Lambda_Runtime_Invoked_Function_Arn=function_arn(function.options.region, function.options.name),
            Lambda_Runtime_Trace_Id=f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        )


async def _take_answer(request: Request, invocation: Invocation) -> bytes:
    """Pass an answer on as it arrives; return the reply to the runtime."""
    mode = request.headers.get("lambda-runtime-function-response-mode", "")
    if mode not in {"", "streaming"}:
        return _refusal(400, "Runtime.InvalidResponseModeHeader", f"unknown mode {mode!r}")
    invocation.streaming = bool(mode)
    invocation.content_type = request.headers.get("content-type", "application/octet-stream")
    try:
        if invocation.streaming:
            invocation.begun.set_result(None)
            async for piece in request.body():
                await invocation.put(piece)
            invocation.end(_trailer_error(request.trailers))
            return _ACCEPTED
        payload = await request.read(PAYLOAD_LIMIT)
    except BrokenRequestError:
        invocation.end(FunctionError("Runtime.TruncatedResponse", "the answer broke off"))
        raise
    if payload is None:
        invocation.end(FunctionError("Function.ResponseSizeTooLarge", f"more than {PAYLOAD_LIMIT} bytes"))
        return _refusal(
            413, "RequestEntityTooLarge", f"exceeded maximum allowed payload size ({PAYLOAD_LIMIT} bytes)"
        )
    invocation.begun.set_result(None)
    await invocation.put(payload)
    invocation.end()
    return _ACCEPTED


def function_arn(region: str, name: str) -> str:
    """Return the name that AWS would give to the function, in an account that does not exist."""
    return f"arn:aws:lambda:{region}:123456789012:function:{name}"


def lambda_environ(function: Function, address: str) -> dict[str, str]:
    """Return the environment variables of a function's process: those of this process, Lambda's, its own."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    paths = [
        str(function.root),
        str(function.root / "shared"),
        str(_PACKAGE_PARENT),
        os.environ.get("PYTHONPATH", ""),
    ]
    return {
        **os.environ,
        "AWS_DEFAULT_REGION": function.options.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.options.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": function.options.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.options.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{uuid.uuid4().hex}",
        "AWS_LAMBDA_RUNTIME_API": address,
        "AWS_REGION": function.options.region,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(function.root),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TZ": ":UTC",
        "_HANDLER": function.handler,
        **function.env,
    }


def _error(body: bytes | None) -> FunctionError:
    try:
        parsed = msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        kind, message = (msgspec.json.decode(parsed.get(key, b'""')) for key in ("errorType", "errorMessage"))
    except msgspec.DecodeError:
        return FunctionError("Runtime.Unknown", repr((body or b"")[:200]))
    return FunctionError(str(kind or "Runtime.Unknown"), str(message or ""))


def _trailer_error(trailers: Mapping[str, str]) -> FunctionError | None:
    kind = trailers.get("lambda-runtime-function-error-type")
    if kind is None:
        return None
    try:
        return _error(binascii.a2b_base64(trailers.get("lambda-runtime-function-error-body", "")))
    except binascii.Error:
        return FunctionError(kind, "")


def _refusal(status: int, kind: str, message: str) -> bytes:
    return response(status, msgspec.json.encode({"errorType": kind, "errorMessage": message}))
