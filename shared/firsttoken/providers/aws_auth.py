"""Requests to AWS, signed with Signature Version 4 by botocore over the pooled client (docs/adr/0004).

botocore is imported at the first request, in a thread, as is done with everything of it that may block: 60 to
80 ms of CPU, once. Credentials are found as AWS's own tools find them, and are renewed ahead of their end.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from firsttoken.errors import UpstreamAuthError
from firsttoken.providers.upstream import Headers

MUST_RENEW_SECONDS = 60.0
"""Requests wait for new credentials only when the old ones end so soon; before, they go on meanwhile."""


class Credentials(Protocol):
    """What botocore calls frozen credentials: key, secret and token that belong together."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs requests to one service in one region: a `firsttoken.providers.upstream.Authorize`.

    However many requests wait for credentials, they are fetched once.
    """

    def __init__(self, service: str, region: str) -> None:
        self._scope = service, region
        self._found: Any = None
        """botocore's credentials: some know when they end, and how to renew themselves."""
        self._current: Credentials | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def __call__(self, url: str, headers: Headers, body: bytes) -> Headers:
        """Return ``headers`` with a signature of a POST. Raises UpstreamAuthError without credentials."""
        return sign(await self._credentials(), self._scope, url, headers, body)

    async def _credentials(self) -> Credentials:
        current = self._current
        if current is None or self._ends_in(MUST_RENEW_SECONDS):
            await asyncio.shield(self._renew())
            current = self._current
        elif self._ends_in(None):
            self._renew()
        if current is None:
            raise UpstreamAuthError("This endpoint has no AWS credentials for its target.")
        return current

    def _ends_in(self, seconds: float | None) -> bool:
        """Whether the credentials end that soon; None asks for botocore's own limit (15 minutes)."""
        renewable = getattr(self._found, "refresh_needed", None)
        return renewable is not None and renewable(seconds)

    def _renew(self) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._load())
            self._renewal.add_done_callback(_note)
        return self._renewal

    async def _load(self) -> None:
        self._found, self._current = await asyncio.to_thread(_find, self._found)


def _note(task: asyncio.Task[None]) -> None:
    """Take the error of a renewal that nobody waits for: while the old credentials last, they are used."""
    if not task.cancelled():
        task.exception()


def _find(found: Any) -> tuple[Any, Credentials | None]:
    """Return botocore's credentials, and what they are now. May ask the network, so it runs in a thread.

    Raises UpstreamAuthError.
    """
    from botocore import auth, awsrequest  # noqa: F401 - so that signing need not import them on the loop
    from botocore.credentials import EnvProvider
    from botocore.exceptions import BotoCoreError

    try:
        # First in botocore's own order, and all that Lambda has: a session would cost 20 ms of CPU more.
        found = found or EnvProvider().load()
        if found is None:
            from botocore.session import get_session

            found = get_session().get_credentials()
        return found, found and found.get_frozen_credentials()
    except (BotoCoreError, OSError, RuntimeError) as error:
        message = f"This endpoint's AWS credentials cannot be had ({type(error).__name__})."
        raise UpstreamAuthError(message) from error


def sign(
    credentials: Credentials, scope: tuple[str, str], url: str, headers: Headers, body: bytes
) -> Headers:
    """Return the headers of a POST with its signature, all of them signed, for a service in a region."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("POST", url, headers=dict(headers), data=body)
    SigV4Auth(credentials, *scope).add_auth(request)
    return list(request.headers.items())
