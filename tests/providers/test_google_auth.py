"""Google's access tokens: application-default credentials against token services on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.compute_engine import _metadata

from firsttoken.errors import ConfigError, UpstreamAuthError, UpstreamConnectError
from firsttoken.providers import google_auth
from firsttoken.providers.google_auth import Tokens, authorize


class TokenService(ThreadingHTTPServer):
    """The metadata server and the token endpoint of OAuth in one. Each token has its number in its name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.lifetime = 3600
        self.status = 200
        self.gate = Event()
        """Tokens wait for it."""
        self.gate.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def tokens(self) -> int:
        """Return how many tokens were asked for."""
        return sum(path.startswith("/token") or "/token?" in path for path in self.paths)


class _Handler(BaseHTTPRequestHandler):
    server: TokenService

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if "/token" in self.path:
            self._token()
        elif "/service-accounts/" in self.path:
            self._answer({"email": "robot@example.com", "scopes": ["x"], "aliases": ["default"]})
        else:
            self._answer("project")

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.forms.append(parse_qs(body.decode()))
        self._token()

    def _token(self) -> None:
        self.server.gate.wait(10)
        number = self.server.tokens()
        said = {"access_token": f"token-{number}", "expires_in": self.server.lifetime, "token_type": "Bearer"}
        self._answer(said if self.server.status == 200 else {"error": "invalid_grant"}, self.server.status)

    def _answer(self, said: Any, status: int = 200) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("metadata-flavor", "Google")
        self.send_header("content-type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[TokenService]:
    server = TokenService()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without any credentials of the machine that runs the tests."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)


@pytest.fixture
def on_google(service: TokenService, monkeypatch: pytest.MonkeyPatch) -> TokenService:
    """Let the metadata server be the only source of credentials; the library reads its address on import."""
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.setenv("GCE_METADATA_HOST", service.address)
    monkeypatch.setenv("GCE_METADATA_IP", service.address)
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", service.address)
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", False)
    return service


@pytest.fixture
def with_account(service: TokenService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TokenService:
    """Let a service account's file be the source of credentials."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": "robot@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"http://{service.address}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return service


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def bearer(headers: list[tuple[str, str]]) -> str:
    return dict(headers)["authorization"]


def test_the_metadata_server_gives_tokens(on_google: TokenService) -> None:
    """On Google's own machines nothing needs to be configured."""
    assert asyncio.run(Tokens().headers()) == [("authorization", "Bearer token-1")]
    assert any("service-accounts" in path for path in on_google.paths)


def test_a_service_account_s_file(with_account: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed assertion is exchanged for a token; the project that pays is named in a header."""
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    headers = asyncio.run(Tokens().headers())
    assert headers == [("authorization", "Bearer token-1"), ("x-goog-user-project", "payer")]
    (form,) = with_account.forms
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert form["assertion"][0].count(".") == 2


def test_one_refresh_serves_all_who_wait(with_account: TokenService) -> None:
    """A token is fetched once, kept, and not fetched again for the next loop either."""
    tokens = Tokens()

    async def run() -> set[str]:
        return {bearer(headers) for headers in await asyncio.gather(*[tokens.headers() for _ in range(20)])}

    assert asyncio.run(run()) == {"Bearer token-1"}
    assert asyncio.run(run()) == {"Bearer token-1"}
    assert with_account.tokens() == 1


def test_who_leaves_does_not_stop_the_refresh(with_account: TokenService) -> None:
    """The call that began a refresh may be cancelled; the others get the token."""
    tokens = Tokens()
    with_account.gate.clear()

    async def run() -> str:
        first = asyncio.create_task(tokens.headers())
        await asyncio.sleep(0)
        second = asyncio.create_task(tokens.headers())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with_account.gate.set()
        return bearer(await second)

    assert asyncio.run(run()) == "Bearer token-1"
    assert with_account.tokens() == 1


def test_tokens_are_renewed_ahead(with_account: TokenService) -> None:
    """Five minutes before its end a token is renewed; until then it serves."""
    clock = Clock()
    tokens = Tokens(clock)

    async def at(seconds: float) -> str:
        clock.now += seconds
        return bearer(await tokens.headers())

    async def run() -> list[str]:
        return [await at(0), await at(3200), await at(110), await at(0)]

    assert asyncio.run(run()) == ["Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-2"]


def test_a_token_that_comes_short_is_not_fetched_for_every_call(with_account: TokenService) -> None:
    """The metadata server gives out its own token until it renews it: that one serves until then."""
    with_account.lifetime = 200
    clock = Clock()
    tokens = Tokens(clock)

    async def run() -> list[str]:
        said = []
        for seconds in (0, 10, 19, 2, 0):
            clock.now += seconds
            said.append(bearer(await tokens.headers()))
        return said

    assert [name[-1] for name in asyncio.run(run())] == ["1", "1", "1", "2", "2"]


def test_a_valid_token_outlives_a_failed_refresh(with_account: TokenService) -> None:
    """While the old token is valid it serves; after its end the failure is the call's."""
    clock = Clock()
    tokens = Tokens(clock)

    async def run() -> str:
        await tokens.headers()
        with_account.status = 400
        clock.now += 3400
        still = bearer(await tokens.headers())
        asked = with_account.tokens()
        await tokens.headers()
        assert with_account.tokens() == asked, "it waits before it tries again"
        clock.now += 300
        with pytest.raises(UpstreamAuthError):
            await tokens.headers()
        return still

    assert asyncio.run(run()) == "Bearer token-1"


@pytest.mark.parametrize("broken", ["nothing", "refused", "unreachable", "no file"])
def test_failures(broken: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing and refused credentials are the operator's matter; a service may come back."""
    wanted: type[Exception] = UpstreamAuthError
    if broken == "refused":
        request.getfixturevalue("with_account").status = 401
    elif broken == "unreachable":
        service = request.getfixturevalue("with_account")
        path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        path.write_text(path.read_text().replace(service.address, "127.0.0.1:9"))
        wanted = UpstreamConnectError
        # The library waits between its own attempts.
        monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    elif broken == "no file":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist.json")
    with pytest.raises(wanted) as caught:
        asyncio.run(Tokens().headers())
    assert "127.0.0.1" not in str(caught.value)


def test_all_providers_share_the_tokens(with_account: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Application-default credentials are the process's, not a provider's."""
    google_auth.tokens.cache_clear()
    first, second = authorize("one"), authorize("two")

    async def run() -> list[Any]:
        return [await add("https://x", [("a", "b")], b"") for add in (first, second)]

    try:
        one, two = asyncio.run(run())
    finally:
        google_auth.tokens.cache_clear()
    assert one == two
    assert one[:2] == [("a", "b"), ("authorization", "Bearer token-1")]
    assert with_account.tokens() == 1


def test_without_the_library_the_start_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the provider and what to install."""
    monkeypatch.setattr(google_auth, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"providers\.up: .*firsttoken\[gcp\]"):
        authorize("up")
