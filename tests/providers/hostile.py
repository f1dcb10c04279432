"""Servers that answer with scripted bytes: broken, hostile, slow, or just unusual."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIMIT = 20.0
"""Seconds after which a test has failed: a limit for a loaded machine, not a measurement."""


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = OK + b"Content-Length: 2\r\n\r\nok"
LINES = b"".join(b"X-%d: y\r\n" % number for number in range(200))
HUGE = b"a" * 70_000
NOT_HTTP = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "text": b"hello world, this is HTTP/0.9\n",
    "starts like HTTP": b"Hello\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x50",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "empty lines first": b"\r\n\r\n" + PLAIN,
    "lower case": PLAIN.replace(b"HTTP", b"http"),
    "version 2.0": PLAIN.replace(b"1.1", b"2.0"),
    "version 0.9": PLAIN.replace(b"1.1", b"0.9"),
    "version 1.2": PLAIN.replace(b"1.1", b"1.2"),
    "status 099": PLAIN.replace(b"200", b"099"),
    "status 999": PLAIN.replace(b"200", b"999"),
    "status 20": PLAIN.replace(b"200", b"20"),
    "status 2000": PLAIN.replace(b"200", b"2000"),
    "status -20": PLAIN.replace(b"200", b"-20"),
    "line feeds alone": PLAIN.replace(b"\r\n", b"\n"),
    "carriage returns alone": PLAIN.replace(b"\r\n", b"\r"),
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "control in a value": OK + b"X: a\x01b\r\n\r\n",
    "carriage return in a value": OK + b"X: a\rb\r\n\r\n",
    "blank before the colon": OK + b"X : a\r\n\r\n",
    "no colon": OK + b"X a\r\n\r\n",
    "no name": OK + b": a\r\n\r\n",
    "folded header": OK + b"X: a\r\n b\r\n\r\n",
    "blank before the first name": OK + b" X: a\r\n\r\n",
    "length and chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "no length": OK + b"Content-Length:\r\n\r\nok",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "length of 2**63": OK + b"Content-Length: 9223372036854775808\r\n\r\nok",
    "length beyond 64 bits": OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "length with many zeros": OK + b"Content-Length: %s2\r\n\r\nok" % (b"0" * 5000),
    "coding gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nok",
    "coding identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "coding gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no coding": OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    "brotli over chunked": OK + b"Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings": OK
    + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
    "101 without a protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\nraw",
    "many lines": OK + LINES + b"Content-Length: 0\r\n\r\n",
    "a huge header": OK + b"X: %s\r\nContent-Length: 0\r\n\r\n" % HUGE,
    "a huge name": OK + b"%s: x\r\nContent-Length: 0\r\n\r\n" % HUGE,
    "a huge status line": b"HTTP/1.1 200 %s\r\nContent-Length: 0\r\n\r\n" % HUGE,
    "a flood of 100": b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + PLAIN,
    "a flood of 100 without reasons": b"HTTP/1.1 100\r\n\r\n" * 200 + PLAIN,
}
BROKEN_BODIES = {
    "size is no number": CHUNKED + b"2\r\nok\r\nzz\r\n",
    "size 0x": CHUNKED + b"2\r\nok\r\n0x2\r\nok\r\n",
    "negative size": CHUNKED + b"2\r\nok\r\n-2\r\nok\r\n",
    "no size": CHUNKED + b"2\r\nok\r\n\r\nok\r\n",
    "blank after the size": CHUNKED + b"2\r\nok\r\n2 \r\nok\r\n",
    "size beyond 64 bits": CHUNKED + b"2\r\nok\r\nfffffffffffffffff\r\nok",
    "line feed after the size": CHUNKED + b"2\r\nok\r\n2\nok\r\n",
    "line feed after the data": CHUNKED + b"2\r\nok\n0\r\n\r\n",
    "more data than the size": CHUNKED + b"2\r\nok!\r\n0\r\n\r\n",
    "line feed in an extension": CHUNKED + b'2\r\nok\r\n2;a="\n"\r\nok\r\n',
    "an endless extension": CHUNKED + b"2\r\nok\r\n2;" + HUGE * 10,
    "length among the trailers": CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
    "folded trailer": CHUNKED + b"2\r\nok\r\n0\r\nX: a\r\n b\r\n\r\n",
    "many trailers": CHUNKED + b"2\r\nok\r\n0\r\n" + LINES + b"\r\n",
    "a huge trailer": CHUNKED + b"2\r\nok\r\n0\r\nX: " + HUGE + b"\r\n\r\n",
}
CUT_BODIES = {
    "no terminator": CHUNKED + b"2\r\nok\r\n",
    "inside a chunk": CHUNKED + b"5\r\nok",
    "inside a size": CHUNKED + b"2\r\nok\r\n1",
    "inside the terminator": CHUNKED + b"2\r\nok\r\n0\r\n",
    "inside the trailers": CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n",
    "a size of 2**63": CHUNKED + b"7fffffffffffffff\r\nok",
    "a short length": OK + b"Content-Length: 3\r\n\r\nok",
    "a length of 900 TB": OK + b"Content-Length: 900000000000000\r\n\r\nok",
}


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        """Set once the client has closed its end."""
        self.waiting = False
        """Whether the script asked for the next request."""

    async def read_request(self) -> bytes:
        """Read one request, head and body."""
        self.waiting = True
        data = await self.reader.readuntil(b"\r\n\r\n")
        self.waiting = False
        _, found, rest = data.lower().partition(b"content-length: ")
        if found:
            data += await self.reader.readexactly(int(rest.split(b"\r\n")[0]))
        self.requests.append(data)
        return data

    async def send(self, *pieces: bytes) -> None:
        """Send pieces as separate writes, each in a turn of the loop of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def flood(self, pieces: Iterable[bytes]) -> None:
        """Send for as long as the client takes it."""
        for piece in pieces:
            if self.writer.is_closing():
                return
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)  # drain alone gives the loop no turn, and so no news of a client that left

    async def wait_until_left(self) -> None:
        """Wait until the client closed its end, dropping what it still sends."""
        while await self.reader.read(65536):
            pass

    def socket(self) -> socket.socket:
        """Return the socket itself: asyncio hands out a wrapper that can do less."""
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        with self.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def cut(self) -> None:
        """Send FIN at once, without a turn of the loop in between."""
        with self.socket() as connection:
            connection.shutdown(socket.SHUT_RDWR)


Handler = Callable[[Peer], Awaitable[None]]


class Server:
    """A server on a free port, and what happened on its connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[Any]] = set()
        self.peers: list[Peer] = []
        self.port = 0
        self.scheme = "http"

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return the address of a path on this server."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    @property
    def requests(self) -> list[bytes]:
        """Every request, on whatever connection it came."""
        return [request for peer in self.peers for request in peer.requests]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script on a new connection; a client that leaves ends it."""
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.ensure_future(self._handler(peer))
        self._tasks.add(task)
        await asyncio.wait([task])
        self._tasks.discard(task)
        peer.left.set()
        writer.transport.abort()
        gone = ConnectionError, asyncio.IncompleteReadError, ssl.SSLError
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, gone):
            raise error

    async def stop(self) -> None:
        """End the scripts that still wait."""
        for task in self._tasks:
            task.cancel()
        await until(lambda: not self._tasks)


@asynccontextmanager
async def serve(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve ``handler`` on a free port of 127.0.0.1."""
    server = Server(handler)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls, limit=1 << 24)
    server.port = listener.sockets[0].getsockname()[1]
    server.scheme = "https" if tls else "http"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


def answer(*pieces: bytes, then: str = "stay") -> Handler:
    """Answer requests with ``pieces``; then stay (keep alive), close, reset or hang until the client left."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await peer.send(*pieces)
            if then == "close":
                return
            if then == "reset":
                await until(lambda: not peer.writer.transport.get_write_buffer_size())
                peer.reset()
                return
            if then == "hang":
                await peer.wait_until_left()
                return

    return handler


def in_order(*handlers: Handler) -> Handler:
    """Use the first handler for the first connection, and so on; the last one for all that follow."""
    left = list(handlers)

    async def handler(peer: Peer) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(peer)

    return handler


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a limit."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.001)


def run_on(factory: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop, with a limit; whatever a callback raised fails it."""
    raised: list[dict[str, Any]] = []

    async def limited() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
        async with asyncio.timeout(LIMIT):
            await main

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(limited())
    assert raised == []


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "firsttoken test")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._file = folder / "authority.pem"
        self._file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def server(self, *names: str) -> ssl.SSLContext:
        """Return a server's context with a certificate for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
            for name in names
        ]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{names[0]}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def client(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=self._file)
