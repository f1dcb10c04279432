"""The local Pub/Sub over HTTP: its methods, what it refuses, and the bodies of its pushes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from firsttoken.emulators.http11 import Request, response, start_server, stop_server
from firsttoken.emulators.pubsub import PubsubSimulator
from firsttoken.emulators.pubsub_wire import FORM
from firsttoken.errors import ConfigError
from firsttoken.providers.http import HttpClient
from firsttoken.runtimes.gcp import read_message

TOPIC, DEAD = "projects/p/topics/jobs", "projects/p/topics/jobs-dead"
SUB, DEAD_SUB = "projects/p/subscriptions/jobs", "projects/p/subscriptions/jobs-dead"
LIMIT_SECONDS = 20.0
FAST = {"minimumBackoff": "0.01s", "maximumBackoff": "0.05s"}


class Caller:
    """A client of the simulator."""

    def __init__(self, simulator: PubsubSimulator, client: HttpClient) -> None:
        self.simulator = simulator
        self._client = client

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self._client.request(method, f"{self.simulator.url}/v1/{path}", body=content)
        return answer.status, json.loads(await answer.read(1 << 24))

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, content = await self(method, path, body)
        assert status == 200, content
        return content

    async def publish(self, data: bytes = b"hello", **attributes: str) -> str:
        message = {"data": base64.b64encode(data).decode(), "attributes": attributes}
        return (await self.good("POST", f"{TOPIC}:publish", {"messages": [message]}))["messageIds"][0]

    async def pull(self, name: str = SUB) -> list[Any]:
        asked = {"maxMessages": 10, "returnImmediately": True}
        return (await self.good("POST", f"{name}:pull", asked)).get("receivedMessages", [])


class Endpoint:
    """What is pushed to; answers `statuses` one after the other, then 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.pushes: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.url = ""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        self.pushes.put_nowait((request.headers, await request.read(1 << 24) or b""))
        writer.write(response(self.statuses.pop(0) if self.statuses else 204, b""))
        await writer.drain()
        return True


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Caller, Endpoint]]:
    connections: set[asyncio.Task[None]] = set()
    client, endpoint = HttpClient(), Endpoint()
    server = await start_server(endpoint.answer, "127.0.0.1", 0, connections)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with asyncio.timeout(LIMIT_SECONDS), PubsubSimulator(**options).running() as simulator:
            call = Caller(simulator, client)
            await call.good("PUT", TOPIC)
            await call.good("PUT", DEAD)
            yield call, endpoint
    finally:
        await client.aclose()
        await stop_server(server, connections)


def with_server(test: Callable[[Caller, Endpoint], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        async with served(**options) as (call, endpoint):
            await test(call, endpoint)

    asyncio.run(main())


def test_publish_pull_acknowledge() -> None:
    """A pulled message carries data, attributes, id and time; acknowledged, it is gone."""

    async def test(call: Caller, _: Endpoint) -> None:
        await call.good("PUT", SUB, {"topic": TOPIC})
        number = await call.publish(b"hello", tenant="acme")
        (received,) = await call.pull()
        message = received["message"]
        assert (message["messageId"], message["data"]) == (number, "aGVsbG8=")
        assert message["attributes"] == {"tenant": "acme"}
        assert message["publishTime"].endswith("Z")
        assert "deliveryAttempt" not in received
        assert await call.pull() == []
        for _ in range(2):
            await call.good("POST", f"{SUB}:acknowledge", {"ackIds": [received["ackId"]]})
        assert call.simulator.subscription(SUB).backlog == 0

    with_server(test)


def test_a_message_that_is_given_back_comes_again() -> None:
    """A deadline of 0 gives it back; with a dead-letter policy deliveries are counted."""

    async def test(call: Caller, _: Endpoint) -> None:
        await call.good("PUT", SUB, {"topic": TOPIC, "deadLetterPolicy": {"deadLetterTopic": DEAD}})
        await call.publish()
        for attempt in (1, 2):
            (received,) = await call.pull()
            assert received["deliveryAttempt"] == attempt
            asked = {"ackIds": [received["ackId"]], "ackDeadlineSeconds": 0}
            await call.good("POST", f"{SUB}:modifyAckDeadline", asked)

    with_server(test)


def test_a_pull_waits_for_a_message() -> None:
    """Who does not ask for an answer at once gets the next message when it comes."""

    async def test(call: Caller, _: Endpoint) -> None:
        await call.good("PUT", SUB, {"topic": TOPIC})
        waiting = asyncio.create_task(call.good("POST", f"{SUB}:pull", {"maxMessages": 1}))
        await call.publish(b"late")
        assert (await waiting)["receivedMessages"][0]["message"]["data"] == base64.b64encode(b"late").decode()

    with_server(test)


CONFIGS = {
    "wrapped": {},
    "unwrapped": {"noWrapper": {}},
    "unwrapped-metadata": {"noWrapper": {"writeMetadata": True}},
    "cloudevent-binary": {"attributes": {FORM: "cloudevent-binary"}},
    "cloudevent-structured": {"attributes": {FORM: "cloudevent-structured"}},
}


@pytest.mark.parametrize("form", CONFIGS)
def test_every_form_of_push(form: str) -> None:
    """The function's own reader takes each form that tells the message's id."""

    async def test(call: Caller, endpoint: Endpoint) -> None:
        policy = {"deadLetterTopic": DEAD}
        config = {"pushEndpoint": endpoint.url, **CONFIGS[form]}
        await call.good("PUT", SUB, {"topic": TOPIC, "pushConfig": config, "deadLetterPolicy": policy})
        number = await call.publish(b'{"id":"job_1"}', tenant="acme", **{"not a header": "x"})
        headers, body = await endpoint.pushes.get()
        if form == "unwrapped":
            assert body == b'{"id":"job_1"}'
            assert not [name for name in headers if name.startswith("x-goog-pubsub-")]
            return
        message = read_message(headers, body)
        assert (message.data, message.id, message.subscription) == (b'{"id":"job_1"}', number, SUB)
        if form == "unwrapped-metadata":
            assert headers["tenant"] == "acme"
        else:
            assert (message.attempt, message.attributes["tenant"]) == (1, "acme")
        if form.startswith("cloudevent"):
            assert message.source == f"//pubsub.googleapis.com/{TOPIC}"

    with_server(test)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_acknowledges(status: int) -> None:
    """These statuses end a message's deliveries."""

    async def test(call: Caller, endpoint: Endpoint) -> None:
        endpoint.statuses = [status]
        await call.good("PUT", SUB, {"topic": TOPIC, "pushConfig": {"pushEndpoint": endpoint.url}})
        await call.publish()
        await endpoint.pushes.get()
        state = call.simulator.subscription(SUB)
        while state.outstanding:
            await state.wait()
        assert state.backlog == 0

    with_server(test)


def test_failures_end_in_the_dead_letters() -> None:
    """Every other status is a failure; after the last attempt the message is published to the dead topic."""

    async def test(call: Caller, endpoint: Endpoint) -> None:
        endpoint.statuses = [500, 503, 404, 203, 302]
        policy = {"deadLetterTopic": DEAD, "maxDeliveryAttempts": 5}
        push = {"topic": TOPIC, "pushConfig": {"pushEndpoint": endpoint.url}}
        await call.good("PUT", SUB, {**push, "deadLetterPolicy": policy, "retryPolicy": FAST})
        await call.good("PUT", DEAD_SUB, {"topic": DEAD})
        await call.publish(b"poison", tenant="acme")
        seen = [read_message(*await endpoint.pushes.get()).attempt for _ in range(5)]
        assert seen == [1, 2, 3, 4, 5]
        received = (await call.good("POST", f"{DEAD_SUB}:pull", {"maxMessages": 1}))["receivedMessages"]
        attributes = received[0]["message"]["attributes"]
        assert attributes["tenant"] == "acme"
        assert attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
        assert attributes["CloudPubSubDeadLetterSourceSubscription"] == "jobs"
        assert call.simulator.subscription(SUB).backlog == 0

    with_server(test)


def test_an_endpoint_may_come_later() -> None:
    """A message waits while nobody answers its pushes, and while its subscription is pulled instead."""

    async def test(call: Caller, endpoint: Endpoint) -> None:
        away = {"pushEndpoint": "http://127.0.0.1:1/"}
        await call.good("PUT", SUB, {"topic": TOPIC, "pushConfig": away, "retryPolicy": FAST})
        number = await call.publish()
        config = {"pushConfig": {"pushEndpoint": endpoint.url}}
        await call.good("POST", f"{SUB}:modifyPushConfig", config)
        assert read_message(*await endpoint.pushes.get()).id == number

    with_server(test)


def test_resources_are_named_once() -> None:
    """What is there is a 409 when it is created again, what is not a 404; what was deleted is gone."""

    async def test(call: Caller, _: Endpoint) -> None:
        await call.good("PUT", SUB, {"topic": TOPIC, "ackDeadlineSeconds": 60})
        assert (await call("PUT", TOPIC))[1]["error"]["status"] == "ALREADY_EXISTS"
        assert (await call("PUT", SUB, {"topic": TOPIC}))[0] == 409
        assert (await call.good("GET", TOPIC))["name"] == TOPIC
        assert (await call.good("GET", SUB))["ackDeadlineSeconds"] == 60
        await call.good("DELETE", TOPIC)
        assert (await call.good("GET", SUB))["topic"] == "_deleted-topic_"
        await call.good("DELETE", SUB)
        for path in (TOPIC, SUB):
            assert (await call("GET", path))[0] == 404

    with_server(test)


BAD = [
    ("PUT", "projects/p/topics/1", None, 400),
    ("PUT", "projects/p/topics/googly", None, 400),
    ("PUT", SUB, {"topic": "projects/p/topics/none"}, 404),
    ("PUT", SUB, {"topic": TOPIC, "ackDeadlineSeconds": 9}, 400),
    ("PUT", SUB, {"topic": TOPIC, "ackDeadlineSeconds": 601}, 400),
    ("PUT", SUB, {"topic": TOPIC, "retryPolicy": {"minimumBackoff": "601s"}}, 400),
    (
        "PUT",
        SUB,
        {"topic": TOPIC, "deadLetterPolicy": {"deadLetterTopic": DEAD, "maxDeliveryAttempts": 4}},
        400,
    ),
    ("PUT", SUB, {"topic": TOPIC, "deadLetterPolicy": {"deadLetterTopic": "projects/p/topics/none"}}, 404),
    ("PUT", SUB, {"topic": TOPIC, "pushConfig": {"attributes": {FORM: "letter"}}}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": []}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": [{}]}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": [{"data": "?"}]}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": [{"data": "YQ=="}] * 1001}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": [{"attributes": {"googly": "x"}}]}, 400),
    ("POST", f"{TOPIC}:publish", {"messages": [{"attributes": {"a": "x" * 1025}}]}, 400),
    ("POST", f"{TOPIC}:publish", b" " * 10_000_001, 400),
    ("POST", "projects/p/topics/none:publish", {"messages": [{"data": "YQ=="}]}, 404),
    ("POST", f"{SUB}:pull", {"maxMessages": 1}, 404),
    ("POST", f"{TOPIC}:explode", {}, 404),
    ("GET", "projects/p", None, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD)
def test_what_pubsub_refuses(method: str, path: str, body: Any, status: int) -> None:
    """Limits hold as documented, and errors look like Google's."""

    async def test(call: Caller, _: Endpoint) -> None:
        answered, content = await call(method, path, body)
        assert (answered, content["error"]["code"]) == (status, status)
        assert (await call("GET", SUB))[0] == 404, "nothing is left behind"

    with_server(test)


def test_a_subscription_that_pushes_is_not_pulled() -> None:
    """Pull is refused where messages are pushed, and needs a positive number."""

    async def test(call: Caller, endpoint: Endpoint) -> None:
        await call.good("PUT", SUB, {"topic": TOPIC, "pushConfig": {"pushEndpoint": endpoint.url}})
        await call.good("PUT", DEAD_SUB, {"topic": DEAD})
        status, content = await call("POST", f"{SUB}:pull", {"maxMessages": 1})
        assert (status, content["error"]["status"]) == (400, "FAILED_PRECONDITION")
        assert (await call("POST", f"{DEAD_SUB}:pull", {"maxMessages": 0}))[0] == 400

    with_server(test)


def test_a_taken_port_is_reported() -> None:
    """The error names the address."""

    async def test(call: Caller, _: Endpoint) -> None:
        taken = PubsubSimulator(port=call.simulator.port)
        with pytest.raises(ConfigError, match=f"{taken.port} is taken"), taken.in_thread():
            pass

    with_server(test)
