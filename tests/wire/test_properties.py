"""Properties of every codec: what is written is read again, and what is broken is an error, never a hang."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import strategies
from wire.strategies import CODECS, as_said_by, bare, cut, read, whole, written

from firsttoken.errors import FirstTokenError
from firsttoken.model import Chunk, Finish, ToolCall, Usage
from firsttoken.wire import codec_of

bounded = settings(max_examples=60, deadline=None, derandomize=True)
formats = pytest.mark.parametrize("name", CODECS)
places = st.lists(st.integers(0, 6000), max_size=12)

BLOCKS = ("openai_responses", "anthropic", "gemini", "bedrock")
"""The formats in which what an answer says has an order."""
CALLED = Chunk(tool_calls=(ToolCall(0, "call_1", "lookup", '{"city":"Zürich"}'),))
ANSWER = [
    Chunk(reasoning="Hm, 東京.", model="big"),
    Chunk(signature="c2ln"),
    Chunk(text="naïve "),
    Chunk(text='"🙂" \\ \n'),
    CALLED,
    Chunk(finish="tool_calls", usage=Usage(20, 10, 5, 4, 3)),
]


@formats
@bounded
@given(data=st.data())
def test_what_is_written_is_read_at_any_split(name: str, data: st.DataObject) -> None:
    """Text, reasoning, tool calls, finish and usage come back, wherever the network cuts the bytes."""
    codec, chunks = codec_of(name), data.draw(strategies.answers())
    stream = written(codec, chunks)
    got = whole(read(codec, cut(stream, data.draw(places))))
    assert as_said_by(name, got) == as_said_by(name, whole(chunks))


@formats
@pytest.mark.parametrize("finish", strategies.FINISHES)
def test_every_reason_to_end(name: str, finish: Finish) -> None:
    """A reason that a format has no word for becomes the nearest one, in streams and whole answers alike."""
    codec, model = codec_of(name), "" if name == "bedrock" else "big"
    stopped = "END" if finish == "stop_sequence" else ""
    counts = Usage(10, 8, 3, 2, 1)
    chunks = [Chunk(text="x", model="big"), Chunk(finish=finish, stopped_by=stopped, usage=counts)]
    streamed = whole(read(codec, [written(codec, chunks)]))
    at_once = whole([codec.read_answer(codec.write_answer(strategies.a_call(), chunks, 7))])
    for got in (streamed, at_once):
        assert as_said_by(name, got) == as_said_by(name, whole(chunks))
        assert got.model == model


@formats
@bounded
@given(size=st.integers(1, 40))
def test_pieces_of_one_size(name: str, size: int) -> None:
    """Down to single bytes."""
    codec = codec_of(name)
    stream = written(codec, ANSWER)
    got = whole(read(codec, [stream[i : i + size] for i in range(0, len(stream), size)]))
    assert as_said_by(name, got) == as_said_by(name, whole(ANSWER))


@formats
@bounded
@given(chunks=strategies.answers())
def test_whole_answers_come_back(name: str, chunks: list[Chunk]) -> None:
    """A whole answer says what the stream says."""
    codec = codec_of(name)
    got = codec.read_answer(codec.write_answer(strategies.a_call(), chunks, 7))
    assert as_said_by(name, whole([got])) == as_said_by(name, whole(chunks))


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in CODECS for b in CODECS])
@settings(bounded, max_examples=25)
@given(chunks=strategies.answers(), at=places)
def test_through_two_formats(first: str, second: str, chunks: list[Chunk], at: list[int]) -> None:
    """What a provider says in one format reaches the client of another, less what either cannot say."""
    one, other = codec_of(first), codec_of(second)
    received = read(one, cut(written(one, chunks), at))
    stream = written(other, received if first == second else bare(received))
    got = whole(read(other, cut(stream, at)))
    assert as_said_by(second, got) == as_said_by(second, as_said_by(first, whole(chunks)))


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in BLOCKS for b in BLOCKS])
@settings(bounded, max_examples=25)
@given(chunks=strategies.interleaved(), at=places)
def test_the_order_of_blocks_is_kept(first: str, second: str, chunks: list[Chunk], at: list[int]) -> None:
    """Thoughts, words and calls keep their order through two formats that have one, in one read too."""
    one, other = codec_of(first), codec_of(second)
    received = read(one, cut(written(one, chunks), at))
    stream = written(other, bare(received))
    assert strategies.runs(received) == strategies.runs(chunks)
    assert strategies.runs(read(other, cut(stream, at))) == strategies.runs(chunks)


@formats
def test_bytes_of_the_same_format_pass_unchanged(name: str) -> None:
    """Reader and writer of one format together change nothing."""
    codec = codec_of(name)
    stream = written(codec, ANSWER)
    for size in (1, 7, 100, len(stream)):
        received = read(codec, [stream[i : i + size] for i in range(0, len(stream), size)])
        assert written(codec, received) == stream


@formats
@pytest.mark.parametrize("size", [65_536, 1_000_000_000])
def test_a_frame_of_a_megabyte(name: str, size: int) -> None:
    """One event may be large, in many reads or in one."""
    codec = codec_of(name)
    chunks = [Chunk(text="é" * 500_000 + "x"), Chunk(finish="stop", usage=Usage(1, 1))]
    stream = written(codec, chunks)
    got = whole(read(codec, [stream[i : i + size] for i in range(0, len(stream), size)]))
    assert got.text == chunks[0].text


def outcome(name: str, stream: bytes, at: list[int]) -> Chunk | None:
    """Return the answer that was read, or None for a clean error; any other exception fails the test."""
    codec = codec_of(name)
    try:
        return whole(read(codec, cut(stream, at)))
    except FirstTokenError:
        return None


@formats
@bounded
@given(end=st.floats(0, 1), at=places)
def test_a_cut_stream_is_an_error_or_complete(name: str, end: float, at: list[int]) -> None:
    """An answer that was cut never passes for a whole one; at most its token counts may be missing."""
    stream = written(codec_of(name), ANSWER)
    got = outcome(name, stream[: int(end * len(stream))], at)
    if got is not None:
        said = as_said_by(name, whole(ANSWER))
        assert msgspec.structs.replace(as_said_by(name, got), usage=said.usage) == said


@formats
@settings(bounded, max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), at=places)
def test_a_flipped_byte_is_an_error_or_read(name: str, place: float, flip: int, at: list[int]) -> None:
    """Corrupt bytes give a clean error or an answer; with checksums they never give another answer."""
    stream = bytearray(written(codec_of(name), ANSWER))
    stream[int(place * len(stream))] ^= flip
    got = outcome(name, bytes(stream), at)
    if name == "bedrock":
        assert got is None


@formats
@settings(bounded, max_examples=200)
@given(noise=st.binary(max_size=400), at=places)
def test_noise_is_an_error(name: str, noise: bytes, at: list[int]) -> None:
    """Bytes that are no stream at all, alone or behind a good beginning; an end mark alone says nothing."""
    assert outcome(name, noise, at) in (None, Chunk())
    good = written(codec_of(name), ANSWER)[:300]
    outcome(name, good + noise, at)


@formats
@bounded
@given(noise=st.binary(max_size=400) | strategies.values.map(msgspec.json.encode))
def test_noise_for_a_whole_answer(name: str, noise: bytes) -> None:
    """Whatever comes instead of an answer is a clean error or has no content."""
    codec = codec_of(name)
    try:
        got = codec.read_answer(noise)
    except FirstTokenError:
        return
    assert not got.text
    assert not got.tool_calls


@formats
def test_invalid_utf8_is_an_error(name: str) -> None:
    """Text that is no UTF-8 never reaches a client."""
    stream = written(codec_of(name), [Chunk(text="before"), Chunk(text="~~~~"), *ANSWER[-1:]])
    assert outcome(name, _reframed(name, stream, b"~~~~", b"~\xff\xfe~"), []) is None


@formats
@pytest.mark.parametrize("whole_answer", [False, True])
def test_invalid_utf8_in_arguments_is_an_error(name: str, whole_answer: bool) -> None:
    """What a tool is called with is checked too, though it is not decoded."""
    codec = codec_of(name)
    chunks = [Chunk(tool_calls=(ToolCall(0, "c", "f", '{"a":"~~~~"}'),)), Chunk(finish="tool_calls")]
    bad = b"~\xff\xfe~"
    if not whole_answer:
        assert outcome(name, _reframed(name, written(codec, chunks), b"~~~~", bad), []) is None
        return
    body = codec.write_answer(strategies.a_call(), chunks, 7)
    with pytest.raises(FirstTokenError):
        codec.read_answer(body.replace(b"~~~~", bad))


def _reframed(name: str, stream: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes of the same length; in binary frames the checksum is made right again."""
    if name != "bedrock":
        return stream.replace(old, new)
    import struct
    from zlib import crc32

    out, start = b"", 0
    while start < len(stream):
        size = struct.unpack_from(">I", stream, start)[0]
        body = stream[start : start + size - 4].replace(old, new)
        out += body + struct.pack(">I", crc32(body))
        start += size
    return out


@formats
def test_heartbeats_are_read_over(name: str) -> None:
    """They may come between any two events and change nothing."""
    codec = codec_of(name)
    writer = codec.open_writer(strategies.a_call(), 7)
    parts: list[bytes] = []
    for chunk in ANSWER:
        parts += [writer.write(chunk), writer.heartbeat()]
    got = whole(read(codec, [*parts, writer.end()]))
    assert as_said_by(name, got) == as_said_by(name, whole(ANSWER))


ERRORS = strategies.errors()


@formats
@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_errors_come_back(name: str, error: FirstTokenError) -> None:
    """What one endpoint says of an error, another that has it as its target understands."""
    codec = codec_of(name)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    got = codec.error_from(error.status, headers, codec.write_error(error, "req_1"))
    assert got.status // 100 == strategies.status_class(error)
    if error.status in (400, 404, 413):
        assert str(error) in str(got)
    again, elsewhere = strategies.policy(error)
    assert (got.retryable, got.failover or error.status == 404) == (again, elsewhere or error.status == 404)
    assert got.retry_after == error.retry_after


@formats
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_inside_a_stream_is_never_a_clean_end(name: str, error: FirstTokenError, after: int) -> None:
    """What came before it is read; then the reader raises."""
    codec = codec_of(name)
    writer = codec.open_writer(strategies.a_call(), 7)
    good = b"".join([writer.write(chunk) for chunk in ANSWER[:after]])
    received = [good, writer.error(error, "req_1")]
    assert outcome(name, b"".join(received), []) is None
    reader = codec.open_reader()
    chunks = [reader.feed(good)] if good else []
    while chunks and (more := reader.feed(b"")):
        chunks.append(more)
    assert whole([chunk for chunk in chunks if chunk]).reasoning == whole(ANSWER[:after]).reasoning
