"""What only the store in DynamoDB has: items past their end, batches, the SDK's errors, one client a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from firsttoken.errors import StoreError
from firsttoken.settings import DynamodbStore as Settings
from firsttoken.stores.dynamodb import BATCH, EPOCH_SECONDS, DynamodbStore
from tests.stores import cloud
from tests.stores.servers import silent_server

SECRET = "do-not-tell"
START = 1_800_000_000.25


class Clock:
    """The time of day, as a test sets it."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials are what a test says, not those of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**cloud.AWS, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(scope="module")
def table() -> Iterator[str]:
    return cloud.dynamodb_settings().table


async def items(store: DynamodbStore) -> dict[str, Any]:
    """What the table holds, by key."""
    client = await store._clients.get()
    found = await client.scan(TableName=store._settings.table)
    return {item["pk"]["S"]: item for item in found["Items"]}


async def refused(store: DynamodbStore) -> str:
    """The message of the StoreError that a read and a write raise."""
    with pytest.raises(StoreError) as write:
        await store.swap("key", None, b"value", 60)
    with pytest.raises(StoreError) as read:
        await store.get("key")
    await store.aclose()
    assert str(read.value) == str(write.value)
    assert SECRET not in str(read.value)
    assert "127.0.0.1" not in str(read.value)
    return str(read.value)


def test_an_item_past_its_end_is_absent_though_dynamodb_shows_it() -> None:
    """DynamoDB deletes what has expired up to days later; until then it is absent in reads and conditions."""

    async def main() -> None:
        clock = Clock()
        async with cloud.dynamodb_store(clock=clock) as store:
            await store.put("key", b"value", 60)
            assert await store.add("key", 7, 60) == 7
            clock.now += 59.99
            assert await store.get("key") == b"value"
            clock.now += 0.01
            assert {"key:v", "key:c"} == set(await items(store))
            assert await store.get("key") is None
            assert await store.get_many(["key"]) == {}
            assert await store.delete("key") is False
            assert await store.swap("key", b"value", b"new", 60) is False
            assert await store.swap("key", None, b"new", 60) is True
            assert await store.add("key", 5, 60) == 5

    asyncio.run(main())


def test_the_time_to_live_is_what_dynamodb_understands() -> None:
    """``expires`` is a whole number of seconds, never before an item's end; a lease's epoch outlives it."""

    async def main() -> None:
        clock = Clock()
        async with cloud.dynamodb_store(clock=clock) as store:
            await store.put("key", b"value", 0.5)
            await store.add("key", 1, 10)
            clock.now += 5
            await store.add("key", 1, 10)
            await store.lease("key", "me", 10)
            found = {pk: item["expires"]["N"] for pk, item in (await items(store)).items()}
            end = int(START)
            assert found == {
                "key:v": str(end + 1),
                "key:c": str(end + 11),
                "key:l": str(end + 16 + EPOCH_SECONDS),
            }
            await store.release("key", "me")
            lease = (await items(store))["key:l"]
            assert lease["expires"]["N"] == str(end + 6 + EPOCH_SECONDS)
            assert "holder" not in lease

    asyncio.run(main())


def test_an_expired_counter_begins_anew_once() -> None:
    """Of additions at once to an expired counter one begins anew and the others add to that."""

    async def main() -> None:
        clock = Clock()
        async with cloud.dynamodb_store(clock=clock) as store:
            await store.add("key", 100, 1)
            clock.now += 2
            sums = await asyncio.gather(*(store.add("key", 1, 60) for _ in range(20)))
            assert sorted(sums) == list(range(1, 21))

    asyncio.run(main())


@pytest.mark.parametrize(("count", "amount"), [(2**63 - 1, 1), (-(2**63), -1), (2**62, 2**62)])
def test_a_counter_has_64_bits(count: int, amount: int) -> None:
    """DynamoDB's numbers are larger; what other stores could not hold is refused, and changes nothing."""

    async def main() -> None:
        async with cloud.dynamodb_store() as store:
            assert await store.add("key", count, 60) == count
            with pytest.raises(ValueError, match="64 bits"):
                await store.add("key", amount, 60)
            assert await store.add("key", 0, 60) == count

    asyncio.run(main())


def test_more_keys_than_a_batch_takes(table: str) -> None:
    """Keys are asked for a hundred at a time, each once."""

    async def main() -> None:
        async with cloud.dynamodb_store(table=table) as store:
            asked: list[int] = []

            def note(params: dict[str, Any], **_: Any) -> None:
                asked.append(len(params["RequestItems"][table]["Keys"]))

            client = await store._clients.get()
            client.meta.events.register("provide-client-params.dynamodb.BatchGetItem", note)
            keys = [f"key {number}" for number in range(2 * BATCH + 1)]
            await store.put(keys[-1], b"value", 60)
            assert await store.get_many(keys * 2) == {keys[-1]: b"value"}
            assert asked == [BATCH, BATCH, 1]
            assert await store.get_many([]) == {}
            assert len(asked) == 3

    asyncio.run(main())


def test_what_a_batch_leaves_out_is_asked_for_again(table: str) -> None:
    """An answer ends at 16 MB; the keys that are left are read in further round trips."""

    async def main() -> None:
        async with cloud.dynamodb_store(table=table) as store:
            value = b"v" * store.max_value_bytes
            keys = [f"large {number}" for number in range(45)]
            for key in keys:
                await store.put(key, value, 60)
            asked: list[Any] = []
            client = await store._clients.get()
            client.meta.events.register(
                "provide-client-params.dynamodb.BatchGetItem", lambda **given: asked.append(given)
            )
            found = await store.get_many(keys)
            assert len(asked) > 1
            assert found == dict.fromkeys(keys, value)

    asyncio.run(main())


def test_a_missing_table_is_named() -> None:
    """The error says which table was expected, and which command makes it."""
    store = DynamodbStore(cloud.dynamodb_settings(table="nowhere"))
    message = asyncio.run(refused(store))
    assert "'nowhere'" in message
    assert "aws dynamodb create-table" in message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400 Bad Request", "AccessDeniedException"),
        ("400 Bad Request", "UnrecognizedClientException"),
        ("400 Bad Request", "ProvisionedThroughputExceededException"),
        ("500 Internal Server Error", "InternalServerError"),
        ("503 Service Unavailable", "ServiceUnavailable"),
    ],
)
def test_a_refusal_is_named_and_asked_once(status: str, code: str) -> None:
    """The error has DynamoDB's own word for it; the SDK does not try again behind our back."""

    async def main() -> None:
        body = f'{{"__type":"com.amazonaws.dynamodb#{code}","message":"about {SECRET}"}}'
        async with cloud.refusing(status, "content-type: application/x-amz-json-1.0\r\n", body) as (
            url,
            requests,
        ):
            store = DynamodbStore(Settings(endpoint=url, region=cloud.REGION, timeout=cloud.PATIENCE))
            assert code in await refused(store)
            assert len(requests) == 2

    asyncio.run(main())


def test_a_server_that_is_not_there() -> None:
    """No connection is a StoreError."""

    async def main() -> str:
        async with cloud.refusing("500 -") as (url, _):
            pass
        return await refused(DynamodbStore(Settings(endpoint=url, region=cloud.REGION)))

    assert "EndpointConnectionError" in asyncio.run(main())


def test_a_server_that_does_not_answer() -> None:
    """The SDK itself gives up after ``timeout``, and does not try again."""

    async def main() -> str:
        async with silent_server() as port:
            settings = Settings(endpoint=f"http://127.0.0.1:{port}", region=cloud.REGION, timeout=0.05)
            return await refused(DynamodbStore(settings))

    assert "ReadTimeoutError" in asyncio.run(main())


@pytest.mark.parametrize(
    ("missing", "settings", "told"),
    [
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], Settings(region=cloud.REGION), "no AWS credentials"),
        (["AWS_SECRET_ACCESS_KEY"], Settings(region=cloud.REGION), "PartialCredentialsError"),
        (["AWS_DEFAULT_REGION"], Settings(), "NoRegionError"),
        ([], Settings(region=cloud.REGION, endpoint="http://not a host"), "ValueError"),
    ],
)
def test_what_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], settings: Settings, told: str
) -> None:
    """Without credentials, a region or an address nothing is sent; opening says what is missing."""
    for name in missing:
        monkeypatch.delenv(name)

    async def main() -> None:
        store = DynamodbStore(settings)
        with pytest.raises(StoreError, match=told):
            await store.open()
        assert told in await refused(store)

    asyncio.run(main())


def test_a_store_that_could_not_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Credentials that come later are found."""

    async def main() -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        store = DynamodbStore(cloud.dynamodb_settings(table=table))
        with pytest.raises(StoreError):
            await store.open()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        assert await store.swap("later", None, b"value", 60)
        await store.aclose()

    asyncio.run(main())


def test_one_store_serves_several_event_loops(table: str) -> None:
    """Loops one after the other and at the same time each have a client of their own."""
    store = DynamodbStore(cloud.dynamodb_settings(table=table))

    async def work(name: str) -> int:
        await asyncio.gather(*(store.open() for _ in range(5)))
        assert len({id(await store._clients.get()) for _ in range(3)}) == 1
        await store.put(name, name.encode(), 60)
        await asyncio.gather(*(store.add("loops", 1, 60) for _ in range(10)))
        assert await store.get(name) == name.encode()
        await store.aclose()
        return len(store._clients._tasks)

    assert asyncio.run(work("first")) == 0
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda name: asyncio.run(work(name)), ["a", "b", "c"]))
    assert asyncio.run(work("last")) == 0

    async def count() -> int:
        value = await store.add("loops", 0, 60)
        await store.aclose()
        return value

    assert asyncio.run(count()) == 50
