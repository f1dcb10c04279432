"""Stores of two clouds on local servers that can be killed: DynamoDB by moto, Table storage by Azurite."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from typing import Any

from firsttoken.bench.child import HOST, Child
from tests.emulators.azurite import running_azurite

_REGION = "eu-central-1"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


class _Moto(Child):
    """Moto's server of all AWS services."""

    def command(self) -> list[str]:
        """Return the command that serves on `port`."""
        return [sys.executable, "-m", "moto.server", "--host", HOST, "--port", str(self.port)]


class Dynamodb:
    """A table in moto's DynamoDB."""

    def __init__(self) -> None:
        self._server = _Moto("moto")

    def start(self) -> dict[str, Any]:
        """Start the server and make the table."""
        os.environ.update(_CREDENTIALS)  # the gateway inherits them
        self._server.start()
        self._make_table()
        return {"kind": "dynamodb", "endpoint": self._server.url, "region": _REGION}

    def break_(self, _how: str) -> None:
        """Kill the server."""
        self._server.kill()

    def mend(self) -> None:
        """Start it again, with an empty table."""
        self._server.start()
        self._make_table()

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _make_table(self) -> None:
        import boto3

        with closing(boto3.client("dynamodb", endpoint_url=self._server.url, region_name=_REGION)) as client:
            client.create_table(
                TableName="firsttoken",
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )


class Tables:
    """A table in Azurite. Once killed it stays away."""

    def __init__(self) -> None:
        self._server = ExitStack()

    def start(self) -> dict[str, Any]:
        """Start the server and make the table."""
        from azure.data.tables import TableServiceClient

        connection = self._server.enter_context(running_azurite())
        with TableServiceClient.from_connection_string(connection) as service:
            service.create_table("firsttoken")
        return {"kind": "tables", "connection": connection}

    def break_(self, _how: str) -> None:
        """Kill the server."""
        self._server.close()

    def mend(self) -> None:
        """Leave it as it is."""

    def stop(self) -> None:
        """Stop the server."""
        self._server.close()
