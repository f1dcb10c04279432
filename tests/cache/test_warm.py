"""``firsttoken cache warm``: embeddings of a file, made ahead."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsttoken.commands import cache_warm
from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, pack
from firsttoken.errors import ConfigError, UpstreamError, UpstreamRateLimitError, UpstreamRefusedError
from firsttoken.gateway import Gateway
from firsttoken.settings import (
    Cache,
    Embedding,
    MemoryStore,
    Route,
    Settings,
    SimulatedProvider,
    SqliteStore,
)


class Picky:
    """An embedder that refuses texts with "bad" in them, and fails as ``errors`` say before that."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []
        self.errors: list[BaseException] = []

    async def embed(self, call: EmbedCall) -> Embeddings:
        self.sent.append(call.request.inputs)
        if self.errors:
            raise self.errors.pop(0)
        if any("bad" in text for text in call.request.inputs):
            raise UpstreamRefusedError("this text is refused")
        return Embeddings(tuple(pack([1.0, 2.0]) for _ in call.request.inputs), tokens=3)


def settings(path: Path, **sections: Any) -> Settings:
    defaults: dict[str, Any] = {
        "cache": Cache(mode="on"),
        "store": SqliteStore(path=str(path / "store.db")),
        "providers": {"simulated": SimulatedProvider(ttft_ms=0)},
        "models": {"m": Route(target="simulated/m")},
        "embeddings": {"vectors": Embedding(target="simulated/embed")},
    }
    return Settings(**{**defaults, **sections})


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cache_warm.register(parser.add_subparsers())
    return parser.parse_args(["warm", *arguments])


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Picky:
    """Every gateway's embedder is this one."""
    embedder = Picky()
    made = Gateway.__init__

    def init(self: Gateway, given: Settings) -> None:
        made(self, given)
        self.embedders = dict.fromkeys(given.embeddings, embedder)

    monkeypatch.setattr(Gateway, "__init__", init)
    return embedder


def warm(path: Path, content: str, *more: str, name: str = "texts.txt", **sections: Any) -> int:
    file = path / name
    file.write_text(content, "utf-8")
    arguments = parsed(str(file), "--model", "vectors", *more)
    return asyncio.run(cache_warm.warm(arguments, settings(path, **sections)))


def test_a_text_a_line(tmp_path: Path, picky: Picky, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line that is not empty is made, in batches; the second run sends nothing."""
    content = "".join(f"text {number}\n\n" for number in range(10))
    assert warm(tmp_path, content, "--batch", "4") == 0
    assert [len(texts) for texts in picky.sent] == [4, 4, 2]
    assert picky.sent[0][0] == "text 0"
    assert capsys.readouterr().out == "10 made (9 tokens), 0 known, 0 failed\n"
    assert warm(tmp_path, content + "one more") == 0
    assert picky.sent[3:] == [("one more",)]
    assert capsys.readouterr().out == "1 made (3 tokens), 10 known, 0 failed\n"


def test_the_cache_is_the_tenants(tmp_path: Path, picky: Picky) -> None:
    """What is made for one tenant, size or purpose is no other's."""
    for more in ([], ["--tenant", "b"], ["--dimensions", "2"], ["--input-type", "query"]):
        assert warm(tmp_path, "text\n", *more) == 0
    assert len(picky.sent) == 4


def test_objects(tmp_path: Path, picky: Picky, capsys: pytest.CaptureFixture[str]) -> None:
    """A .jsonl file has objects with the text; a line that is none is named, and the others are made."""
    lines = [
        json.dumps({"text": "one", "id": 7}),
        json.dumps({"input": "two"}),
        "{",
        json.dumps({"text": ""}),
        json.dumps({"text": 5}),
        json.dumps({"text": "three"}),
    ]
    assert warm(tmp_path, "\n".join(lines), name="texts.jsonl") == 1
    assert picky.sent == [("one", "two", "three")]
    said = capsys.readouterr()
    assert said.out == "3 made (3 tokens), 0 known, 3 failed\n"
    named = [line.partition("texts.jsonl:")[2].partition(":")[0] for line in said.err.splitlines()]
    assert named == ["3", "4", "5"]


def test_refused_lines_are_found_and_named(
    tmp_path: Path, picky: Picky, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a batch that is refused only what is wrong is left out."""
    assert warm(tmp_path, "a\nb\nbad\nd\ne\nbad too\ng\nh\n") == 1
    said = capsys.readouterr()
    assert said.out.startswith("6 made")
    assert [line.split(":")[1] for line in said.err.splitlines()] == ["3", "6"]
    assert "this text is refused" in said.err


def test_lines_that_cannot_be_read(tmp_path: Path, picky: Picky, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no UTF-8 and lines without an end are named; the file is never read as a whole."""
    file = tmp_path / "texts.txt"
    file.write_bytes(b"one\n\xff\xfe\n" + b"x" * (2 * cache_warm.MAX_LINE + 5) + b"\nlast")
    assert asyncio.run(cache_warm.warm(parsed(str(file), "--model", "vectors"), settings(tmp_path))) == 1
    assert picky.sent == [("one", "last")]
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == ["2", "3"]


def test_a_target_that_asks_to_wait_is_waited_for(tmp_path: Path, picky: Picky) -> None:
    """A rate limit delays the run, and does not end it."""
    picky.errors = [UpstreamRateLimitError("slow down", retry_after=0.001)] * 3
    assert warm(tmp_path, "one\n") == 0
    assert len(picky.sent) == 4


def test_a_target_that_is_down_ends_the_run_where_it_is(
    tmp_path: Path, picky: Picky, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is named, and the next run goes on there."""
    file = tmp_path / "texts.txt"
    file.write_text("a\nb\nc\n", "utf-8")
    picky.errors = []

    async def scenario() -> None:
        arguments = parsed(str(file), "--model", "vectors", "--batch", "1")
        gateway = Gateway(settings(tmp_path))
        try:
            embedder = cache_warm.cached(gateway, "vectors")
            run = cache_warm.Warming(arguments, embedder, 5)
            await run._send([cache_warm.Line(1, "a")])
            picky.errors = [UpstreamError("down")]
            with pytest.raises(UpstreamError):
                await run._send([cache_warm.Line(2, "b")])
        finally:
            await gateway.aclose()

    asyncio.run(scenario())
    assert "texts.txt:2: stopped here" in capsys.readouterr().err
    assert warm(tmp_path, "a\nb\nc\n", "--batch", "1") == 0
    assert picky.sent[-2:] == [("b",), ("c",)]


@pytest.mark.parametrize(
    ("sections", "more", "said"),
    [
        ({"store": MemoryStore()}, [], "store"),
        ({"cache": Cache()}, [], "cache.mode"),
        ({"embeddings": {"other": Embedding(target="simulated/embed")}}, [], "other"),
    ],
)
def test_where_nothing_would_be_kept_nothing_is_made(
    tmp_path: Path, sections: Any, more: list[str], said: str
) -> None:
    """A configuration that makes the run useless is refused, with what was expected."""
    with pytest.raises(ConfigError, match=said):
        warm(tmp_path, "one\n", *more, **sections)


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there and a batch that no target takes are refused."""
    missing = parsed(str(tmp_path / "absent"), "--model", "vectors")
    with pytest.raises(ConfigError, match="absent"):
        asyncio.run(cache_warm.warm(missing, settings(tmp_path)))
    with pytest.raises(SystemExit):
        parsed("f", "--model", "m", "--batch", "0")
    assert "expected 1 to 2048" in capsys.readouterr().err


def test_the_bar_is_for_terminals(
    tmp_path: Path, picky: Picky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal one line is written anew, elsewhere there is a line now and then."""
    content = "".join(f"text {number}\n" for number in range(45))
    assert warm(tmp_path, content, "--batch", "1") == 0
    plain = capsys.readouterr().err
    assert "\r" not in plain
    assert len(plain.splitlines()) == 2
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert warm(tmp_path, content, "--batch", "15") == 0
    bar = capsys.readouterr().err
    assert bar.count("\r") == 4
    assert bar.endswith("100% 0 made, 45 known, 0 failed\n")


def test_the_simulated_embedder_end_to_end(tmp_path: Path) -> None:
    """What was warmed is what the endpoint's embedder finds."""
    assert warm(tmp_path, "one\ntwo\n") == 0

    async def scenario() -> int:
        gateway = Gateway(settings(tmp_path))
        try:
            embedder = cache_warm.cached(gateway, "vectors")
            now = asyncio.get_running_loop().time()
            await embedder.embed(EmbedCall(EmbedRequest("vectors", ("two", "one")), now + 5))
            return embedder.hits
        finally:
            await gateway.aclose()

    assert asyncio.run(scenario()) == 2
