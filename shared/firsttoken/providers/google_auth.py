"""Access tokens of Google Cloud: a given one, or application-default credentials through ``google-auth``.

The library is imported, and blocks, in a thread when the first token is needed: 80 ms of CPU, once. One
refresh serves all calls that wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from firsttoken.errors import ConfigError, UpstreamAuthError, UpstreamConnectError

if TYPE_CHECKING:
    from firsttoken.providers.upstream import Authorize, Headers

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
AHEAD_SECONDS = 300.0
"""A token is refreshed so long before it expires; the metadata server renews its own then, too."""
AGAIN_SECONDS = 30.0
"""So long after a refresh that brought no fresher token, or failed, the one that is still valid serves."""
TIMEOUT_SECONDS = 10.0
_UNKNOWN_LIFETIME = 3600.0


class Tokens:
    """The access tokens of one set of credentials. Memory: one token; one refresh at a time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._credentials: Any = None
        self._token = ""
        self._expires = 0.0
        self._quota_project = ""
        self._next = 0.0
        self._refresh: asyncio.Task[None] | None = None

    async def headers(self) -> Headers:
        """Return the headers that authenticate a request.

        Raises UpstreamAuthError without valid credentials, UpstreamConnectError when Google's token service
        cannot be reached.
        """
        now = self._clock()
        if now >= self._expires or now >= max(self._expires - AHEAD_SECONDS, self._next):
            await self._refreshed(still_valid=now < self._expires)
        headers = [("authorization", f"Bearer {self._token}")]
        return [*headers, ("x-goog-user-project", self._quota_project)] if self._quota_project else headers

    async def _refreshed(self, *, still_valid: bool) -> None:
        loop = asyncio.get_running_loop()
        task = self._refresh
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._refresh = loop.create_task(self._load())
            task.add_done_callback(_retrieve)
        try:
            await asyncio.shield(task)  # who leaves must not stop the others' refresh
        except (UpstreamAuthError, UpstreamConnectError):
            if not still_valid:
                raise
            self._next = self._clock() + AGAIN_SECONDS

    async def _load(self) -> None:
        token, expires, self._quota_project = await asyncio.to_thread(self._fetch)
        self._token, self._expires = token, expires
        self._next = self._clock() + AGAIN_SECONDS

    def _fetch(self) -> tuple[str, float, str]:
        from datetime import UTC

        from google.auth import default
        from google.auth.exceptions import GoogleAuthError, TransportError

        request = _request()
        try:
            if self._credentials is None:
                self._credentials, _ = default(scopes=[SCOPE], request=request)
            self._credentials.refresh(request)
        except TransportError as error:
            raise UpstreamConnectError("Google's token service cannot be reached.") from error
        except GoogleAuthError as error:
            raise UpstreamAuthError("This endpoint has no valid Google credentials.") from error
        expiry = self._credentials.expiry
        expires = expiry.replace(tzinfo=UTC).timestamp() if expiry else self._clock() + _UNKNOWN_LIFETIME
        return str(self._credentials.token), expires, self._credentials.quota_project_id or ""


def authorize(name: str) -> Authorize:
    """Return what adds an access token of the application-default credentials.

    Raises ConfigError when the library is not installed.
    """
    if find_spec("google") is None or find_spec("google.auth") is None:
        raise ConfigError(f"providers.{name}: expected an api_key, or google-auth: install 'firsttoken[gcp]'")
    shared = tokens()

    async def add(_url: str, headers: Headers, _body: bytes) -> Headers:
        return [*headers, *await shared.headers()]

    return add


@cache
def tokens() -> Tokens:
    """Return the tokens of this process: application-default credentials are the same for all providers."""
    return Tokens()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at a task's failure, so that the loop does not report one that nobody waited for."""
    if not task.cancelled():
        task.exception()


def _request() -> Any:
    """Return google-auth's HTTP client with a limit of time of our own; its default is two minutes."""
    from google.auth.transport.requests import Request

    class Limited(Request):
        def __call__(
            self,
            url: str,
            method: str = "GET",
            body: Any = None,
            headers: Any = None,
            timeout: Any = TIMEOUT_SECONDS,
            **more: Any,
        ) -> Any:
            ask: Any = super().__call__
            return ask(url, method, body, headers, timeout, **more)

    return Limited()


__all__ = ["Tokens", "authorize", "tokens"]
