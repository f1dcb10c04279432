"""Google's JSON APIs: what is tried again, for how long, and where tokens go."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsttoken.errors import (
    ConfigError,
    DeadlineError,
    RequestError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamError,
)
from firsttoken.providers import google_api
from firsttoken.providers.google_api import TOTAL_SECONDS, TRIES, Answer, GoogleApi
from tests.virtual_time import run


class Client:
    """Answers what it was told, one after the other; the last one stays."""

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.headers: list[Any] = []

    async def request(self, *_: Any, headers: Any, **_more: Any) -> Any:
        self.times.append(asyncio.get_running_loop().time())
        self.headers.append(headers)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        return SimpleNamespace(status=answer, headers={"content-length": "4"}, read=self._read, close=int)

    async def _read(self, _limit: int) -> bytes:
        return b"body"


def api(client: Client, endpoint: str = "http://127.0.0.1:1") -> GoogleApi:
    return GoogleApi(client, endpoint, setting="queue.kind", rng=Random(1))  # type: ignore[arg-type]


BROKEN = UpstreamConnectError("away")


@pytest.mark.parametrize(
    ("answers", "status", "tries"),
    [
        ([200], 200, 1),
        ([404], 404, 1),
        ([503, 200], 200, 2),
        ([429, BROKEN, 408, 200], 200, 4),
        ([500], 500, TRIES),
    ],
)
def test_only_what_may_pass_is_tried_again(answers: list[Any], status: int, tries: int) -> None:
    """The answer is the first that is final, or the last one."""
    client = Client(*answers)
    assert run(api(client).call("POST", "/x")) == Answer(status, b"body")
    assert len(client.times) == tries


@pytest.mark.parametrize(("error", "tries"), [(BROKEN, TRIES), (UpstreamAuthError("no"), 1)])
def test_no_answer_is_an_upstream_error(error: UpstreamError, tries: int) -> None:
    """Broken connections are tried again, refused credentials are not."""
    client = Client(error)
    with pytest.raises(type(error)):
        run(api(client).call("POST", "/x"))
    assert len(client.times) == tries


def test_delays_double_with_jitter() -> None:
    """Between tries passes half to all of 0.2, 0.4 and 0.8 s."""
    client = Client(503)
    run(api(client).call("POST", "/x"))
    gaps = [later - sooner for sooner, later in zip(client.times, client.times[1:], strict=False)]
    for gap, longest in zip(gaps, (0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= gap <= longest


def test_all_tries_have_one_limit() -> None:
    """However slow the service is, the call ends."""

    async def main() -> float:
        with pytest.raises(DeadlineError):
            await api(Client(60.0)).call("POST", "/x")
        return asyncio.get_running_loop().time()

    assert run(main()) == TOTAL_SECONDS


def test_a_larger_answer_than_wanted_is_refused() -> None:
    """It is not read, and not asked for again."""
    client = Client(200)
    with pytest.raises(RequestError, match="larger than 3 bytes"):
        run(api(client).call("GET", "/x", limit=3))
    assert len(client.times) == 1


@pytest.mark.parametrize(
    ("endpoint", "has_token"), [("https://pubsub.googleapis.com", True), ("http://127.0.0.1:8085", False)]
)
def test_tokens_go_over_tls_only(monkeypatch: pytest.MonkeyPatch, endpoint: str, has_token: bool) -> None:
    """An emulator gets no token, Google does."""

    async def headers() -> list[tuple[str, str]]:
        return [("authorization", "Bearer token")]

    monkeypatch.setattr(google_api, "tokens", lambda: SimpleNamespace(headers=headers))
    client = Client(200)
    run(api(client, endpoint).call("POST", "/x", b"{}"))
    assert (("authorization", "Bearer token") in client.headers[0]) == has_token


def test_a_missing_library_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting and the extra to install."""
    monkeypatch.setattr(google_api, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"queue\.kind.*firsttoken\[gcp\]"):
        api(Client(200), "https://pubsub.googleapis.com")
