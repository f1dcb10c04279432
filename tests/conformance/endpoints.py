"""The same endpoint in every runtime: what `test_conformance` runs its behaviours against.

Each runtime is started once, with one configuration: a route to a simulated provider that runs as a process
of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from firsttoken.auth import digest
from firsttoken.emulators.aws import AwsEmulator
from firsttoken.emulators.aws_environment import HTTP_INTEGRATION, Invocation, Options
from firsttoken.emulators.aws_url import FunctionUrl
from firsttoken.emulators.azure import AzureEmulator
from firsttoken.emulators.gcp import GcpEmulator
from firsttoken.emulators.http11 import start_server, stop_server
from firsttoken.emulators.rie import RieEmulator

if TYPE_CHECKING:
    from recovery import Waiting

ROOT = Path(__file__).resolve().parents[2]
KEY = "ft-conformance"
CHAT = "functions.aws.chat.app"
_READY_SECONDS = 20.0


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint and the simulated provider behind it."""

    runtime: str
    url: str
    upstream: str


class Start(Protocol):
    """Starts one runtime and yields its URL."""

    def __call__(self, env: dict[str, str]) -> AbstractAsyncContextManager[str]: ...


def configuration(folder: Path, upstream: str, waiting: Waiting) -> dict[str, str]:
    """Write the configuration of the endpoint under test and return the environment that names it."""
    file = folder / "firsttoken.toml"
    file.write_text(
        f"""
        [server]
        max_body_bytes = 100000
        heartbeat_seconds = 0.2
        log = false
        [auth]
        mode = "on"
        keys = {{ acme = ["{digest(KEY)}"] }}
        [providers.upstream]
        kind = "openai"
        base_url = "{upstream}/v1"
        forward_headers = ["x-firsttoken-simulate"]
        [providers.steady]
        kind = "openai"
        base_url = "{upstream}/v1"
        [providers.dead]
        kind = "openai"
        base_url = "http://127.0.0.1:9/v1"
        [providers.frail]
        kind = "openai"
        base_url = "{upstream}/regions/frail/v1"
        [models.chat]
        target = "upstream/simulated"
        [models.later]
        target = "frail/simulated"
        [models.two]
        targets = ["dead/simulated", "upstream/simulated", "steady/simulated"]
        # Faults come from a header here, call by call: none of them says anything of the target.
        [breaker]
        enabled = false
        [throttle]
        enabled = false
        [store]
        kind = "sqlite"
        path = "{folder / "store.sqlite"}"
        timeout = 10.0
        [jobs]
        retry_after = 0.2
        max_delay = 1.0
        max_attempts = 100
        [queue]
        {waiting.section}
        """,
        "utf-8",
    )
    path = f"{ROOT / 'shared'}{os.pathsep}{ROOT}"
    return {"FIRSTTOKEN_CONFIG": str(file), "PYTHONPATH": path, **waiting.env}


@asynccontextmanager
async def child(*arguments: str, env: dict[str, str], ready: str) -> AsyncIterator[str]:
    """Run ``python ARGUMENTS`` and yield the line of its output that holds ``ready``; stop it at the end."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    assert process.stdout is not None
    seen = ""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while ready not in (line := (await process.stdout.readline()).decode()):
                seen += line
                assert line, f"{arguments} ended:\n{seen}"
        drain = asyncio.create_task(process.stdout.read())
        yield line
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await drain


def _address(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://")).removesuffix("/v1")


@asynccontextmanager
async def simulator() -> AsyncIterator[str]:
    """Run the simulated provider."""
    command = [
        sys.executable,
        "-m",
        "firsttoken.cli",
        "sim",
        "--port",
        "0",
        "--profile",
        "ttft_ms=5,itl_ms=1,tokens=12",
        "--region",
        "frail=",
    ]
    async with child(*command, env={"PYTHONPATH": str(ROOT / "shared")}, ready="http://") as line:
        yield _address(line)


@asynccontextmanager
async def local(env: dict[str, str]) -> AsyncIterator[str]:
    """Our own server."""
    command = [sys.executable, "-m", "firsttoken.cli", "serve", "--port", "0"]
    async with child(*command, env=env, ready="http://") as line:
        yield _address(line)


@asynccontextmanager
async def aws(env: dict[str, str]) -> AsyncIterator[str]:
    """Our streaming runtime behind our Function URL emulator."""
    async with AwsEmulator(root=ROOT, env=env, options=Options(max_environments=120)) as emulator:
        yield emulator.url


@asynccontextmanager
async def web_adapter(env: dict[str, str]) -> AsyncIterator[str]:
    """The command that AWS's Lambda Web Adapter starts; the adapter itself cannot be had on this machine."""
    port = _free_port()
    adapter = {
        "LAMBDA_TASK_ROOT": str(ROOT),
        "PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    async with child(str(ROOT / "functions/aws/run.sh"), env={**env, **adapter}, ready="Uvicorn running"):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def rie(env: dict[str, str]) -> AsyncIterator[str]:
    """Our streaming runtime under AWS's own emulator, behind the same Function URL front."""
    async with RieEmulator(root=ROOT, handler=CHAT, env=env) as emulator:

        async def invoke(event: bytes) -> Invocation:
            invocation = Invocation(event, 60.0)
            answer = await emulator.invoke(event)
            invocation.streaming, invocation.content_type = True, HTTP_INTEGRATION
            await invocation.put(answer)
            invocation.end()
            return invocation

        connections: set[asyncio.Task[None]] = set()
        server = await start_server(FunctionUrl(invoke, "eu-central-1").handle, "127.0.0.1", 0, connections)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            await stop_server(server, connections)


@asynccontextmanager
async def gcp(env: dict[str, str]) -> AsyncIterator[str]:
    """Google's functions-framework."""
    async with GcpEmulator(root=ROOT / "functions/gcp", env=env) as emulator:
        yield emulator.url


@asynccontextmanager
async def azure(env: dict[str, str]) -> AsyncIterator[str]:
    """Microsoft's Python runtime."""
    async with AzureEmulator(root=ROOT / "functions/azure", env=env) as emulator:
        yield emulator.url


RUNTIMES: dict[str, Start] = {
    "local": local,
    "aws": aws,
    "aws-web-adapter": web_adapter,
    "aws-rie": rie,
    "gcp": gcp,
    "azure": azure,
}


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def state(endpoint: Endpoint) -> dict[str, Any]:
    """Return what the simulated provider counted."""
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{endpoint.upstream}/simulator/state") as answer,
    ):
        return dict(await answer.json())


async def set_profile(endpoint: Endpoint, spec: str) -> None:
    """Have the model `later` fail as ``spec`` says, or work again where that is empty."""
    import aiohttp

    url = f"{endpoint.upstream}/regions/frail/simulator/profile"
    async with aiohttp.ClientSession() as session, session.put(url, data=spec) as answer:
        assert answer.status < 300, await answer.text()
