"""A distilled static table as an embedder: a vector a token, and a text is their mean.

Reads a folder as Model2Vec writes it (``model.safetensors``, ``tokenizer.json``, ``config.json``) with
nothing but Python: the table is mapped into memory, so that a cold start reads only the rows that it needs.
The table is made beforehand, from a model of the operator's choice; nothing is ever downloaded.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.embedding import normalised, pack
from firsttoken.errors import ConfigError
from firsttoken.providers.wordpiece import WordPiece

_FORMATS = {"F32": "f", "F16": "e", "I8": "b"}
"""How safetensors calls a number, and how struct does."""
_MAX_HEADER = 100_000_000
MAX_TOKENS = 512
"""Of a text, where the table does not say; what follows them is left out, as Model2Vec does."""


class _Tensor(Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class _Config(Struct, frozen=True):
    max_length: int | None = MAX_TOKENS


class StaticTable:
    """A table of vectors. Memory: the vocabulary, and the rows that the system keeps of the mapped file."""

    def __init__(self, path: str, where: str) -> None:
        """Open the table in the folder ``path``. Raises ConfigError naming ``where`` it was configured."""
        folder = Path(path)
        try:
            self._pieces = WordPiece(msgspec.json.decode((folder / "tokenizer.json").read_bytes()))
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
            with (folder / "model.safetensors").open("rb") as file:
                self._table = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            tensor, self._start = _find(self._table)
        except (OSError, msgspec.DecodeError, ValueError, struct.error) as error:
            expected = "expected a folder with model.safetensors, tokenizer.json and config.json of Model2Vec"
            raise ConfigError(f"{where}: {path!r} is no static table: {error}; {expected}") from error
        rows, self.dimensions = tensor.shape
        if rows < self._pieces.size:
            raise ConfigError(f"{where}: the table has {rows} rows for {self._pieces.size} tokens")
        self._row = struct.Struct(f"<{self.dimensions}{_FORMATS[tensor.dtype]}")
        self._limit = config.max_length
        self.name = folder.name

    def embed(self, text: str, dimensions: int) -> bytes:
        """Return the vector of ``text``: of length 1, cut to its first ``dimensions`` numbers.

        Time: 5 us of CPU a token and 256 dimensions. Tokens that the table does not know count for nothing
        beside others.
        """
        tokens = self._pieces.tokens(text, self._limit) or [self._pieces.unknown]
        unpack, start, size = self._row.unpack_from, self._start, self._row.size
        rows = [unpack(self._table, start + token * size) for token in tokens]
        total: Any = rows[0] if len(rows) == 1 else list(map(sum, zip(*rows, strict=True)))
        return pack(normalised(total[:dimensions]))


def _find(table: mmap.mmap) -> tuple[_Tensor, int]:
    """Return the tensor of vectors and where its bytes begin. Raises ValueError."""
    (length,) = struct.unpack_from("<Q", table)
    if length > min(len(table) - 8, _MAX_HEADER):
        raise ValueError("the head of model.safetensors is cut")
    head = msgspec.json.decode(table[8 : 8 + length], type=dict[str, Any])
    if set(head) - {"__metadata__"} != {"embeddings"}:
        raise ValueError("model.safetensors must hold one tensor 'embeddings' (no vocabulary quantization)")
    tensor = msgspec.convert(head["embeddings"], _Tensor)
    if tensor.dtype not in _FORMATS or len(tensor.shape) != 2 or len(tensor.data_offsets) != 2:
        raise ValueError(f"the tensor must be a table of {', '.join(_FORMATS)}")
    begin, end = tensor.data_offsets
    size = struct.calcsize(_FORMATS[tensor.dtype]) * tensor.shape[0] * tensor.shape[1]
    if begin < 0 or end - begin != size or 8 + length + end > len(table) or not size:
        raise ValueError("model.safetensors is cut")
    return tensor, 8 + length + begin
