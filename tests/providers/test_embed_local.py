"""Embedders inside this process: what their vectors promise."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import subprocess
import sys
from math import isclose
from pathlib import Path
from typing import Any

import pytest

from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, unpack
from firsttoken.errors import ConfigError
from firsttoken.providers import lexical
from firsttoken.providers.embed_local import embedder
from firsttoken.providers.wordpiece import WordPiece
from firsttoken.settings import LocalProvider

TEXTS = (
    "How do I reset my password?",
    "resetting a password",
    "The weather in Zürich",
    "東京の天気",
    "🙂🙂",
    "the of and",
    "   ",
)


def near(one: str, other: str, dimensions: int = 384) -> float:
    pairs = zip(unpack(lexical.embed(one, dimensions)), unpack(lexical.embed(other, dimensions)), strict=True)
    return sum(a * b for a, b in pairs)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("dimensions", [64, 384, 1000, 4096])
def test_lexical_vectors_have_length_one(text: str, dimensions: int) -> None:
    """Whatever the text, its vector has the wanted dimensions and length 1."""
    vector = unpack(lexical.embed(text, dimensions))
    assert len(vector) == dimensions
    assert isclose(sum(value * value for value in vector), 1, rel_tol=1e-5)


def test_lexical_vectors_never_change() -> None:
    """The same text has the same vector in every process, version and place: indexes are built on it."""
    code = (
        "import sys; from firsttoken.providers import lexical\n"
        f"for text in {TEXTS!r}: sys.stdout.buffer.write(lexical.embed(text, 384))"
    )
    env = {"PYTHONPATH": str(Path(lexical.__file__).parents[2]), "PYTHONHASHSEED": "7"}
    elsewhere = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    here = b"".join(lexical.embed(text, 384) for text in TEXTS)
    assert elsewhere == here
    assert hashlib.sha256(here).hexdigest()[:16] == "330d3136fdb4178d"


def test_lexical_nearness() -> None:
    """Texts that share words or parts of words are near; order, case and width of letters do not count."""
    assert near("reset my password", "password resetting") > 0.4
    assert near("reset my password", "the weather in Zürich") < 0.2
    assert near("ZÜRICH Weather", "weather zürich") > 0.999
    assert near("\uff21\uff22\uff23", "abc") > 0.999
    assert near("東京の天気", "東京の地図") > 0.3


def ask(model: str, provider: LocalProvider, **fields: Any) -> Embeddings:
    request = EmbedRequest(model="m", **fields)
    return asyncio.run(embedder("l", provider, model, None).embed(EmbedCall(request=request, deadline=0.0)))


def test_lexical_settings() -> None:
    """The configured dimensions are those of a request that says none."""
    answer = ask("lexical", LocalProvider(dimensions=128), inputs=tuple(TEXTS * 10))
    assert {len(vector) for vector in answer.vectors} == {512}
    assert answer.vectors[:7] == answer.vectors[-7:]
    assert (answer.model, answer.estimated) == (lexical.MODEL, True)


VOCABULARY = {"[UNK]": 0, "cat": 1, "kit": 2, "##ten": 3, "dog": 4, "!": 5, "東": 6, "zurich": 7, "\u03c3": 8}
ROWS = [(9, 0, 0), (1, 0, 0), (1, 2, 0), (1, -2, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (3, 4, 0), (1, 1, 1)]


def table(folder: Path, number: str = "F32", **changes: Any) -> LocalProvider:
    """Write a tiny static table as Model2Vec does."""
    flat = [value for row in ROWS for value in row]
    data = struct.pack(f"<{len(flat)}{ {'F32': 'f', 'F16': 'e', 'I8': 'b'}[number] }", *flat)
    shape, offsets = [len(ROWS), 3], [0, len(data)]
    tensor = {"dtype": number, "shape": shape, "data_offsets": offsets, **changes.get("tensor", {})}
    head = json.dumps({"__metadata__": {"format": "pt"}, changes.get("name", "embeddings"): tensor}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    tokenizer = {
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": VOCABULARY},
    }
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **changes.get("tokenizer", {})}))
    (folder / "config.json").write_text(json.dumps({"normalize": True, "max_length": 4}))
    return LocalProvider(path=str(folder))


@pytest.mark.parametrize("number", ["F32", "F16", "I8"])
def test_static_tables(tmp_path: Path, number: str) -> None:
    """A text is the mean of its tokens' rows, scaled to length 1; unknown words count for nothing."""
    provider = table(tmp_path, number)
    texts = ("cat", "Kitten", "cat kitten qqq", "dog!", "Zürich", "qqq", "dog " * 9)
    vectors = [unpack(vector) for vector in ask("static", provider, inputs=texts).vectors]
    half = 0.5**0.5
    expected = [(1, 0, 0), (1, 0, 0), (1, 0, 0), (0, half, half), (0.6, 0.8, 0), (1, 0, 0), (0, 1, 0)]
    assert vectors == [pytest.approx(vector) for vector in expected]
    assert ask("static", provider, inputs=("x",)).model == tmp_path.name


def test_static_dimensions(tmp_path: Path) -> None:
    """Fewer dimensions are the first ones, scaled again: such tables have the important ones in front."""
    (vector,) = ask("static", table(tmp_path), inputs=("dog!",), dimensions=2).vectors
    assert unpack(vector) == (0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"tensor": {"dtype": "BF16"}},
        {"tensor": {"shape": [9]}},
        {"tensor": {"shape": [9, 4]}},
        {"tensor": {"data_offsets": [0, 999]}},
        {"tensor": {"data_offsets": [-4, 104]}},
        {"name": "weights"},
        {"tokenizer": {"pre_tokenizer": {"type": "Metaspace"}}},
        {"tokenizer": {"model": {"type": "Unigram", "vocab": []}}},
        {"tokenizer": {"model": {"type": "WordPiece", "unk_token": "?", "vocab": VOCABULARY}}},
        {"tokenizer": {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 9}}}},
    ],
)
def test_broken_tables_stop_the_start(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A table that cannot be used is a mistake in the configuration, named with its key."""
    with pytest.raises(ConfigError, match=r"providers\.l\.path"):
        embedder("l", table(tmp_path, **changes), "static", None)


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_cut_and_missing_tables_stop_the_start(tmp_path: Path, cut: int) -> None:
    """A file that is cut, or not there, is noticed when it is opened."""
    provider = table(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"providers\.l\.path"):
        embedder("l", provider, "static", None)
    file.unlink()
    with pytest.raises(ConfigError, match=r"providers\.l\.path"):
        embedder("l", provider, "static", None)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("cat dog", [1, 4]),
        ("KITTEN", [2, 3]),
        ("kittens cat", [1]),
        ("cat!dog", [1, 5, 4]),
        ("東東", [6, 6]),
        ("ca\u0000t\u200b", [1]),
        ("Zu\u0308rich", [7]),
        ("\u03a3", [8]),
        ("k" * 101, []),
        ("", []),
    ],
)
def test_wordpiece(text: str, tokens: list[int]) -> None:
    """Texts are cleaned, split and looked up as BERT's tokenizer does; unknown words are left out."""
    tokenizer = {
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": VOCABULARY},
    }
    assert WordPiece(tokenizer).tokens(text) == tokens
