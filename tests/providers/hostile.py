"""Servers that answer with scripted bytes: broken, hostile, slow, or just unusual."""

from __future__ import annotations

import asyncio
import datetime
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


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        """Set once the client has closed its end."""

    async def read_request(self) -> bytes:
        """Read one request, head and body."""
        data = await self.reader.readuntil(b"\r\n\r\n")
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
            self.writer.write(piece)
            await self.writer.drain()

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
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._handler(peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            peer.left.set()
            writer.transport.abort()
            self._tasks.discard(task)

    async def stop(self) -> None:
        """End the scripts that still wait."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)


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
    """Answer every request with ``pieces``; then stay (keep alive), close, reset or hang until the client leaves."""

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
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
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
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def server(self, *names: str) -> ssl.SSLContext:
        """Return a server's context with a certificate for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
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
