"""What only the store in Azure Tables has: ETags, values in several properties, purging, Entra tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import azure.identity
import pytest
from azure.core.exceptions import ClientAuthenticationError

from firsttoken.errors import ConfigError, StoreError
from firsttoken.settings import TablesStore as Settings
from firsttoken.stores import azure_identity, table_rows, tables
from firsttoken.stores.azure_identity import Identity
from firsttoken.stores.guarded import Guarded
from firsttoken.stores.tables import TablesStore
from tests.stores import cloud

START = 1_800_000_000.25


class Clock:
    """The time of day, as a test sets it."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Awaitable[Any]]]:
    """What others do between a store's reading of a row and its writing, one for each reading."""
    others: list[Callable[[], Awaitable[Any]]] = []
    read = table_rows.read

    async def reading(client: Any, name: Any) -> Any:
        row = await read(client, name)
        if others:
            # The other store reads too: what is to come is not meant for it.
            other, rest = others[0], others[1:]
            others.clear()
            await other()
            others.extend(rest)
        return row

    monkeypatch.setattr(tables, "read", reading)
    return others


async def rows(store: TablesStore) -> dict[tuple[str, str], Any]:
    """What the table holds, by key and kind."""
    client = await store._clients.get()
    return {(row["PartitionKey"], row["RowKey"]): row async for row in client.list_entities()}


async def refused(store: TablesStore, untold: str = "127.0.0.1") -> str:
    """The message of the StoreError that a read and a write raise."""
    with pytest.raises(StoreError) as write:
        await store.swap("key", None, b"value", 60)
    with pytest.raises(StoreError) as read:
        await store.get("key")
    await store.aclose()
    assert str(read.value) == str(write.value)
    assert untold not in str(read.value)
    return str(read.value)


def test_a_swap_minds_the_value_not_the_etag(meanwhile: list[Any]) -> None:
    """A swap happens although another wrote the same value meanwhile, and not where it is gone or another."""

    async def main() -> None:
        async with cloud.tables_store() as store:
            for other, done in [
                (lambda: store.put("key", b"old", 60), True),
                (lambda: store.put("key", b"other", 60), False),
                (lambda: store.delete("key"), False),
            ]:
                await store.put("key", b"old", 60)
                meanwhile[:] = [other]
                assert await store.swap("key", b"old", b"new", 60) is done
                assert not meanwhile

    asyncio.run(main())


def test_where_there_was_no_value_another_may_be_faster(meanwhile: list[Any]) -> None:
    """An expired value is taken over by one of two: the row's ETag decides."""

    async def main() -> None:
        clock = Clock()
        async with cloud.tables_store(clock=clock) as store:
            await store.put("key", b"old", 60)
            clock.now += 60
            meanwhile[:] = [lambda: store.put("key", b"other", 60)]
            assert await store.swap("key", None, b"new", 60) is False
            clock.now += 60
            assert await store.swap("key", None, b"new", 60) is True
            assert await store.get("key") == b"new"

    asyncio.run(main())


def test_an_addition_counts_what_others_added(meanwhile: list[Any]) -> None:
    """However often others were faster, at the beginning or later, nothing is lost."""

    async def main() -> None:
        async with cloud.tables_store(chance=lambda: 0.0) as store:
            meanwhile[:] = [lambda: store.add("key", 10, 60)] * 3
            assert await store.add("key", 1, 60) == 31
            meanwhile[:] = [lambda: store.add("key", -10, 60)] * 2
            assert await store.add("key", 1, 60) == 12

    asyncio.run(main())


def test_a_lease_that_another_took_meanwhile(meanwhile: list[Any]) -> None:
    """Of two that see a free lease one gets it; who gave it back meanwhile has not renewed it."""

    async def main() -> None:
        async with cloud.tables_store() as store:
            meanwhile[:] = [lambda: store.lease("key", "you", 60)]
            assert await store.lease("key", "me", 60) is None
            meanwhile[:] = [lambda: store.release("key", "you")]
            assert await store.lease("key", "you", 60) == 2
            meanwhile[:] = [lambda: store.release("key", "you")]
            assert await store.release("key", "you") is False

    asyncio.run(main())


def test_who_deletes_what_is_gone_did_not_delete_it(meanwhile: list[Any]) -> None:
    """Of two that delete a value one is told so; a value that was written meanwhile is deleted."""

    async def main() -> None:
        async with cloud.tables_store() as store:
            await store.put("key", b"value", 60)
            meanwhile[:] = [lambda: store.delete("key")]
            assert await store.delete("key") is False
            await store.put("key", b"value", 60)
            meanwhile[:] = [lambda: store.put("key", b"newer", 60)]
            assert await store.delete("key") is True
            await store.put("key", b"value", 60)
            meanwhile[:] = [lambda: store.put("key", b"newer", 60)]
            assert await store.delete("key", b"value") is False

    asyncio.run(main())


def test_a_row_that_never_stays_the_same_is_given_up(meanwhile: list[Any]) -> None:
    """Attempts are bounded: a row that others change each time is a StoreError."""

    async def main() -> None:
        async with cloud.tables_store(chance=lambda: 0.0) as store:
            meanwhile[:] = [lambda: store.put("key", b"old", 60)] * tables.ATTEMPTS
            await store.put("key", b"old", 60)
            with pytest.raises(StoreError, match=f"{tables.ATTEMPTS} times"):
                await store.swap("key", b"old", b"new", 60)
            assert not meanwhile

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, table_rows.MAX_BYTES])
def test_a_value_in_several_properties(size: int) -> None:
    """A value of any size comes back whole, and nothing stays of a larger one before it."""

    async def main() -> None:
        async with cloud.tables_store() as store:
            value = bytes(range(256)) * (size // 256) + bytes(size % 256)
            await store.put("key", b"x" * 200_000, 60)
            await store.put("key", value, 60)
            assert await store.get("key") == value

    asyncio.run(main())


@pytest.mark.parametrize(
    "key", ["/\\#?%'\x00\x1f\x7f\x9f \n", "é" * 256, "_5F", "_", "%5F", "a~b", "\N{GRINNING FACE}" * 128]
)
def test_a_key_becomes_characters_that_the_service_takes(key: str) -> None:
    """At most 512 ASCII characters, none that is forbidden, percent signs neither; another for each key."""
    escaped = table_rows.escape(key)
    assert len(escaped) <= 512
    assert escaped.isascii()
    assert escaped.isprintable()
    assert not set(escaped) & set("/\\#?%'")
    others = ["_5F", "_", "%5F", "_255F", key[:-1] + "x", key + "x", key[:-1]]
    assert escaped not in [table_rows.escape(other) for other in others if other != key]


def test_purging_deletes_expired_rows_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of this deployment that are over go, and only they; a lease's epoch stays for a day."""

    async def main() -> None:
        monkeypatch.setattr(tables, "PAGE", 3)
        clock = Clock()
        async with cloud.tables_store(clock=clock, prefix="mine") as inner:
            store = Guarded(inner, inner._settings)
            for number in range(10):
                await store.put(f"dies/{number}", b"value", 10)
            await store.add("dies", 1, 10)
            await store.put("lives", b"value", 60)
            await store.lease("lease", "me", 10)
            await inner.put("mine2:other", b"value", 10)
            clock.now += 11
            assert await store.purge() == 11
            assert await store.purge() == 0
            left = {("mine:lives", "v"), ("mine:lease", "l"), ("mine2:other", "v")}
            assert set(await rows(inner)) == left
            assert await store.lease("lease", "you", 10) == 2
            clock.now += tables.EPOCH_SECONDS + 11
            assert await store.purge() == 2
            assert set(await rows(inner)) == {("mine2:other", "v")}

    asyncio.run(main())


def test_purging_leaves_what_was_written_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is in use again when its turn comes stays; one that is gone is not counted."""

    async def main() -> None:
        clock = Clock()
        async with cloud.tables_store(clock=clock, prefix="") as store:
            for key in ("again", "gone", "dies"):
                await store.put(key, b"old", 10)
            clock.now += 10
            delete = table_rows.delete

            async def deleting(client: Any, row: Any) -> bool:
                if row["PartitionKey"] == "again":
                    await store.put("again", b"new", 10)
                if row["PartitionKey"] == "gone":
                    await client.delete_entity("gone", "v")
                return await delete(client, row)

            monkeypatch.setattr(tables, "delete", deleting)
            assert await store.purge() == 1
            assert await store.get_many(["again", "gone", "dies"]) == {"again": b"new"}

    asyncio.run(main())


def test_a_missing_table_is_named() -> None:
    """The error says which table was expected, and which command makes it."""
    store = TablesStore(cloud.tables_settings(table="nowhere"))
    message = asyncio.run(refused(store))
    assert "'nowhere'" in message
    assert "az storage table create" in message


def test_a_wrong_key_is_not_told() -> None:
    """An account key that the service does not take is named by the service's word for it only."""
    wrong = "bm90IHRoZSBrZXk="
    connection = cloud.tables_connection()
    key = connection.partition("AccountKey=")[2].partition(";")[0]
    store = TablesStore(cloud.tables_settings(connection=connection.replace(key, wrong)))
    message = asyncio.run(refused(store, wrong))
    assert "AuthenticationFailed" in message or "AuthorizationFailure" in message


@pytest.mark.parametrize("connection", ["nonsense", "AccountName=x", "AccountName=x;AccountKey"])
def test_a_connection_string_that_is_none(connection: str) -> None:
    """It is not repeated: it may be a secret in the wrong place."""
    message = asyncio.run(refused(TablesStore(Settings(connection=connection)), connection))
    assert "connection string" in message


def test_a_connection_string_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """``env:NAME`` names the variable that has it; one that is not set stops the start."""
    settings = cloud.tables_settings()
    monkeypatch.setenv("STORAGE", settings.connection)

    async def main() -> None:
        async with cloud.tables_store(table=settings.table, connection="env:STORAGE") as store:
            assert await store.swap("key", None, b"value", 60)

    asyncio.run(main())
    monkeypatch.delenv("STORAGE")
    with pytest.raises(ConfigError, match="STORAGE"):
        TablesStore(Settings(connection="env:STORAGE"))


@pytest.mark.parametrize("url", ["", "http://account.table.core.windows.net"])
def test_an_account_is_needed(url: str) -> None:
    """Without a connection string there must be a URL to which a token may be sent."""
    with pytest.raises(ConfigError, match="account_url with https"):
        TablesStore(Settings(account_url=url))


@pytest.mark.parametrize(
    ("status", "code"),
    [("500 -", "InternalError"), ("503 -", "ServerBusy"), ("403 -", "AuthorizationFailure")],
)
def test_a_refusal_is_named_and_asked_once(status: str, code: str) -> None:
    """The error has the service's own word for it; the SDK does not try again behind our back."""

    async def main() -> None:
        async with cloud.refusing(status, f"x-ms-error-code: {code}\r\n") as (url, requests):
            account = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;TableEndpoint={url}/a;"
            assert code in await refused(TablesStore(Settings(connection=account, timeout=cloud.PATIENCE)))
            assert len(requests) == 2
        store = TablesStore(Settings(connection=account, timeout=cloud.PATIENCE))
        assert "ServiceRequestError" in await refused(store)

    asyncio.run(main())


def test_one_store_serves_several_event_loops() -> None:
    """Loops one after the other and at the same time each have a client of their own."""
    store = TablesStore(cloud.tables_settings())

    async def work(name: str) -> int:
        await asyncio.gather(*(store.open() for _ in range(5)))
        await store.put(name, name.encode(), 60)
        for _ in range(5):
            await store.add("loops", 1, 60)
        assert await store.get(name) == name.encode()
        total = await store.add("loops", 0, 60)
        await store.aclose()
        return total

    assert asyncio.run(work("first")) == 5
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda name: asyncio.run(work(name)), ["a", "b", "c"]))
    assert asyncio.run(work("last")) == 25


class Credential:
    """azure-identity as the tests need it: each token lives an hour; ``works`` says whether there are any."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.works = True
        self.scopes: list[str] = []

    def get_token(self, scope: str) -> Any:
        self.scopes.append(scope)
        if not self.works:
            raise ClientAuthenticationError("a long story")
        return SimpleNamespace(token=f"token {len(self.scopes)}", expires_on=int(self.clock.now) + 3600)


def test_a_token_is_kept_and_renewed_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets the same token; near its end the next one is fetched, at its end it is waited for."""
    clock = Clock()
    credential = Credential(clock)
    monkeypatch.setattr(azure.identity, "DefaultAzureCredential", lambda: credential)

    async def main() -> None:
        identity = Identity("scope", clock)

        async def tokens(count: int) -> set[str]:
            return {(await identity.get_token("scope", tenant_id="x")).token for _ in range(count)}

        first = await asyncio.gather(*(identity.get_token("scope") for _ in range(5)))
        assert {found.token for found in first} == {"token 1"}
        clock.now += 3600 - azure_identity.AHEAD_SECONDS
        assert await tokens(1) == {"token 1"}
        await identity._renewal
        assert await tokens(3) == {"token 2"}
        clock.now += 3600
        assert await tokens(3) == {"token 3"}
        assert credential.scopes == ["scope"] * 3
        clock.now += 3600 - azure_identity.AHEAD_SECONDS
        credential.works = False
        assert await tokens(3) == {"token 3"}
        clock.now += 3600
        with pytest.raises(StoreError, match="ClientAuthenticationError"):
            await identity.get_token("scope")

    asyncio.run(main())


def test_without_an_identity_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a store with an account's URL asks for a token first; when there is none it is tried again."""
    credential = Credential(Clock())
    credential.works = False
    monkeypatch.setattr(azure.identity, "DefaultAzureCredential", lambda: credential)
    store = TablesStore(Settings(account_url="https://account.invalid"))

    async def main() -> None:
        with pytest.raises(StoreError, match="No identity"):
            await store.open()
        credential.works = True
        credential.clock.now = 4_000_000_000.0
        await store.open()
        with pytest.raises(StoreError, match="ServiceRequestError"):
            await store.get("key")
        await store.aclose()

    asyncio.run(main())
    assert credential.scopes == ["https://storage.azure.com/.default"] * 2
