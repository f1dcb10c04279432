"""A simulated upstream that speaks every format: one write a token, a millisecond apart, so one read a chunk.

Run as a process: ``python -m benchmarks.wire_upstream PORT``. The path says the format.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks import wire_events

TOKENS = 300
GAP_SECONDS = 0.002
_TYPES = {"bedrock": b"application/vnd.amazon.eventstream"}
_PATHS = {
    b"/chat/completions": "openai_chat",
    b"/responses": "openai_responses",
    b"/messages": "anthropic",
    b"GenerateContent": "gemini",
    b"/converse-stream": "bedrock",
}


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def _answer(name: str) -> tuple[bytes, list[bytes]]:
    before, events, after = wire_events.stream(name, TOKENS)
    kind = _TYPES.get(name, b"text/event-stream; charset=utf-8")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    writes = [_framed(event) for event in events] + [b"".join(map(_framed, after)) + b"0\r\n\r\n"]
    return head + b"".join(map(_framed, before)), writes


ANSWERS = {name: _answer(name) for name in wire_events.FORMATS}


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast("asyncio.WriteTransport", transport)
        self.loop = asyncio.get_running_loop()
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self.buffer += data
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        target = head.partition(b" HTTP/")[0]
        name = next(name for part, name in _PATHS.items() if part in target)
        first, self.writes = ANSWERS[name]
        self.position = 0
        self.transport.write(first)
        self.loop.call_later(GAP_SECONDS, self.next)

    def next(self) -> None:
        """Write the next token."""
        if self.transport.is_closing():
            return
        self.transport.write(self.writes[self.position])
        self.position += 1
        if self.position < len(self.writes):
            self.loop.call_later(GAP_SECONDS, self.next)


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
