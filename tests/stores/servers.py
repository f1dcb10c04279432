"""Servers for the tests of stores: a real Redis, and one that takes connections and never answers."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

_START_SECONDS = 20.0


class RedisServer:
    """A redis-server on a free loopback port that keeps nothing; it can be killed and started again."""

    def __init__(self, *options: str) -> None:
        if not shutil.which("redis-server"):
            pytest.skip("needs redis-server: apt-get install redis-server")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", tempfile.gettempdir()]
        command = ["redis-server", *address, "--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        limit = time.monotonic() + _START_SECONDS
        while not self._listens():
            assert self._process.poll() is None, "redis-server did not start"
            assert time.monotonic() < limit, "redis-server did not listen"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Take connections and what is sent, and never answer; gives the port."""
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(65536):
            pass

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
