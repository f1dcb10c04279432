"""A local Pub/Sub: the REST API for topics, subscriptions, publishing, pulling and pushing, in memory.

As documented by Google: at-least-once delivery in any order (a seeded share of duplicates and delays), push
in every form of body, acknowledged by 200, 201, 202 and 204 within the ack deadline; exponential backoff by
the retry policy; ``deliveryAttempt`` and a dead-letter topic after 5 to 100 attempts; flow control of pushes
by slow start; limits of sizes and names.

Left out: gRPC, authentication (pushes carry no token), listing and updating, ordering keys (they are only
passed on), exactly-once delivery, filters, retention and expiry, snapshots, schemas, and the pauses of a
whole push subscription (each message has its own backoff).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from random import Random
from typing import Any
from urllib.parse import unquote

import msgspec

from firsttoken.emulators import pubsub_wire as wire
from firsttoken.emulators.http11 import Request, response, start_server, stop_server
from firsttoken.emulators.pubsub_push import Target, over_http, push
from firsttoken.emulators.pubsub_subscription import MAX_BACKLOG, Faults, Message, Rules, Subscription
from firsttoken.emulators.pubsub_wire import PubsubError
from firsttoken.errors import ConfigError, QueueError
from firsttoken.providers.google_api import GoogleApi
from firsttoken.providers.http import HttpClient

MAX_REQUEST_BYTES = 10_000_000
PULL_SECONDS = 20.0
"""What a pull waits for a first message, unless it wants its answer at once."""
START_SECONDS = 10.0
_PATH = re.compile(r"/v1/(projects/[^/]+/(?:topics|subscriptions)/[^/:]+)(?::(\w+))?")


class _Subscribed:
    """A subscription, how it was configured, and the task that pushes, if it pushes."""

    def __init__(self, config: wire.Config, state: Subscription) -> None:
        self.config = config
        self.state = state
        self.pusher: asyncio.Task[None] | None = None

    def start(self, client: HttpClient) -> None:
        config = self.config
        if endpoint := config.push_config.push_endpoint:
            counts = config.dead_letter_policy is not None
            target = Target(config.name, config.topic, endpoint, config.push_config.form, counts)
            pushing = push(self.state, target, over_http(client))
            self.pusher = asyncio.get_running_loop().create_task(pushing)

    async def stop(self) -> None:
        if self.pusher is not None:
            self.pusher.cancel()
            await asyncio.wait([self.pusher])


class PubsubSimulator:
    """The service on a port of this machine; 0 takes a free one.

    Memory: `MAX_BACKLOG` messages for each subscription; they are gone with the process.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None) -> None:
        self.host = host
        self.port = port
        self._faults = faults or Faults()
        self._ids = Random(self._faults.seed)  # noqa: S311 - names of messages
        self._topics: dict[str, set[str]] = {}
        self._subscriptions: dict[str, _Subscribed] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._client = HttpClient()
        self._methods: dict[tuple[str, str, str], Callable[[str, bytes], Awaitable[Any]]] = {
            ("PUT", "topics", ""): self._create_topic,
            ("GET", "topics", ""): self._get_topic,
            ("DELETE", "topics", ""): self._delete_topic,
            ("POST", "topics", "publish"): self._publish,
            ("PUT", "subscriptions", ""): self._create_subscription,
            ("GET", "subscriptions", ""): self._get_subscription,
            ("DELETE", "subscriptions", ""): self._delete_subscription,
            ("POST", "subscriptions", "pull"): self._pull,
            ("POST", "subscriptions", "acknowledge"): self._acknowledge,
            ("POST", "subscriptions", "modifyAckDeadline"): self._modify_deadline,
            ("POST", "subscriptions", "modifyPushConfig"): self._modify_push,
        }

    @property
    def url(self) -> str:
        """What ``queue.endpoint`` should be."""
        return f"http://{self.host}:{self.port}"

    def subscription(self, name: str) -> Subscription:
        """Return the state of a subscription, to look at. Raises PubsubError where there is none."""
        return self._found(name).state

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PubsubSimulator]:
        """Serve while the block runs. Raises ConfigError where the port is taken."""
        try:
            server = await start_server(self._answer, self.host, self.port, self._connections)
        except OSError as error:
            raise ConfigError(
                f"{self.host}:{self.port} is taken; expected a free port for Pub/Sub"
            ) from error
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for subscribed in self._subscriptions.values():
                await subscribed.stop()
            await stop_server(server, self._connections)
            await self._client.aclose()

    @contextmanager
    def in_thread(self) -> Iterator[PubsubSimulator]:
        """Serve in a thread of its own while the block runs; raises as `running`."""
        started, stopping = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []
        failures: list[ConfigError] = []

        async def main() -> None:
            try:
                async with self.running():
                    loops.append(asyncio.get_running_loop())
                    started.set()
                    await stopping.wait()
            except ConfigError as error:
                failures.append(error)
                started.set()

        thread = threading.Thread(target=lambda: asyncio.run(main()), name="pubsub", daemon=True)
        thread.start()
        started.wait(START_SECONDS)
        if failures:
            raise failures[0]
        try:
            yield self
        finally:
            loops[0].call_soon_threadsafe(stopping.set)
            thread.join(START_SECONDS)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        body = await request.read(MAX_REQUEST_BYTES)
        try:
            content = await self._call(request.method, request.target, body)
            answer = response(200, msgspec.json.encode(content))
        except PubsubError as error:
            said = {"code": error.code, "message": str(error), "status": error.status}
            answer = response(error.code, msgspec.json.encode({"error": said}))
        writer.write(answer)
        await writer.drain()
        return body is not None

    async def _call(self, method: str, target: str, body: bytes | None) -> Any:
        if body is None:
            raise wire.invalid(f"The request is larger than {MAX_REQUEST_BYTES} bytes.")
        path = _PATH.fullmatch(unquote(target.partition("?")[0]))
        name, verb = (path[1], path[2] or "") if path else ("", "")
        called = self._methods.get((method, name.split("/")[2] if name else "", verb))
        if called is None:
            raise PubsubError(404, "NOT_FOUND", f"No such method: {method} {target}")
        return await called(name, body or b"{}")

    async def _create_topic(self, name: str, _body: bytes) -> Mapping[str, str]:
        wire.check_name(name, self._topics)
        self._topics[name] = set()
        return {"name": name}

    async def _get_topic(self, name: str, _body: bytes) -> Mapping[str, str]:
        self._topic(name)
        return {"name": name}

    async def _delete_topic(self, name: str, _body: bytes) -> Mapping[str, str]:
        for subscription in self._topic(name):
            self._subscriptions[subscription].config.topic = "_deleted-topic_"
        del self._topics[name]
        return {}

    async def _publish(self, name: str, body: bytes) -> Mapping[str, list[str]]:
        messages = wire.decode(body, wire.Publish).messages
        wire.check_messages(messages)
        return {"messageIds": self._deliver(name, messages)}

    def _deliver(self, name: str, messages: list[wire.Published]) -> list[str]:
        subscribed = [self._subscriptions[item].state for item in sorted(self._topic(name))]
        if any(item.backlog + len(messages) > MAX_BACKLOG for item in subscribed):
            raise PubsubError(429, "RESOURCE_EXHAUSTED", f"A subscription holds {MAX_BACKLOG} messages.")
        ids = [str(self._ids.randrange(10**16, 10**17)) for _ in messages]
        for number, given in zip(ids, messages, strict=True):
            message = Message(number, given.data, given.attributes, given.ordering_key, time.time())
            for item in subscribed:
                item.add(message)
        return ids

    async def _create_subscription(self, name: str, body: bytes) -> wire.Config:
        config = wire.decode(body, wire.Config)
        config.name = name
        wire.check_name(name, self._subscriptions)
        topic = self._topic(config.topic)
        rules = self._rules(config)
        state = Subscription(rules, self._faults, partial(self._bury, config))
        self._subscriptions[name] = _Subscribed(config, state)
        topic.add(name)
        self._subscriptions[name].start(self._client)
        return config

    def _rules(self, config: wire.Config) -> Rules:
        rules = wire.rules_of(config)
        if config.dead_letter_policy:
            self._topic(config.dead_letter_policy.dead_letter_topic)
        return rules

    def _bury(self, config: wire.Config, message: Message, attempts: int) -> bool:
        topic = config.dead_letter_policy.dead_letter_topic if config.dead_letter_policy else ""
        try:
            self._deliver(topic, [wire.buried(config, message, attempts)])
        except PubsubError:
            return False
        return True

    async def _get_subscription(self, name: str, _body: bytes) -> wire.Config:
        return self._found(name).config

    async def _delete_subscription(self, name: str, _body: bytes) -> Mapping[str, str]:
        subscribed = self._found(name)
        del self._subscriptions[name]
        self._topics.get(subscribed.config.topic, set()).discard(name)
        await subscribed.stop()
        return {}

    async def _pull(self, name: str, body: bytes) -> Mapping[str, Any]:
        asked = wire.decode(body, wire.Pull)
        subscribed = self._found(name)
        if asked.max_messages <= 0:
            raise wire.invalid("maxMessages must be positive.")
        if subscribed.config.push_config.push_endpoint:
            raise PubsubError(400, "FAILED_PRECONDITION", "This subscription pushes its messages.")
        state, loop = subscribed.state, asyncio.get_running_loop()
        until = loop.time() + (0 if asked.return_immediately else PULL_SECONDS)
        while not (leases := state.take(min(asked.max_messages, wire.MAX_MESSAGES))):
            if loop.time() >= until:
                return {}
            await state.wait(until)
        return {"receivedMessages": [wire.pulled(subscribed.config, lease) for lease in leases]}

    async def _acknowledge(self, name: str, body: bytes) -> Mapping[str, str]:
        state = self._found(name).state
        for ack_id in wire.decode(body, wire.Acks).ack_ids:
            state.acknowledge(ack_id)
        return {}

    async def _modify_deadline(self, name: str, body: bytes) -> Mapping[str, str]:
        asked = wire.decode(body, wire.Deadlines)
        state = self._found(name).state
        if not 0 <= asked.ack_deadline_seconds <= 600:
            raise wire.invalid("ackDeadlineSeconds must be from 0 to 600.")
        for ack_id in asked.ack_ids:
            state.extend(ack_id, asked.ack_deadline_seconds)
        return {}

    async def _modify_push(self, name: str, body: bytes) -> Mapping[str, str]:
        subscribed = self._found(name)
        push_config = wire.decode(body, wire.ModifyPush).push_config
        changed = msgspec.structs.replace(subscribed.config, push_config=push_config)
        subscribed.state.rules = self._rules(changed)
        await subscribed.stop()
        subscribed.config.push_config = push_config
        subscribed.start(self._client)
        return {}

    def _topic(self, name: str) -> set[str]:
        if name not in self._topics:
            raise wire.missing(name)
        return self._topics[name]

    def _found(self, name: str) -> _Subscribed:
        if name not in self._subscriptions:
            raise wire.missing(name)
        return self._subscriptions[name]


async def create(url: str, resources: Mapping[str, Mapping[str, Any]]) -> None:
    """Create topics and subscriptions, by name, on a local Pub/Sub.

    What is there already stays as it is. Raises QueueError where something is refused.
    """
    client = HttpClient()
    api = GoogleApi(client, url, setting="queue.endpoint")
    try:
        for name, settings in resources.items():
            answer = await api.call("PUT", f"/v1/{name}", msgspec.json.encode(settings))
            if answer.status not in (200, 409):
                raise QueueError(f"Pub/Sub does not create {name}: {answer}")
    finally:
        await client.aclose()
