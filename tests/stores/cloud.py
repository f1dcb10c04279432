"""Stores of two clouds on local servers: DynamoDB by moto, Azure Table storage by Azurite.

Each server starts at its first use and is shared by all tests of the process; each store gets a fresh table.
The settings are plain values: a child process that gets them opens a store on the same table.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import cache
from threading import Lock
from typing import Any
from unittest.mock import patch

import boto3
from azure.data.tables import TableServiceClient
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from firsttoken.settings import stores as settings
from firsttoken.stores.store import Store
from tests.emulators.azurite import running_azurite

REGION = "eu-central-1"
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
"""The environment that a process needs for a store on `dynamodb_endpoint`."""
PATIENCE = 20.0
"""Seconds that an operation may take where the test does not say: the machine may be busy."""


class _Serial(ThreadedMotoServer):
    """Moto, one request at a time: DynamoDB checks and writes in one step, moto's threads do not."""

    def _server_entry(self) -> None:
        app, turn = DomainDispatcherApplication(create_backend_app), Lock()

        def serial(environ: Any, start_response: Any) -> Any:
            with turn:
                return app(environ, start_response)

        options = {"threaded": True, "request_handler": MotoRequestHandler}
        self._server = make_server(self._ip_address, self._port, serial, **options)
        self._server_ready_event.set()
        self._server.serve_forever()
        self._server.server_close()


@cache
def dynamodb_endpoint() -> str:
    """Return the URL of the DynamoDB of this process; it is started once and stopped at exit."""
    server = _Serial(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def dynamodb_settings(**given: Any) -> settings.DynamodbStore:
    """Return the settings of a store: a fresh table, unless ``table`` names one."""
    place = {"endpoint": dynamodb_endpoint(), "region": REGION}
    if "table" not in given:
        given["table"] = _name()
        client = boto3.client(
            "dynamodb",
            endpoint_url=place["endpoint"],
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        with closing(client):
            client.create_table(
                TableName=given["table"],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
    return settings.DynamodbStore(**{"timeout": PATIENCE, **place, **given})


@asynccontextmanager
async def dynamodb_store(clock: Callable[[], float] = time.time, **given: Any) -> AsyncIterator[Store]:
    """Open a store on a fresh table, or on the one that ``table`` names; ``clock`` is its time of day."""
    from firsttoken.stores.dynamodb import DynamodbStore

    with patch.dict(os.environ, AWS):
        store = DynamodbStore(dynamodb_settings(**given), clock=clock)
        try:
            yield store
        finally:
            await store.aclose()


@cache
def tables_connection() -> str:
    """Return the connection string of the Table storage of this process, started once, stopped at exit."""
    azurite = running_azurite()
    connection = azurite.__enter__()
    atexit.register(azurite.__exit__, None, None, None)
    return connection


def tables_settings(**given: Any) -> settings.TablesStore:
    """Return the settings of a store: a fresh table, unless ``table`` names one."""
    connection = tables_connection()
    if "table" not in given:
        given["table"] = _name()
        with TableServiceClient.from_connection_string(connection) as client:
            client.create_table(given["table"])
    return settings.TablesStore(**{"timeout": PATIENCE, "connection": connection, **given})


@asynccontextmanager
async def tables_store(
    clock: Callable[[], float] = time.time, chance: Callable[[], float] = random.random, **given: Any
) -> AsyncIterator[Store]:
    """Open a store on a fresh table, or on the one that ``table`` names; ``clock`` is its time of day."""
    from firsttoken.stores.tables import TablesStore

    store = TablesStore(tables_settings(**given), clock=clock, chance=chance)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def refusing(status: str, head: str = "", body: str = "") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer every request with one refusal; gives the URL and the request lines that came."""
    requests: list[bytes] = []
    answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{head}\r\n{body}".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                requests.append(request.partition(b"\r\n")[0])
                size = re.search(rb"(?i)\ncontent-length: *(\d+)", request)
                await reader.readexactly(int(size[1]) if size else 0)
                writer.write(answer)
                await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", requests


def _name() -> str:
    return f"t{uuid.uuid4().hex}"
