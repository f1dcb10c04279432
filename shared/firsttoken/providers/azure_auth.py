"""Entra tokens for Azure: found by azure-identity, kept until shortly before they expire.

The library is imported at the first call, not at a cold start, and works in a thread: it is synchronous. One
request for a token runs at a time, however many calls wait for it; while a token is still good, the next one
is fetched behind the back of the calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from firsttoken.errors import ConfigError, UpstreamAuthError
from firsttoken.providers.upstream import Authorize, Headers

MARGIN_SECONDS = 120.0
"""A token this near to its end is not used any more: it must still be good when the target reads it."""
AHEAD_SECONDS = 600.0
"""So long before that the next one is fetched, unless the issuer names a time."""
PAUSE_SECONDS = 30.0
"""After a token could not be fetched ahead, the next attempt waits so long."""


class Token(Struct, frozen=True):
    """A token and, in Unix seconds, when it ends and when the next one should be fetched."""

    value: str
    ends: float
    renew: float


Fetch = Callable[[], Token]
"""Fetches a token, synchronously. Raises UpstreamAuthError."""


class Tokens:
    """The current token of one scope. Memory: one token."""

    def __init__(self, fetch: Fetch, now: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._now = now
        self._token: Token | None = None
        self._not_before = 0.0
        self._pending: asyncio.Task[Token] | None = None

    async def get(self) -> str:
        """Return a token that is good for some time. Raises UpstreamAuthError."""
        token, now = self._token, self._now()
        if token is None or now >= token.ends - MARGIN_SECONDS:
            # Who gives up waiting must not take the token away from the others.
            return (await asyncio.shield(self._renew())).value
        if now >= token.renew and now >= self._not_before:
            self._renew()
        return token.value

    def forget(self) -> None:
        """Drop the token, because the target did not take it."""
        self._token = None

    def _renew(self) -> asyncio.Task[Token]:
        loop = asyncio.get_running_loop()
        # A task of a loop that ended will never be done.
        if self._pending is None or self._pending.done() or self._pending.get_loop() is not loop:
            self._pending = loop.create_task(self._fetched())
            self._pending.add_done_callback(_look_at)
        return self._pending

    async def _fetched(self) -> Token:
        self._not_before = self._now() + PAUSE_SECONDS
        self._token = await asyncio.to_thread(self._fetch)
        self._not_before = 0.0
        return self._token


def _look_at(task: asyncio.Task[Token]) -> None:
    """Take notice of an error that nobody waits for: the token at hand is still good."""
    if not task.cancelled():
        task.exception()


class _Identity:
    """Fetches tokens with azure-identity; keeps its credential, which knows what worked."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._credential: Any = None

    def __call__(self) -> Token:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        try:
            if self._credential is None:
                self._credential = DefaultAzureCredential()
            found = self._credential.get_token_info(self._scope)
        except (AzureError, ValueError) as error:  # ValueError: an environment that contradicts itself
            raise UpstreamAuthError("This endpoint could not get a token for the target.") from error
        renew = found.refresh_on or found.expires_on - MARGIN_SECONDS - AHEAD_SECONDS
        return Token(found.token, found.expires_on, renew)


def identity(scope: str, where: str) -> Tokens:
    """Return the tokens that azure-identity finds. Raises ConfigError when it is not installed."""
    # Only the namespace is imported by this question, not the library.
    if find_spec("azure") is None or find_spec("azure.identity") is None:
        raise ConfigError(f"{where}: without an API key this needs azure-identity, see firsttoken[azure]")
    return Tokens(_Identity(scope))


def entra(tokens: Tokens) -> Authorize:
    """Return what adds a token to a request."""

    async def authorize(_url: str, headers: Headers, _body: bytes) -> Headers:
        return [*headers, ("authorization", f"Bearer {await tokens.get()}")]

    return authorize
