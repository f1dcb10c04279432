"""Entra tokens for the stores in Azure, kept until shortly before they end and fetched in a thread.

azure-identity's own asynchronous credentials would be one more client for each event loop, and asking some of
them takes longer than an operation may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

from firsttoken.errors import StoreError

MARGIN_SECONDS = 60.0
"""A token this near to its end is not used any more."""
AHEAD_SECONDS = 600.0
"""So long before its end the next one is fetched, while this one is still used."""


class Identity:
    """An asynchronous credential of azure-core, for one scope. Memory: one token."""

    def __init__(self, scope: str, clock: Callable[[], float] = time.time) -> None:
        self._scope = scope
        self._clock = clock
        self._credential: Any = None
        self._token: Any = None
        self._renewal: asyncio.Task[None] | None = None

    async def get_token(self, *_scopes: str, **_options: Any) -> Any:
        """Return a token. One that ends soon is renewed meanwhile, one that has ended is waited for.

        Raises StoreError without an identity.
        """
        left = self._token.expires_on - self._clock() if self._token else 0.0
        if left < MARGIN_SECONDS:
            # Who gives up waiting must not take the token away from the others.
            await asyncio.shield(self._renew())
        elif left < AHEAD_SECONDS:
            self._renew()
        return self._token

    async def close(self) -> None:
        """Do nothing: the credential serves every loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def _fetch(self) -> None:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        try:
            if self._credential is None:
                self._credential = DefaultAzureCredential()
            self._token = self._credential.get_token(self._scope)
        except (AzureError, ValueError) as error:  # ValueError: an environment that contradicts itself
            raise StoreError(f"No identity for Azure can be had ({type(error).__name__}).") from error

    def _renew(self) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        # A task of a loop that ended will never be done.
        if self._renewal is None or self._renewal.done() or self._renewal.get_loop() is not loop:
            self._renewal = loop.create_task(asyncio.to_thread(self._fetch))
            self._renewal.add_done_callback(_look_at)
        return self._renewal


def _look_at(task: asyncio.Task[None]) -> None:
    """Take notice of an error that nobody waits for: the token at hand is still good."""
    if not task.cancelled():
        task.exception()
