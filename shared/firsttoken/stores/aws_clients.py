"""Clients of one AWS service, one for each event loop, and what becomes of their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from firsttoken.errors import FirstTokenError
from firsttoken.stores.clients import Clients

POOL = 32
"""Connections at most for each loop; whoever finds none free waits, within the operation's time."""
CONNECT_SECONDS = 5.0
ATTEMPTS = 3
"""Of a request that failed in passing; the SDK pauses between them."""


class RefusedError(FirstTokenError):
    """The service refused an operation; ``code`` is its own. Seen by the module that asked, nobody else."""


class AwsClients:
    """Gives an aioboto3 client to each operation; ``error`` is raised where there is none, or it fails.

    The first use costs 0.2 s of CPU in a thread (the SDK and its description of the service), and 10 ms for
    each loop. ``read_timeout``: seconds without a byte of an answer.
    """

    def __init__(
        self,
        service: str,
        *,
        region: str,
        endpoint: str,
        error: type[FirstTokenError],
        read_timeout: float,
    ) -> None:
        self._service = service
        self._region = region
        self._endpoint = endpoint
        self._error = error
        self._read_timeout = read_timeout
        self._clients: Clients[Any] = Clients(self._opening)
        self._loader: Any = None
        """Has read the SDK's description of the service; made once."""

    @asynccontextmanager
    async def operation(self, seconds: float, expected: Collection[str] = ()) -> AsyncIterator[Any]:
        """Give the client to an operation that may take ``seconds``, opening included.

        A refusal whose code is ``expected`` is a RefusedError with that code, everything else that goes
        wrong is the service's error.
        """
        title = self._service.upper()
        try:
            async with asyncio.timeout(seconds):
                client = await self._clients.get()
                async with self._translated(expected):
                    yield client
        except TimeoutError as error:
            raise self._error(f"{title} did not answer within {seconds:g} s.") from error

    async def aclose(self) -> None:
        """Close the connections of the running loop. The next use opens others."""
        await self._clients.aclose()

    @asynccontextmanager
    async def _translated(self, expected: Collection[str]) -> AsyncIterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        title = self._service.upper()
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in expected:
                raise RefusedError(f"{title} refused an operation ({code}).", code=code) from error
            raise self._error(f"{title} refused an operation ({code}).") from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._error(f"{title} cannot be reached ({type(error).__name__}).") from error

    async def _opening(self, stack: AsyncExitStack) -> Any:
        if self._loader is None:
            self._loader = await asyncio.to_thread(_load, self._service)
        import aioboto3
        from aiobotocore.session import get_session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=self._read_timeout,
            max_pool_connections=POOL,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        title = self._service.upper()
        # A session of its own: credentials that renew themselves belong to a loop too.
        base = get_session()
        base.register_component("data_loader", self._loader)
        try:
            session = aioboto3.Session(botocore_session=base, region_name=self._region or None)
            client = session.client(self._service, endpoint_url=self._endpoint or None, config=config)
            opened = await stack.enter_async_context(client)
            credentials = await base.get_credentials()
            if credentials is not None:
                await credentials.get_frozen_credentials()
        except (BotoCoreError, ValueError) as error:
            raise self._error(f"{title} cannot be opened ({type(error).__name__}).") from error
        if credentials is None:
            raise self._error(f"{title} cannot be opened: there are no AWS credentials here.")
        return opened


def _load(service: str) -> Any:
    """Import the SDK and read its description of the service; return what has read it."""
    import aioboto3  # noqa: F401
    from aiobotocore.session import get_session

    loader = get_session().get_component("data_loader")
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, name)
    loader.load_data_with_path("endpoints")
    return loader
