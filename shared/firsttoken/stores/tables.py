"""A store in one table of Azure Table storage: each key is a partition, with one row for each kind.

Nothing there counts or ends by itself. So a change is read, made here and written back if the row's ETag is
still the same; and a row says when it is over for its readers (``Ends``) and when `purge` may delete it
(``Expires``), in milliseconds of Unix time. Times are those of this machine's clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any, TypeGuard

from firsttoken import config
from firsttoken.errors import ConfigError, StoreError
from firsttoken.settings import TablesStore as Settings
from firsttoken.stores.azure_identity import Identity
from firsttoken.stores.clients import Clients
from firsttoken.stores.keys import check_number, check_value
from firsttoken.stores.table_rows import (
    MAX_BYTES,
    Row,
    code_of,
    delete,
    escape,
    join,
    long,
    name_of,
    parallel,
    read,
    split,
    write,
)

PAGE = 500
"""Rows that `purge` holds in memory."""
PURGE_SECONDS = 60.0
"""For one request of it: the service looks at rows for up to 5 s before it answers."""
ATTEMPTS = 30
"""Times that a change is tried before others have changed the row too often."""
PAUSE_SECONDS = 0.01
MAX_PAUSE_SECONDS = 0.2
EPOCH_SECONDS = 86_400
"""A lease's epoch is remembered so long after its end."""

_SCOPE = "https://storage.azure.com/.default"
_VALUE, _COUNTER, _LEASE = "v", "c", "l"

Decision = tuple[Row | None, Any]
"""What to write instead of a row (None: nothing), and the operation's result."""


class TablesStore:
    """Values, counters and leases as rows; ``clock`` is the time of day in Unix seconds.

    Up to 100 connections for each event loop, which `aclose` closes in that loop. Raises ConfigError where
    settings name no account.
    """

    shared = True
    max_value_bytes = MAX_BYTES

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._connection = config.secret(settings.connection, "store.connection")
        if not self._connection and not settings.account_url.startswith("https://"):
            raise ConfigError("store: expected a connection string, or an account_url with https://")
        self._identity = None if self._connection else Identity(_SCOPE)
        self._clock = clock
        self._chance = chance
        self._clients: Clients[Any] = Clients(self._opening)

    async def open(self) -> None:
        """Open the client of this loop and find an identity; the first operation does so if need be.

        Once 0.3 s of CPU in a thread. Raises StoreError.
        """
        await self._clients.get()

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None, in one request."""
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there: one request for each key, 16 at a time."""
        found: dict[str, bytes] = {}

        async def find(client: Any, key: str) -> None:
            row = await read(client, name_of(key, _VALUE))
            if self._live(row):
                found[key] = join(row)

        async with self._operation() as client:
            await parallel([partial(find, client, key) for key in dict.fromkeys(keys)])
        return found

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value, in one request."""
        row = {**name_of(key, _VALUE), **self._content(value, ttl)}
        async with self._operation() as client:
            await client.upsert_entity(row, mode="replace")

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write ``new`` where the value is ``old``: two requests, one where there was none before."""
        content = self._content(new, ttl)

        def decide(row: Row | None) -> Decision:
            current = join(row) if self._live(row) else None
            return (content, True) if current == old else (None, False)

        return bool(await self._change(name_of(key, _VALUE), decide, absent=old is None))

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value (only where it is ``old``, if given): two requests, one where there is none."""
        name = name_of(key, _VALUE)
        async with self._operation() as client:
            for attempt in range(ATTEMPTS):
                row = await read(client, name)
                if not self._live(row) or (old is not None and join(row) != old):
                    return False
                if await delete(client, row):
                    return True
                await self._pause(attempt)
        raise _busy()

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter: two requests, and as many again for each other instance that was faster."""

        def decide(row: Row | None) -> Decision:
            if not self._live(row):
                return {**self._times(ttl), "Count": long(amount)}, amount
            count = check_number(row["Count"].value + amount)
            return {"Ends": row["Ends"], "Expires": row["Expires"], "Count": long(count)}, count

        return int(await self._change(name_of(key, _COUNTER), decide))

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take the lease or renew it; return its epoch. Two requests, one to be late."""

        def decide(row: Row | None) -> Decision:
            if self._live(row) and row["Owner"] != owner:
                return None, None
            epoch = row["Epoch"].value if row else 0
            epoch += not self._live(row)
            return {**self._times(ttl, EPOCH_SECONDS), "Owner": owner, "Epoch": long(epoch)}, epoch

        epoch: int | None = await self._change(name_of(key, _LEASE), decide)
        return epoch

    async def release(self, key: str, owner: str) -> bool:
        """Give the lease back; say whether ``owner`` held it. Its epoch stays for a day."""

        def decide(row: Row | None) -> Decision:
            if not self._live(row) or row["Owner"] != owner:
                return None, False
            return {**self._times(0, EPOCH_SECONDS), "Owner": "", "Epoch": row["Epoch"]}, True

        return bool(await self._change(name_of(key, _LEASE), decide))

    async def purge(self) -> int:
        """Delete the rows of this deployment that have expired; return how many there were.

        The service looks at every row of the deployment; each one that is deleted costs a request. A row
        that was written meanwhile stays.
        """
        query = f"Expires le {self._milliseconds()}L"
        if self._settings.prefix:
            first = escape(self._settings.prefix)
            query += f" and PartitionKey ge '{first}:' and PartitionKey lt '{first};'"
        count = 0
        async with self._operation() as client:
            pages = client.query_entities(
                query, results_per_page=PAGE, select=["PartitionKey", "RowKey"], read_timeout=PURGE_SECONDS
            )
            async for page in pages.by_page():
                rows = [row async for row in page]
                count += sum(await parallel([partial(delete, client, row) for row in rows]))
        return count

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    async def _change(
        self, name: Row, decide: Callable[[Row | None], Decision], *, absent: bool = False
    ) -> Any:
        """Read a row and write what is decided in its place, again wherever another instance was faster.

        ``absent`` says that there is probably no row, so that reading it would be one request too many.
        """
        async with self._operation() as client:
            for attempt in range(ATTEMPTS):
                guessed = absent and not attempt
                row = None if guessed else await read(client, name)
                content, result = decide(row)
                if content is None or await write(client, {**name, **content}, row):
                    return result
                if not guessed:
                    await self._pause(attempt)
        raise _busy()

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(self._chance() * min(PAUSE_SECONDS * 2**attempt, MAX_PAUSE_SECONDS))

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[Any]:
        """Give the client to one operation, and turn what goes wrong into a StoreError."""
        client = await self._clients.get()
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            yield client
        except HttpResponseError as error:
            raise StoreError(self._refusal(code_of(error) or str(error.status_code))) from error
        except AzureError as error:
            raise StoreError(f"Azure Table storage cannot be reached ({type(error).__name__}).") from error

    def _refusal(self, code: str) -> str:
        table = self._settings.table
        if code == "TableNotFound":
            return f"There is no table {table!r} here; see `az storage table create` in docs/stores.md."
        return f"Azure Table storage refused an operation on the table {table!r} ({code})."

    async def _opening(self, stack: AsyncExitStack) -> Any:
        await asyncio.to_thread(import_module, "azure.data.tables.aio")
        await asyncio.to_thread(import_module, "aiohttp")  # which the SDK imports at its first request
        if self._identity is not None:
            await self._identity.get_token()
        from azure.data.tables.aio import TableClient

        seconds = self._settings.timeout
        options: Any = {"retry_total": 0, "connection_timeout": seconds, "read_timeout": seconds}
        table = self._settings.table
        try:
            if self._identity is None:
                client = TableClient.from_connection_string(self._connection, table, **options)
            else:
                url = self._settings.account_url
                client = TableClient(url, table, credential=self._identity, **options)
        except ValueError:
            raise StoreError("The connection string of Azure Table storage is not understood.") from None
        return await stack.enter_async_context(client)

    def _milliseconds(self) -> int:
        return round(self._clock() * 1000)

    def _live(self, row: Row | None) -> TypeGuard[Row]:
        return row is not None and row["Ends"].value > self._milliseconds()

    def _times(self, ttl: float, keep: float = 0) -> dict[str, Any]:
        """Return when a row ends, and when it may be deleted: ``keep`` seconds later."""
        ends = self._clock() + ttl
        return {"Ends": long(round(ends * 1000)), "Expires": long(round((ends + keep) * 1000))}

    def _content(self, value: bytes, ttl: float) -> dict[str, Any]:
        check_value(value, self.max_value_bytes)
        return {**self._times(ttl), **split(value)}


def _busy() -> StoreError:
    return StoreError(f"A row in Azure Table storage was changed by others {ATTEMPTS} times in a row.")
