"""What only the queue in SQS has: its policies, its service's errors, its addresses, one client a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from firsttoken.errors import QueueError
from firsttoken.queues import sqs
from firsttoken.queues.sqs import SqsQueue, delivery_of
from firsttoken.settings import SqsQueue as Settings
from tests.queues import moto_server
from tests.stores.servers import silent_server

SECRET = "do-not-tell"
BODY = b'{"id":"job_1"}'
AWAY = "http://127.0.0.1:1/123456789012/jobs"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials are what a test says, not those of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**moto_server.AWS, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


@asynccontextmanager
async def opened(most: int = 2, **given: Any) -> AsyncIterator[SqsQueue]:
    urls = moto_server.new_queues(most)
    queue = SqsQueue(Settings(**{"url": urls.queue, "dead_url": urls.dead, **given}))
    try:
        yield queue
    finally:
        await queue.aclose()


async def refused(queue: SqsQueue) -> str:
    """The message of the QueueError that a send raises."""
    with pytest.raises(QueueError) as caught:
        await queue.send(BODY)
    await queue.aclose()
    assert SECRET not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    return str(caught.value)


def test_what_sqs_gave_up_and_what_a_worker_gave_up() -> None:
    """A dead letter without a reason was moved by SQS's own policy, and says after how many deliveries."""

    async def main() -> None:
        async with opened(most=2) as queue:
            await queue.send(BODY)
            for _ in range(2):
                await queue.receive(1, 1, 0)
                await moto_server.CLOCK.forward(2)
            assert await queue.receive(1, 1, 0) == []
            await queue.bury(b"poison", "It is no JSON.")
            found = {letter.body: letter for letter in await queue.dead(10)}
            assert found[BODY].reason == "handed out 2 times"
            assert found[BODY].at == 0
            assert found[b"poison"].reason == "It is no JSON."
            assert found[b"poison"].at > 1_700_000_000

    run(main())


def test_looking_shows_everything() -> None:
    """More dead letters than one request returns are all shown, and can be received at once afterwards."""

    async def main() -> None:
        async with opened() as queue:
            await asyncio.gather(*[queue.bury(b"%d" % number, "no") for number in range(23)])
            for _ in range(2):
                assert len({letter.body for letter in await queue.dead(100)}) == 23
            assert len(await queue.dead(12)) == 12
            assert await queue.redrive(100) == 23
            assert (await queue.depth()).waiting == 23

    run(main())


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_full_message_is_buried_with_what_fits_of_its_reason() -> None:
    """A body that fills the message leaves no room for a reason, and is kept all the same."""

    async def main() -> None:
        async with opened() as queue:
            for size in (sqs.MAX_MESSAGE_BYTES - 60, sqs.MAX_MESSAGE_BYTES):
                await queue.bury(b"x" * size, "It is very large, and nobody knows what it means.")
            reasons = {len(letter.body): letter.reason for letter in await queue.dead(10)}
            assert reasons[sqs.MAX_MESSAGE_BYTES - 60].startswith("It is very large")
            assert reasons[sqs.MAX_MESSAGE_BYTES] == "handed out 2 times"

    run(main())


def test_a_body_that_sqs_would_change_is_refused() -> None:
    """SQS takes the characters of XML, and replaces others silently."""

    async def main() -> None:
        async with opened() as queue:
            for body in (b"\x00", b"a\x1fb", b"\xff", "\ufffe".encode()):
                with pytest.raises(ValueError, match=r"characters|decode"):
                    await queue.send(body)
            assert await queue.receive(10, 1, 0) == []

    run(main())


@pytest.mark.parametrize(("limit", "moved"), [(10, True), (2, False)])
def test_a_large_redrive_is_left_to_sqs(monkeypatch: pytest.MonkeyPatch, limit: int, moved: bool) -> None:
    """Where all of many dead letters go back SQS is asked to move them; a part of them we move ourselves."""
    asked: list[dict[str, str]] = []

    async def move(**given: str) -> dict[str, str]:
        asked.append(given)
        return {"TaskHandle": "x"}

    async def main() -> None:
        monkeypatch.setattr(sqs, "MOVE_FROM", 3)
        async with opened() as queue:
            for number in range(3):
                await queue.bury(b"%d" % number, "no")
            client = await queue._clients._clients.get()
            monkeypatch.setattr(client, "start_message_move_task", move)
            assert await queue.redrive(limit) == min(limit, 3)
            assert bool(asked) is moved

    run(main())
    if moved:
        ((source, target),) = [(each["SourceArn"], each["DestinationArn"]) for each in asked]
        assert source == f"{target}-dead"


def test_where_sqs_moves_nothing_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the policies name no dead-letter queue, or the role may not, letters are still sent again."""
    refusal = {"Error": {"Code": "ResourceNotFoundException"}}

    async def move(**_: str) -> None:
        raise ClientError(refusal, "StartMessageMoveTask")

    async def main() -> None:
        monkeypatch.setattr(sqs, "MOVE_FROM", 3)
        async with opened() as queue:
            for number in range(3):
                await queue.bury(b"%d" % number, "no")
            client = await queue._clients._clients.get()
            monkeypatch.setattr(client, "start_message_move_task", move)
            assert await queue.redrive(10) == 3
            assert len(await queue.receive(10, 60, 0)) == 3

    run(main())


def test_without_a_dead_letter_queue() -> None:
    """What would be buried is not lost silently: the error names the setting."""

    async def main() -> None:
        async with opened(dead_url="") as queue:
            for call in (queue.bury(BODY, "no"), queue.dead(1), queue.redrive(1), queue.purge_dead(1)):
                with pytest.raises(QueueError, match=r"queue\.dead_url"):
                    await call
            assert (await queue.depth()).dead is None

    run(main())


@pytest.mark.parametrize(
    ("given", "region", "endpoint"),
    [
        ({"url": "https://sqs.eu-west-1.amazonaws.com/1/jobs"}, "eu-west-1", ""),
        ({"url": "https://sqs.cn-north-1.amazonaws.com.cn/1/jobs"}, "cn-north-1", ""),
        ({"url": "https://sqs.eu-west-1.amazonaws.com/1/jobs", "region": "eu-west-2"}, "eu-west-2", ""),
        ({"url": "http://127.0.0.1:5000/1/jobs"}, "", "http://127.0.0.1:5000"),
        ({"url": AWAY, "endpoint": "http://localhost:9324", "region": "x"}, "x", "http://localhost:9324"),
    ],
)
def test_the_url_says_where_the_queue_is(given: dict[str, str], region: str, endpoint: str) -> None:
    """Region and address need no settings of their own."""
    clients = sqs.clients_of(Settings(**given))
    assert (clients._region, clients._endpoint) == (region, endpoint)


def test_a_queue_that_is_not_there() -> None:
    """SQS's own code is in the message, and the queue's address is not."""
    settings = Settings(url=f"{moto_server.endpoint()}/123456789012/missing")
    assert "NonExistentQueue" in run(refused(SqsQueue(settings)))


def test_a_server_that_is_away() -> None:
    """No connection is a QueueError that says so."""
    message = run(refused(SqsQueue(Settings(url=AWAY))))
    assert message == "SQS cannot be reached (EndpointConnectionError)."


def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation ends in time, whatever the service does."""
    monkeypatch.setattr(sqs, "SECONDS", 0.3)

    async def main() -> str:
        async with silent_server() as port:
            return await refused(SqsQueue(Settings(url=f"http://127.0.0.1:{port}/1/jobs")))

    assert run(main()) == "SQS did not answer within 0.3 s."


@pytest.mark.parametrize("missing", ["AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"])
def test_without_credentials_or_region(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """What is missing is a QueueError, at each attempt."""
    monkeypatch.delenv(missing)
    if missing == "AWS_SECRET_ACCESS_KEY":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for _ in range(2):
        assert run(refused(SqsQueue(Settings(url=AWAY)))).startswith("SQS cannot be opened")


def test_each_event_loop_has_its_client() -> None:
    """One queue serves the loops of several threads."""
    urls = moto_server.new_queues()
    queue = SqsQueue(Settings(url=urls.queue))

    def work(number: int) -> None:
        async def main() -> None:
            await queue.send(b"%d" % number)
            await queue.aclose()

        run(main())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))

    async def main() -> list[bytes]:
        found = await queue.receive(10, 60, 0)
        await queue.aclose()
        return sorted(delivery.body for delivery in found)

    assert run(main()) == [b"0", b"1", b"2", b"3"]


def test_a_record_of_lambda_is_a_delivery() -> None:
    """What Lambda hands to a function says the same as what SQS hands out, with other names."""
    message = {
        "MessageId": "id",
        "ReceiptHandle": "receipt",
        "Body": "body",
        "Attributes": {"ApproximateReceiveCount": "3"},
    }
    record = {name[0].lower() + name[1:]: value for name, value in message.items()}
    assert delivery_of(message) == delivery_of(record)
    assert delivery_of(message).count == 3
