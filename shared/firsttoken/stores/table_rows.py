"""Rows of Azure Table storage: their keys, values in several properties, and writes that mind the ETag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import quote

PART_BYTES = 64 * 1024
"""Of one binary property; a value takes as many as it needs."""
PARTS = 11
"""A row has room for 15, but they travel as base64: with more, a request would be larger than 1 MiB."""
MAX_BYTES = PARTS * PART_BYTES
MAX_PARTITION = 400
"""Characters of a key that are kept; the service takes 512."""
PARALLEL = 16
"""Requests under way at once for one operation."""

T = TypeVar("T")
Row = Mapping[str, Any]
"""A TableEntity, or what is to become one."""


def split(value: bytes) -> dict[str, bytes]:
    """Return a value as properties: none for an empty one."""
    parts = [value[start : start + PART_BYTES] for start in range(0, len(value), PART_BYTES)]
    return {f"D{number}": part for number, part in enumerate(parts)}


def join(row: Row) -> bytes:
    """Return the value of a row."""
    parts = [f"D{number}" for number in range(PARTS)]
    return b"".join([row[part] for part in parts if part in row])


def long(value: int) -> tuple[int, str]:
    """Return a number of 64 bits as a property; Python's own are sent with 32."""
    return value, "Edm.Int64"


def name_of(key: str, kind: str) -> Row:
    """Return what identifies the row of a key."""
    return {"PartitionKey": escape(key), "RowKey": kind}


def escape(text: str) -> str:
    """Return a text without what a key may not contain: a long one as its beginning and a hash."""
    escaped = quote(text, safe=":").replace("_", "%5F").replace("%", "_")
    if len(escaped) <= MAX_PARTITION:
        return escaped
    return escaped[:MAX_PARTITION] + sha256(text.encode()).hexdigest()


def code_of(error: Any) -> str:
    """Return the service's own word for an error; not all that the SDK raises carry it in the same place."""
    code = getattr(error, "error_code", None) or error.response.headers.get("x-ms-error-code") or ""
    return str(getattr(code, "value", code))


async def read(client: Any, name: Row) -> Row | None:
    """Return a row with its ETag, or None, in one request."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        row: Row = await client.get_entity(name["PartitionKey"], name["RowKey"])
    except ResourceNotFoundError as error:
        if code_of(error) == "TableNotFound":
            raise
        return None
    return row


async def write(client: Any, new: Row, old: Any) -> bool:
    """Write a row where ``old`` still is (None: where there is none); say whether it was."""
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError

    try:
        if old is None:
            await client.create_entity(new, response_preference="return-no-content")
        else:
            etag = old.metadata["etag"]
            await client.update_entity(
                new, mode="replace", etag=etag, match_condition=MatchConditions.IfNotModified
            )
    except HttpResponseError as error:
        if error.status_code == 412 or code_of(error) in ("EntityAlreadyExists", "ResourceNotFound"):
            return False
        raise
    return True


async def delete(client: Any, row: Any) -> bool:
    """Delete a row if it is unchanged; say whether it was there."""
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError

    statuses: list[int] = []
    try:
        await client.delete_entity(
            row["PartitionKey"],
            row["RowKey"],
            etag=row.metadata["etag"],
            match_condition=MatchConditions.IfNotModified,
            # The SDK keeps to itself that there was nothing to delete.
            raw_response_hook=lambda answer: statuses.append(answer.http_response.status_code),
        )
    except HttpResponseError as error:
        if error.status_code != 412:
            raise
        return False
    return statuses[-1] != 404


async def parallel(jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do all jobs, `PARALLEL` at a time; the first error stops the others."""
    slots = asyncio.Semaphore(PARALLEL)

    async def work(job: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await job()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(job)) for job in jobs]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
