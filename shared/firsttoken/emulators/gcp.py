"""Google Cloud Run functions on this machine: the real functions-framework, started through its own command.

Real: functions-framework, Starlette, gunicorn with uvicorn's worker. Not covered: Cloud Run's front end (its
limits of time and size, authentication of callers). Pub/Sub is simulated (`firsttoken.emulators.pubsub`):
`serve` starts it where ``queue.endpoint`` is an address of this machine, and has it push to ``recover``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from firsttoken import config
from firsttoken.emulators import project
from firsttoken.emulators.child import Emulator, read_event
from firsttoken.emulators.pubsub import PubsubSimulator, create
from firsttoken.emulators.pubsub_subscription import Faults
from firsttoken.providers.http import Response
from firsttoken.runtimes.local import is_loopback
from firsttoken.settings import PubsubQueue

ACK_DEADLINE = 600
"""Seconds that a push may take: the most that Pub/Sub allows."""
ATTEMPTS = 100
"""The most that Pub/Sub allows: `recover` buries by itself what can never be answered, with its reason, so a
push fails only while the function, its store or its queue cannot be had."""
BACKOFF = {"minimumBackoff": "1s", "maximumBackoff": "60s"}


class GcpEmulator(Emulator):
    """One function (``target``) of ``main.py`` in ``root``: one process takes all calls, as on Cloud Run."""

    # The framework answers this path itself, so the function is not called before somebody calls it.
    ready_path = "/robots.txt"

    def __init__(
        self,
        *,
        root: Path,
        target: str = "chat",
        env: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(root=root, env=env, host=host, port=port)
        self.target = target

    def command(self) -> list[str]:
        """Return the command line of functions-framework, with this interpreter."""
        source = str(self.root / "main.py")
        options = ["--source", source, "--target", self.target, "--host", self.host, "--port", str(self.port)]
        return [sys.executable, "-m", "functions_framework", *options]

    def invoke(self, event: Mapping[str, Any]) -> AbstractAsyncContextManager[Response]:
        """Send an event of ``events/gcp``: ``{"target", "method", "path", "headers", "body"}``."""
        read_event(event, "target", "method", "path")
        return self.request(event["method"], event["path"], event.get("headers"), event.get("body"))


async def invoke(event: Mapping[str, Any], root: Path | None = None) -> AsyncIterator[bytes]:
    """Run one event through the function that it is for, and stream the body of the answer."""
    read_event(event, "target", "method", "path")
    async with (
        GcpEmulator(root=root or project() / "functions" / "gcp", target=event["target"]) as emulator,
        emulator.invoke(event) as response,
    ):
        async for piece in response.chunks():
            yield piece


@contextmanager
def pushing(
    queue: PubsubQueue, endpoint: str, *, faults: Faults | None = None, backoff: Mapping[str, str] = BACKOFF
) -> Iterator[PubsubSimulator]:
    """Run a Pub/Sub at ``queue.endpoint`` that pushes what is sent to ``queue`` to the URL ``endpoint``.

    With a dead-letter topic, a message whose push fails `ATTEMPTS` times becomes a dead letter. Raises
    ConfigError where the endpoint's port is taken.
    """
    address = urlsplit(queue.endpoint)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    push: dict[str, Any] = {
        "topic": queue.topic,
        "pushConfig": {"pushEndpoint": endpoint},
        "ackDeadlineSeconds": ACK_DEADLINE,
        "retryPolicy": backoff,
    }
    resources: dict[str, dict[str, Any]] = {queue.topic: {}}
    if queue.dead_topic:
        resources[queue.dead_topic] = {}
        policy = {"deadLetterTopic": queue.dead_topic, "maxDeliveryAttempts": ATTEMPTS}
        push["deadLetterPolicy"] = policy
    if queue.dead_topic and queue.dead_subscription:
        resources[queue.dead_subscription] = {"topic": queue.dead_topic, "ackDeadlineSeconds": 60}
    resources[queue.topic.replace("/topics/", "/subscriptions/") + "-push"] = push
    with PubsubSimulator(host=host, port=port, faults=faults).in_thread() as simulator:
        asyncio.run(create(simulator.url, resources))
        yield simulator


def serve(host: str, port: int, root: Path | None = None) -> int:
    """Serve the chat function in the foreground until interrupted; return the exit status.

    With a ``pubsub`` queue on this machine, ``recover`` is served too, and the queue itself.
    """
    root = root or project() / "functions" / "gcp"
    queue = config.load().queue
    with ExitStack() as stack:
        if isinstance(queue, PubsubQueue) and _is_local(queue.endpoint):
            recover = GcpEmulator(root=root, target="recover")
            stack.callback(recover.stop)
            recover.start(foreground=True)
            stack.enter_context(pushing(queue, recover.url))
        return GcpEmulator(root=root, host=host, port=port).serve("Google's functions-framework")


def _is_local(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    return address.scheme == "http" and is_loopback(address.hostname or "")
