"""A store in one DynamoDB table: string key ``pk``, and DynamoDB's own time to live on ``expires``.

``ends`` (milliseconds) says when an item is over for its readers; ``expires`` (seconds) when DynamoDB may
delete it, which it does up to days later. Values, counters and leases have keys apart from each other. Times
are those of this machine's clock: instances disagree about an end by as much as their clocks do.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from firsttoken.errors import StoreError
from firsttoken.settings import DynamodbStore as Settings
from firsttoken.stores.clients import Clients
from firsttoken.stores.keys import MAX_NUMBER, check_number, check_value

POOL = 32
"""Connections at most; whoever finds none free waits, within the operation's time."""
BATCH = 100
"""Keys that DynamoDB takes in one BatchGetItem."""
PAUSE_SECONDS = 0.02
"""Up to so long, by chance, before keys that DynamoDB left out are asked for again."""
EPOCH_SECONDS = 86_400
"""A lease's epoch is remembered so long after its end."""
ROUNDS = 3
"""An expired counter begins anew in the second step of a round; another instance may have been faster."""

_LIVE = "ends > :now"
_SAME = "ends > :now AND body = :old"
_MINE = "ends > :now AND holder = :me"
_OVER = "ends <= :now"
_FREE = "attribute_not_exists(pk) OR ends <= :now"
_COUNTING = "attribute_not_exists(pk) OR (ends > :now AND tally BETWEEN :least AND :most)"
_COUNT = "SET ends = if_not_exists(ends, :ends), expires = if_not_exists(expires, :expires) ADD tally :amount"
_TAKE = "SET holder = :me, ends = :ends, expires = :expires, epoch = if_not_exists(epoch, :zero) + :one"
_RENEW = "SET ends = :ends, expires = :expires"
_RELEASE = "SET ends = :zero, expires = :expires REMOVE holder"

_TELL = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
_VALUE, _COUNTER, _LEASE = "v", "c", "l"

Item = dict[str, Any]
"""Attributes in DynamoDB's own form, such as ``{"tally": {"N": "1"}}``."""


class DynamodbStore:
    """Values, counters and leases as items of one table; ``clock`` is the time of day in Unix seconds.

    A value that is read alone is the newest: a job's worker may come before a copy of its record. Several at
    once are read at half the price, and may miss what was written in the last second. Up to `POOL`
    connections for each event loop, which `aclose` closes in that loop.
    """

    shared = True
    max_value_bytes = 380 * 1024

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._clients: Clients[Any] = Clients(self._opening)
        self._loader: Any = None
        """Has read the SDK's description of the service; made once."""

    async def open(self) -> None:
        """Open the client of this loop and find credentials; the first operation does so if need be.

        Once 0.25 s of CPU in a thread, and for each loop 10 ms. Raises StoreError.
        """
        await self._clients.get()

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None. Costs a read unit for each 4 KiB."""
        name = _name(key, _VALUE)
        async with self._operation() as client:
            answer = await client.get_item(TableName=self._settings.table, Key=name, ConsistentRead=True)
        item = answer.get("Item")
        return item["body"]["B"] if self._live(item) else None

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there: one round trip for each 100 keys and each 16 MB."""
        wanted = {f"{key}:{_VALUE}": key for key in keys}
        names = [{"pk": {"S": name}} for name in wanted]
        found: dict[str, bytes] = {}
        if not names:
            return found
        async with self._operation() as client:
            for start in range(0, len(names), BATCH):
                async for item in self._batch(client, names[start : start + BATCH]):
                    if self._live(item):
                        found[wanted[item["pk"]["S"]]] = item["body"]["B"]
        return found

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value. Costs one write unit for each KiB, as all writes do."""
        item = self._item(key, value, ttl)
        async with self._operation() as client:
            await client.put_item(TableName=self._settings.table, Item=item)

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write ``new`` where the value is ``old`` (None: where there is none); say whether it was."""
        item = self._item(key, new, ttl)
        condition, values = (_FREE, {}) if old is None else (_SAME, {":old": {"B": old}})
        async with self._operation() as client:
            done, _ = await self._write(client.put_item, condition, values, Item=item)
        return done

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value (only where it is ``old``, if given); say whether there was one."""
        name = _name(key, _VALUE)
        condition, values = (_LIVE, {}) if old is None else (_SAME, {":old": {"B": old}})
        async with self._operation() as client:
            done, _ = await self._write(client.delete_item, condition, values, Key=name)
        return done

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter: one write, two where an expired one begins anew. ValueError beyond 64 bits."""
        name, times, tally = _name(key, _COUNTER), self._times(ttl), _number(amount)
        limits = {
            ":least": _number(-MAX_NUMBER - 1 - min(amount, 0)),
            ":most": _number(MAX_NUMBER - max(amount, 0)),
        }
        values = {":amount": tally, ":ends": times["ends"], ":expires": times["expires"], **limits}
        update = {"Key": name, "UpdateExpression": _COUNT, "ReturnValues": "ALL_NEW", **_TELL}
        async with self._operation() as client:
            for _ in range(ROUNDS):
                done, answer = await self._write(client.update_item, _COUNTING, values, **update)
                if done:
                    return int(answer["Attributes"]["tally"]["N"])
                if self._live(answer.get("Item")):
                    check_number(int(answer["Item"]["tally"]["N"]) + amount)
                anew = {**name, **times, "tally": tally}
                done, _ = await self._write(client.put_item, _OVER, {}, Item=anew)
                if done:
                    return amount
        raise StoreError("A counter in DynamoDB ended again and again while it was added to.")

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take the lease or renew it; return its epoch. One write to take it or to be late, two to renew."""
        me, times = {"S": owner}, self._times(ttl, EPOCH_SECONDS)
        update = {"Key": _name(key, _LEASE), "ReturnValues": "ALL_NEW"}
        renew = {":me": me, ":ends": times["ends"], ":expires": times["expires"]}
        take = {**renew, ":zero": _number(0), ":one": _number(1)}
        async with self._operation() as client:
            done, answer = await self._write(
                client.update_item, _FREE, take, UpdateExpression=_TAKE, **update, **_TELL
            )
            if not done and answer.get("Item", {}).get("holder") == me:
                done, answer = await self._write(
                    client.update_item, _MINE, renew, UpdateExpression=_RENEW, **update
                )
        return int(answer["Attributes"]["epoch"]["N"]) if done else None

    async def release(self, key: str, owner: str) -> bool:
        """Give the lease back; say whether ``owner`` held it. Its epoch stays for a day."""
        expires = self._times(0, EPOCH_SECONDS)["expires"]
        values = {":me": {"S": owner}, ":zero": _number(0), ":expires": expires}
        update = {"Key": _name(key, _LEASE), "UpdateExpression": _RELEASE}
        async with self._operation() as client:
            done, _ = await self._write(client.update_item, _MINE, values, **update)
        return done

    async def purge(self) -> int:
        """Return 0: DynamoDB itself deletes what has expired."""
        return 0

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    async def _write(
        self, send: Callable[..., Awaitable[Item]], condition: str, values: Item, **fields: Any
    ) -> tuple[bool, Item]:
        """Send a conditional write. Where the condition does not hold, return False and what was said."""
        from botocore.exceptions import ClientError

        try:
            answer = await send(
                TableName=self._settings.table,
                ConditionExpression=condition,
                ExpressionAttributeValues={**values, ":now": _number(self._milliseconds())},
                **fields,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False, error.response
        return True, answer

    async def _batch(self, client: Any, names: list[Item]) -> AsyncIterator[Item]:
        """Read up to 100 items; what DynamoDB leaves out of an answer is asked for again."""
        pending: Item = {self._settings.table: {"Keys": names, "ProjectionExpression": "pk, body, ends"}}
        while True:
            answer = await client.batch_get_item(RequestItems=pending)
            for items in answer["Responses"].values():
                for item in items:
                    yield item
            pending = answer.get("UnprocessedKeys") or {}
            if not pending:
                return
            await asyncio.sleep(self._chance() * PAUSE_SECONDS)

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[Any]:
        """Give the client to one operation, and turn what goes wrong into a StoreError."""
        client = await self._clients.get()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield client
        except ClientError as error:
            raise StoreError(self._refusal(error.response["Error"]["Code"])) from error
        except BotoCoreError as error:
            raise StoreError(f"DynamoDB cannot be reached ({type(error).__name__}).") from error

    def _refusal(self, code: str) -> str:
        table = self._settings.table
        if code == "ResourceNotFoundException":
            return (
                f"There is no DynamoDB table {table!r} here; expected one with the string key pk:"
                " see `aws dynamodb create-table` in docs/stores.md."
            )
        return f"DynamoDB refused an operation on the table {table!r} ({code})."

    async def _opening(self, stack: AsyncExitStack) -> Any:
        if self._loader is None:
            self._loader = await asyncio.to_thread(_load)
        import aioboto3
        from aiobotocore.session import get_session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=self._settings.timeout,
            read_timeout=self._settings.timeout,
            max_pool_connections=POOL,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        # A session of its own: credentials that renew themselves belong to a loop too.
        base = get_session()
        base.register_component("data_loader", self._loader)
        try:
            session = aioboto3.Session(botocore_session=base, region_name=self._settings.region or None)
            client = session.client("dynamodb", endpoint_url=self._settings.endpoint or None, config=config)
            opened = await stack.enter_async_context(client)
            credentials = await base.get_credentials()
            if credentials is not None:
                await credentials.get_frozen_credentials()
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"DynamoDB cannot be opened ({type(error).__name__}).") from error
        if credentials is None:
            raise StoreError("DynamoDB cannot be opened: there are no AWS credentials here.")
        return opened

    def _milliseconds(self) -> int:
        return round(self._clock() * 1000)

    def _times(self, ttl: float, keep: float = 0) -> Item:
        """Return when an item ends, and when DynamoDB may delete it: ``keep`` seconds later."""
        ends = self._clock() + ttl
        return {"ends": _number(round(ends * 1000)), "expires": _number(math.ceil(ends + keep))}

    def _item(self, key: str, value: bytes, ttl: float) -> Item:
        check_value(value, self.max_value_bytes)
        return {**_name(key, _VALUE), **self._times(ttl), "body": {"B": value}}

    def _live(self, item: Item | None) -> bool:
        """Say whether an item is there and not over: DynamoDB shows such items until it deletes them."""
        return item is not None and int(item["ends"]["N"]) > self._milliseconds()


def _name(key: str, kind: str) -> Item:
    return {"pk": {"S": f"{key}:{kind}"}}


def _number(value: int) -> Item:
    return {"N": str(value)}


def _load() -> Any:
    """Import the SDK and read its description of the service; return what has read it."""
    import aioboto3  # noqa: F401
    from aiobotocore.session import get_session

    loader = get_session().get_component("data_loader")
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("dynamodb", name)
    loader.load_data_with_path("endpoints")
    return loader
