"""Objects in Azure Blob storage, on Azurite."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firsttoken.objects import Objects
from firsttoken.objects.blob import BlobObjects
from firsttoken.providers.http import HttpClient
from firsttoken.settings import BlobObjects as Settings
from tests.objects.kinds import Kind
from tests.stores.cloud import tables_connection

AWAY = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a2V5;"
    "BlobEndpoint=http://127.0.0.1:9/devstoreaccount1;"
)


@asynccontextmanager
async def opened(_directory: Path) -> AsyncIterator[Objects]:
    client = HttpClient()
    settings = Settings(container=f"test-{uuid.uuid4().hex}", connection=tables_connection())
    try:
        yield BlobObjects(settings, client)
    finally:
        await client.aclose()


def unreachable(_directory: Path) -> Objects:
    return BlobObjects(Settings(connection=AWAY), HttpClient())


KINDS = [Kind("blob", opened, unreachable)]
