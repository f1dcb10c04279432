"""Objects in Cloud Storage, as the fake of it beside this file speaks its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from firsttoken.objects import Objects, create_objects
from firsttoken.objects.gcs import GcsObjects as Gcs
from firsttoken.providers.google_api import GoogleApi
from firsttoken.providers.http import HttpClient
from firsttoken.settings import GcsObjects
from firsttoken.stores import Store
from tests.objects.fake_gcs import FakeGcs
from tests.objects.kinds import Kind

NO_STORE = cast("Store", None)


def objects_at(url: str, client: HttpClient, **settings: Any) -> Objects:
    """Objects that do not wait between tries."""
    return Gcs(GcsObjects(bucket="bucket", **settings), GoogleApi(client, url, setting="", delay=0.0))


@asynccontextmanager
async def opened(_directory: Path) -> AsyncIterator[Objects]:
    client = HttpClient()
    async with FakeGcs("bucket").running() as server:
        try:
            yield create_objects(GcsObjects(bucket="bucket", endpoint=server.url), client, NO_STORE)
        finally:
            await client.aclose()


def unreachable(_directory: Path) -> Objects:
    return objects_at("http://127.0.0.1:1", HttpClient())


KINDS = [Kind("gcs", opened, unreachable)]
