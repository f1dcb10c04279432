"""Google Cloud's JSON APIs over our own HTTP client: tokens, a limit of time, further tries where they help.

Tokens go over TLS only: an endpoint with ``http://``, a local emulator, is asked without one.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from random import Random

from msgspec import Struct

from firsttoken.errors import ConfigError, DeadlineError, RequestError, UpstreamError
from firsttoken.providers.google_auth import tokens
from firsttoken.providers.http import HttpClient, Timeouts

TOTAL_SECONDS = 15.0
"""For a call with all its tries."""
TRIES = 4
FIRST_DELAY = 0.2
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_TIMEOUTS = Timeouts(connect=3.0, first_byte=10.0, gap=10.0)


class Answer(Struct, frozen=True):
    """What the API said; the last try's, if that did not succeed either."""

    status: int
    body: bytes

    def __str__(self) -> str:
        return f"status {self.status}: {self.body[:500].decode(errors='replace')}"


class GoogleApi:
    """One API at ``endpoint``, for any number of calls at once; ``delay`` is the first one between tries.

    Raises ConfigError, naming ``setting``, where the library for tokens is needed and missing.
    """

    def __init__(
        self,
        client: HttpClient,
        endpoint: str,
        *,
        setting: str,
        delay: float = FIRST_DELAY,
        rng: Random | None = None,
    ) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")
        self._delay = delay
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._tokens = tokens() if endpoint.startswith("https://") else None
        if self._tokens and (find_spec("google") is None or find_spec("google.auth") is None):
            raise ConfigError(f"{setting}: needs google-auth: install 'firsttoken[gcp]'")

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        limit: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Send a request, which may arrive twice, and return the answer, of at most ``limit`` bytes.

        408, 429, 5xx and broken connections are tried again, `TRIES` times in all, after a jittered delay
        that doubles. Raises an UpstreamError where no answer came, a DeadlineError after `TOTAL_SECONDS`, a
        RequestError for what cannot be sent and for a larger answer.
        """
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                for failures in range(TRIES - 1):
                    try:
                        answer = await self._once(method, path, body, content_type, limit)
                    except UpstreamError as error:
                        if not error.retryable:
                            raise
                    else:
                        if not (answer.status in (408, 429) or answer.status >= 500):
                            return answer
                    await asyncio.sleep(self._rng.uniform(0.5, 1) * self._delay * 2**failures)
                return await self._once(method, path, body, content_type, limit)
        except TimeoutError as error:
            raise DeadlineError(f"There was no answer within {TOTAL_SECONDS:.0f} s.") from error

    async def _once(self, method: str, path: str, body: bytes, content_type: str, limit: int) -> Answer:
        headers = [("content-type", content_type)] if body else []
        if self._tokens:
            headers += await self._tokens.headers()
        response = await self._client.request(
            method, self._endpoint + path, headers=headers, body=body, timeouts=_TIMEOUTS
        )
        if int(response.headers.get("content-length", 0)) > limit:
            response.close()
            raise RequestError(f"The answer is larger than {limit} bytes.")
        return Answer(response.status, await response.read(limit))
