"""Webhooks: signed as the standard says, sent to public addresses only, and never beyond a redirect."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from firsttoken.errors import ConfigError, RequestError
from firsttoken.jobs.job import Job
from firsttoken.jobs.webhook import Delivered, Webhooks, is_public, pause, payload
from firsttoken.settings import Webhook

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
JOB = Job(
    id="job_1f",
    tenant="acme",
    model="m",
    wire="openai_chat",
    created=1_790_000_000,
    expires=1_790_003_600,
    finished=1_790_000_060,
    state="done",
)


class Receiver:
    """A server on loopback that notes what it is sent and answers with a fixed head."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.port = 0
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        self.requests.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {self.head}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiver(head: str = "204 No Content") -> AsyncIterator[Receiver]:
    one = Receiver(head)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await server.wait_closed()


async def deliver(url: str, **settings: Any) -> Delivered:
    webhooks = Webhooks(Webhook(**{"secret": SECRET, "allow_private": True, **settings}))
    try:
        return await webhooks.deliver(replace(JOB, webhook=url))
    finally:
        await webhooks.aclose()


def test_a_webhook_says_which_job_ended_and_who_says_so() -> None:
    """The body names the job, and the signature is that of Standard Webhooks over id, time and body."""

    async def scenario() -> Receiver:
        async with receiver() as one:
            result = await deliver(f"http://127.0.0.1:{one.port}/hook?x=1")
            assert result == Delivered(ok=True)
            return one

    headers, body = asyncio.run(scenario()).requests[0]
    assert json.loads(body) == payload(JOB)
    assert json.loads(body)["data"] == {"id": "job_1f", "state": "done", "model": "m"}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"k" * 24, signed, "sha256")).decode()
    assert headers["webhook-signature"] == "v1," + expected.lower()  # the receiver above lowers all of a line


def test_two_secrets_make_two_signatures() -> None:
    """While a secret is being changed, a receiver that knows either of them accepts the webhook."""
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()
    headers = dict(Webhooks(Webhook(secret=f"{SECRET} {other}")).sign("job_1", b"{}"))
    assert len(headers["webhook-signature"].split()) == 2


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "127.0.0.1", "[::1]", "10.0.0.1", "[::]", "[::ffff:127.0.0.1]", "[fd00:ec2::254]"],
)
def test_an_address_within_is_refused_where_it_is_given(host: str) -> None:
    """The client hears at once that this is no address for a webhook."""
    webhooks = Webhooks(Webhook(secret=SECRET))
    with pytest.raises(RequestError, match="not public"):
        webhooks.check(f"https://{host}/latest/meta-data")


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "::1", "10.1.2.3", "168.63.129.16"])
def test_a_name_that_leads_within_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is what the name resolves to; one private address among public ones is enough."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(socket.AF_INET, 1, 6, "", ("93.184.216.34", 443)), (family, 1, 6, "", (address, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)
    result = asyncio.run(deliver("https://hooks.example.com/x", allow_private=False))
    assert not result.ok
    assert result.final
    assert f"hooks.example.com is at {address}, which is not public" in result.why


def test_slow_names_do_not_keep_other_work_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are looked up in threads of their own, not in those that targets are looked up in."""
    go = threading.Event()

    def getaddrinfo(*_args: Any, **_more: Any) -> Any:
        go.wait(10)
        raise socket.gaierror

    async def scenario() -> None:
        webhooks = Webhooks(Webhook(secret=SECRET))
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        named = [replace(JOB, webhook=f"https://{name}.example/") for name in "ab"]
        slow = [asyncio.create_task(webhooks.deliver(job)) for job in named]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "looked up") == "looked up"
        go.set()
        assert not any([(await one).ok for one in slow])
        await webhooks.aclose()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(scenario())


def test_localhost_is_refused_by_what_it_resolves_to() -> None:
    """With this machine's own resolver, nothing is connected to."""

    async def scenario() -> None:
        async with receiver() as one:
            result = await deliver(f"https://localhost:{one.port}/", allow_private=False)
            assert result.final
            assert "not public" in result.why
            assert one.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent"])
def test_a_redirect_is_not_followed(status: str) -> None:
    """Wherever it leads: that address was not looked at."""

    async def scenario() -> None:
        async with receiver() as within, receiver(f"{status}\r\nlocation: http://169.254.169.254/") as one:
            one.head = f"{status}\r\nlocation: http://127.0.0.1:{within.port}/secret"
            result = await deliver(f"http://127.0.0.1:{one.port}/")
            assert not result.ok
            assert result.final
            assert "redirect" in result.why
            assert within.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("head", "final"), [("500 Oops", False), ("429 Slow down", False), ("410 Gone", True)]
)
def test_a_receiver_that_refuses_is_asked_again_unless_it_is_gone(head: str, *, final: bool) -> None:
    """Anything but a success is a failure; 410 says that the address is no more."""

    async def scenario() -> Delivered:
        async with receiver(head) as one:
            return await deliver(f"http://127.0.0.1:{one.port}/")

    result = asyncio.run(scenario())
    assert (result.ok, result.final) == (False, final)
    assert head[:3] in result.why


def test_a_receiver_that_is_not_there_may_come_back() -> None:
    """A refused connection is worth another try."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = asyncio.run(deliver(f"http://127.0.0.1:{port}/"))
    assert (result.ok, result.final) == (False, False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a.example/",
        "http://a.example/",
        "https://user:pass@a.example/",
        "https://a.example/\r\nx: y",
        "https://a.example/" + "x" * 2048,
        "//a.example",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """Plain HTTP too, unless private addresses are allowed for development."""
    with pytest.raises(RequestError, match="The webhook is"):
        Webhooks(Webhook(secret=SECRET)).check(url)


def test_without_a_secret_there_are_no_webhooks() -> None:
    """A webhook that nobody can verify is worse than none."""
    with pytest.raises(RequestError, match="no secret"):
        Webhooks(Webhook()).check("https://a.example/")


@pytest.mark.parametrize("secret", ["whsec_!!!", "short", "whsec_c2hvcnQ="])
def test_a_secret_that_cannot_be_used_stops_the_start(secret: str) -> None:
    """The message names the key, not the secret."""
    with pytest.raises(ConfigError, match=r"webhook\.secret: expected") as caught:
        Webhooks(Webhook(secret=secret))
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("100.100.100.200", False),
        ("192.168.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
        ("::", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("fec0::1", False),
        ("192.0.0.192", False),
    ],
)
def test_which_addresses_are_public(address: str, *, public: bool) -> None:
    """IPv4 within IPv6 counts as what it leads to; forms of old and of networks of one's own do not count."""
    assert is_public(ip_address(address)) is public


def test_tries_come_later_and_later() -> None:
    """5 s, then five times as long, up to an hour."""
    assert [pause(n) for n in range(1, 7)] == [5, 25, 125, 625, 3125, 3600]
