"""The upstream HTTP client: connecting, TLS, and what it costs to import."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from firsttoken.errors import (
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from firsttoken.providers import http
from firsttoken.providers.http import HttpClient, Timeouts
from tests.providers.clients import Run, cases, client_of, collect, fetch
from tests.providers.hostile import (
    CHUNKED,
    CUT_BODIES,
    PLAIN,
    Authority,
    Peer,
    answer,
    run_on,
    until,
)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1]:1/", f"http://{'x' * 64}.invalid/"])
def test_no_connection_names_the_server(run: Run, url: str) -> None:
    """A refused connection or a name that cannot be looked up says why, and where to only in a note."""

    async def main() -> None:
        with pytest.raises(UpstreamConnectError, match=r"^cannot connect to the target: \w+$") as caught:
            await HttpClient().request("GET", url, headers=[("Authorization", "Bearer secret")])
        assert "secret" not in str(caught.value)
        assert any(note.startswith("upstream ") for note in caught.value.__cause__.__notes__)

    run(main())


def test_tls_is_verified_and_kept_alive(run: Run, authority: Authority) -> None:
    """Over TLS the same connection carries the next request; the name is sent and verified."""

    async def main() -> None:
        names: list[str | None] = []
        context = authority.server("localhost", "127.0.0.1")
        context.sni_callback = lambda _connection, name, _context: names.append(name)
        script = answer(CHUNKED, b"2\r\nok\r\n", b"0\r\n\r\n")
        async with client_of(script, context, ssl_context=authority.client()) as (client, server):
            for _ in range(3):
                assert await fetch(client, server.url(host="localhost"), body=b"x" * 100_000) == (200, b"ok")
            assert (len(server.peers), names) == (1, ["localhost"])
            assert await fetch(client, server.url()) == (200, b"ok")

    run(main())


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [("other.example", True, "mismatch"), ("localhost", False, "verify failed")],
)
def test_a_wrong_certificate_is_refused(
    run: Run, authority: Authority, name: str, reason: str, *, trusted: bool
) -> None:
    """A certificate for another name, or from nobody we trust, is no connection."""

    async def main() -> None:
        context = authority.client() if trusted else ssl.create_default_context()
        async with client_of(answer(PLAIN), authority.server(name), ssl_context=context) as (client, server):
            with pytest.raises(UpstreamConnectError, match="SSLCertVerificationError") as caught:
                await fetch(client, server.url(host="localhost"))
            assert server.requests == []
            assert reason in str(caught.value.__cause__)

    run(main())


@pytest.mark.parametrize("then", ["hang", "close"])
def test_a_server_without_tls_is_no_connection(run: Run, then: str) -> None:
    """Https to a port that answers in plain text, or not at all, fails while connecting."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            if then == "hang":
                await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await peer.wait_until_left()

        async with client_of(handler) as (client, server):
            with pytest.raises(UpstreamConnectError):
                await client.request("GET", server.url().replace("http", "https"))

    run(main())


@cases(CUT_BODIES)
def test_a_body_cut_under_tls(run: Run, authority: Authority, sent: bytes) -> None:
    """A connection that is torn down without TLS's own goodbye is as cut as any other."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(sent)
            await until(lambda: not peer.writer.transport.get_write_buffer_size())
            peer.cut()

        context = authority.server("127.0.0.1")
        async with client_of(handler, context, ssl_context=authority.client()) as (client, server):
            items, error = await collect(await client.request("POST", server.url()))
            assert b"".join(items) == b"ok"
            assert isinstance(error, UpstreamClosedError)

    run(main())


@pytest.mark.parametrize("sent", [[], [CHUNKED, b"2\r\nok\r\n"]])
def test_timeouts_hold_under_tls(run: Run, authority: Authority, sent: list[bytes]) -> None:
    """Silence over TLS has the same limits."""

    async def main() -> None:
        context = authority.server("127.0.0.1")
        script = answer(*sent, then="hang")
        async with client_of(script, context, ssl_context=authority.client()) as (client, server):
            with pytest.raises(UpstreamTimeoutError):
                await fetch(client, server.url(), timeouts=Timeouts(first_byte=0.5, gap=0.05))
            await until(server.peers[0].left.is_set)

    run(main())


def test_the_default_context_verifies() -> None:
    """The context made when https is first used verifies chain and name, with TLS 1.2 or newer."""

    async def main() -> None:
        client = HttpClient()
        for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/"):
            assert client._ssl_context is None
            with pytest.raises(UpstreamError):
                await client.request("GET", url)
        context = client._ssl_context
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

    run_on(asyncio.new_event_loop, main())


def test_the_import_is_light() -> None:
    """The client adds nothing heavy to asyncio, httptools and msgspec."""
    code = (
        "import asyncio, httptools, msgspec, sys; before = set(sys.modules);"
        "import firsttoken.providers.http;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert set(done.stdout.split()) <= {
        "firsttoken", "firsttoken.errors", "firsttoken.providers", "firsttoken.providers.http",
        "firsttoken.providers.http_request", "math",
    }  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment of a child that imports this checkout."""
    return {"PYTHONPATH": str(Path(http.__file__).parents[2])}
