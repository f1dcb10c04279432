"""What answers deferred calls beside each runtime: its cloud's queue, and the function that it triggers.

All processes of a runtime share one store in a file.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from firsttoken.emulators.aws import RECOVER, AwsEmulator
from firsttoken.emulators.aws_environment import Options
from firsttoken.emulators.aws_queue import SqsPump
from firsttoken.emulators.gcp import GcpEmulator, pushing
from firsttoken.settings import PubsubQueue, SqsQueue
from tests.queues import moto_server
from tests.stores.cloud import tables_connection

ROOT = Path(__file__).resolve().parents[2]
_PROJECT = "projects/conformance"


@dataclass(frozen=True)
class Waiting:
    """A queue: its section of the configuration, and what its clients need in the environment."""

    section: str
    env: dict[str, str] = field(default_factory=dict)


def files(folder: Path) -> Waiting:
    """A file, whose messages the server itself answers."""
    return Waiting(f'kind = "sqlite"\npath = "{folder / "queue.sqlite"}"')


def sqs(_: Path) -> Waiting:
    """SQS, by moto."""
    urls = moto_server.new_queues(50)
    return Waiting(f'kind = "sqs"\nurl = "{urls.queue}"\ndead_url = "{urls.dead}"', moto_server.AWS)


def pubsub(_: Path) -> Waiting:
    """Pub/Sub, by the local simulator."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    names = f'topic = "{_PROJECT}/topics/jobs"\ndead_topic = "{_PROJECT}/topics/dead"'
    dead = f'dead_subscription = "{_PROJECT}/subscriptions/dead"'
    return Waiting(f'kind = "pubsub"\n{names}\n{dead}\nendpoint = "http://127.0.0.1:{port}"\nhold = 0.5')


def storage_queue(_: Path) -> Waiting:
    """An Azure Storage queue, by Azurite."""
    name, connection = f"jobs-{uuid.uuid4().hex}", tables_connection()
    section = f'kind = "storage_queue"\nname = "{name}"\nconnection = "env:AzureWebJobsStorage"'
    return Waiting(section, {"AzureWebJobsStorage": connection})


QUEUES: dict[str, Callable[[Path], Waiting]] = {
    "local": files,
    "aws": sqs,
    "aws-web-adapter": sqs,
    "aws-rie": sqs,
    "gcp": pubsub,
    "azure": storage_queue,
}


@asynccontextmanager
async def nothing(_: dict[str, str], __: str) -> AsyncIterator[None]:
    """The runtime itself has the trigger."""
    yield


@asynccontextmanager
async def lambda_function(env: dict[str, str], section: str) -> AsyncIterator[None]:
    """The function `recover` in AWS's own runtime client, fed from the queue as Lambda does it."""
    url = next(line.split('"')[1] for line in section.splitlines() if line.startswith("url"))
    command = [sys.executable, "-m", "awslambdaric", RECOVER]
    with patch.dict(os.environ, moto_server.AWS):
        recover = AwsEmulator(
            root=ROOT, handler=RECOVER, command=command, env=env, options=Options(name="recover")
        )
        async with recover, SqsPump(recover, SqsQueue(url=url)):
            yield


@asynccontextmanager
async def cloud_run_function(env: dict[str, str], section: str) -> AsyncIterator[None]:
    """The function `recover` in functions-framework, pushed to by Pub/Sub."""
    values = dict(line.split(" = ") for line in section.splitlines())
    topic, dead, endpoint = (values[name].strip('"') for name in ("topic", "dead_topic", "endpoint"))
    subscription = values["dead_subscription"].strip('"')
    queue = PubsubQueue(topic=topic, dead_topic=dead, dead_subscription=subscription, endpoint=endpoint)
    async with GcpEmulator(root=ROOT / "functions/gcp", target="recover", env=env) as recover:
        stack = ExitStack()
        try:
            await asyncio.to_thread(stack.enter_context, pushing(queue, recover.url))
            yield
        finally:
            await asyncio.to_thread(stack.close)


WORKERS: dict[str, Callable[[dict[str, str], str], AbstractAsyncContextManager[None]]] = {
    "local": nothing,
    "aws": lambda_function,
    "aws-web-adapter": lambda_function,
    "aws-rie": lambda_function,
    "gcp": cloud_run_function,
    "azure": nothing,
}
