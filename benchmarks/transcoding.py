"""What it costs to read an answer in one wire format and write it in another.

``codec``: reader and writer alone, chunks a second and core, for each pair, with one event a read and with
16. ``http``: the same through a serving process, one read a chunk, in CPU time of that process. Peers: the
parsers of botocore and of the openai SDK, which only read. Method: CPU time, garbage collection as it is,
medians of rounds; a burst of tokens is never faster than one event a read unless the network makes it so.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import wire_events
from benchmarks.processes import address, cpu_seconds, started
from benchmarks.wire_events import FORMATS
from benchmarks.wire_upstream import TOKENS as EACH
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Source
from firsttoken.wire import codec_of

TOKENS = 20_000
ROUNDS = 5
CONCURRENCY = 16
CALLS = 32
HTTP_ROUNDS = 3
ALONE = 0.95
"""So many reads a token there must be, or the figure is not one of one read a chunk."""
BARS = {"codec_chunks_per_second": 300_000, "http_chunk_us": 40}
SOURCES = (*FORMATS[:1], "openai_chat, padded", *FORMATS[1:])


def _call() -> Call:
    request = ChatRequest("m", (Message("user", (Text("hi"),)),), stream=True, include_usage=True)
    return Call(request=request, source=Source("none", b"{}"), id="1", deadline=0.0)


def transcode(source: str, target: str, tokens: int, size: int) -> tuple[float, list[bytes]]:
    """Return the CPU seconds that the tokens of one stream took, and the stream that was written."""
    reader = codec_of(source.partition(",")[0]).open_reader()
    writer = codec_of(target).open_writer(_call(), 7)
    before, events, after = wire_events.stream(source, tokens)
    written: list[bytes] = []

    def pass_on(received: bytes) -> None:
        chunk = reader.feed(received)
        while chunk is not None:
            written.append(writer.write(chunk))
            chunk = reader.feed(b"")

    for event in before:
        pass_on(event)
    reads = list(wire_events.batches(events, size))
    begin = time.process_time()
    for received in reads:
        pass_on(received)
    spent = time.process_time() - begin
    for event in after:
        pass_on(event)
    reader.close()
    return spent, [*written, writer.end()]


def check(target: str, written: list[bytes], tokens: int) -> None:
    """Stop when what was written does not say what the provider said."""
    reader = codec_of(target).open_reader()
    said = ""
    for part in written:
        chunk = reader.feed(part)
        while chunk is not None:
            said += chunk.text
            chunk = reader.feed(b"")
    reader.close()
    assert said == wire_events.text(tokens), target


def codec() -> dict[str, dict[str, Any]]:
    """Return chunks a second for each pair."""
    found: dict[str, dict[str, Any]] = {}
    for size, name in ((1, "one event a read"), (16, "16 events a read")):
        rows: dict[str, Any] = {}
        for source in SOURCES:
            for target in FORMATS:
                check(target, transcode(source, target, 500, size)[1], 500)
                times = [transcode(source, target, TOKENS, size)[0] for _ in range(ROUNDS)]
                rows[f"{source} -> {target}"] = round(TOKENS / statistics.median(times))
        found[name] = rows
    return found


def peers() -> dict[str, int]:
    """Return chunks a second that SDKs read, without writing anything."""
    return {
        "botocore EventStreamBuffer + EventStreamJSONParser (Bedrock)": _rate(_botocore),
        "openai SDK: SSEDecoder + ChatCompletionChunk": _rate(_openai),
    }


def _rate(read: Callable[[list[bytes]], None]) -> int:
    name = "bedrock" if read is _botocore else "openai_chat"
    events = wire_events.stream(name, TOKENS // 10)[1]
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        read(events)
        times.append(time.process_time() - begin)
    return round(len(events) / statistics.median(times))


def _botocore(events: list[bytes]) -> None:
    from botocore.eventstream import EventStreamBuffer
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.parsers import EventStreamJSONParser

    model = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
    shape = model.operation_model("ConverseStream").output_shape.members["stream"]
    parser, buffer = EventStreamJSONParser(), EventStreamBuffer()
    for event in events:
        buffer.add_data(event)
        for frame in buffer:
            parsed = parser.parse(frame.to_response_dict(), shape)
            assert parsed["contentBlockDelta"]["delta"]["text"]


def _openai(events: list[bytes]) -> None:
    from openai._models import construct_type
    from openai._streaming import SSEDecoder
    from openai.types.chat import ChatCompletionChunk

    for event in SSEDecoder().iter_bytes(iter(events)):
        chunk: Any = construct_type(type_=ChatCompletionChunk, value=event.json())
        assert chunk.choices[0].delta.content


_PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/{}:streamGenerateContent?alt=sse",
    "bedrock": "/model/{}/converse-stream",
}
_MESSAGES = [{"role": "user", "content": "word " * 180}]
_BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {"messages": _MESSAGES, "stream": True},
    "openai_responses": {"input": _MESSAGES, "stream": True},
    "anthropic": {"max_tokens": 4096, "messages": _MESSAGES, "stream": True},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "word " * 180}]}]},
    "bedrock": {"messages": [{"role": "user", "content": [{"text": "word " * 180}]}]},
}


def configuration(folder: Path, upstream: str) -> Path:
    """Write a configuration with a route to each provider; the route is named like the format."""
    urls = {"anthropic": upstream, "bedrock": upstream, "gemini": f"{upstream}/v1beta"}
    lines = ["[server]", "log = false"]
    for name in FORMATS:
        kind = "openai" if name.startswith("openai") else name
        url = urls.get(name, f"{upstream}/v1")
        more = 'api = "responses"' if name == "openai_responses" else ""
        more = 'region = "eu-central-1"' if name == "bedrock" else more
        lines += [f"[providers.{name}]", f'kind = "{kind}"', f'base_url = "{url}"', 'api_key = "k"', more]
        lines += [f"[models.{name}]", f'target = "{name}/model"']
    file = folder / "firsttoken.toml"
    file.write_text("\n".join(lines), "utf-8")
    return file


def _request(source: str, target: str) -> bytes:
    fields = _BODIES[target]
    body = json.dumps(fields if "{}" in _PATHS[target] else {"model": source, **fields}).encode()
    head = f"POST {_PATHS[target].format(source)} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + body


async def _client(url: str, request: bytes, calls: int) -> bytes:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**22)
    body = b""
    for _ in range(calls):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + await reader.read(2000)
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    return body


def _writes(body: bytes) -> list[bytes]:
    """Return what the serving process wrote at a time."""
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return parts[:-1]


async def _load(url: str, source: str, target: str) -> float:
    """Make the calls and return how many writes there were a token."""
    request, share = _request(source, target), CALLS // CONCURRENCY
    bodies = await asyncio.gather(*(_client(url, request, share) for _ in range(CONCURRENCY)))
    return statistics.mean(len(_writes(body)) for body in bodies) / EACH


def http() -> dict[str, Any]:
    """Return microseconds of CPU of the serving process for each pair and chunk, requests included."""
    import uvloop

    os.sched_setaffinity(0, {1})
    rows: dict[str, list[float]] = {}
    serve = ["-m", "firsttoken.cli", "serve", "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        started(["-m", "benchmarks.wire_upstream", "0"], core=1) as (_, port),
    ):
        file = configuration(Path(folder), f"http://127.0.0.1:{port}")
        with started(serve, core=0, FIRSTTOKEN_CONFIG=str(file)) as (child, line):
            url = address(line)
            for source in FORMATS:
                for target in FORMATS:
                    answer = asyncio.run(_client(url, _request(source, target), 1))
                    check(target, _writes(answer), EACH)
            for _ in range(HTTP_ROUNDS):
                for source in FORMATS:
                    for target in FORMATS:
                        before = cpu_seconds(child.pid)
                        writes = uvloop.run(_load(url, source, target))
                        spent = cpu_seconds(child.pid) - before
                        assert writes > ALONE, f"{source} -> {target}: only {writes:.2f} reads a chunk"
                        calls = CALLS // CONCURRENCY * CONCURRENCY
                        rows.setdefault(f"{source} -> {target}", []).append(spent / calls / EACH * 1e6)
    return {pair: round(statistics.median(values), 1) for pair, values in rows.items()}


def run() -> dict[str, Any]:
    """Measure the codecs alone, the peers, and the codecs behind HTTP."""
    os.sched_setaffinity(0, {0})
    rates = codec()
    others = peers()
    through = http()
    slowest = {name: min(rows.values()) for name, rows in rates.items()}
    return {
        "upstream": "simulated upstream",
        "bars": BARS,
        "slowest_pair_chunks_per_second": slowest,
        "slowest_pair_http_chunk_us": max(through.values()),
        "codec_chunks_per_second": rates,
        "peers_chunks_read_per_second": others,
        "http_chunk_us": through,
        "concurrency": CONCURRENCY,
    }
