"""BERT's tokenizer: text to WordPiece tokens, as Hugging Face's ``tokenizer.json`` describes it.

Schuster and Nakajima, "Japanese and Korean voice search", 2012; the steps are those of the ``tokenizers``
library (``BertNormalizer``, ``BertPreTokenizer``, ``WordPiece``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Literal
from unicodedata import category, normalize

import msgspec
from msgspec import Meta, Struct


class _Normalizer(Struct, frozen=True):
    type: Literal["BertNormalizer"]
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _PreTokenizer(Struct, frozen=True):
    type: Literal["BertPreTokenizer"]


class _Model(Struct, frozen=True):
    type: Literal["WordPiece"]
    vocab: dict[str, Annotated[int, Meta(ge=0)]]
    unk_token: str
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class _Tokenizer(Struct, frozen=True):
    normalizer: _Normalizer
    pre_tokenizer: _PreTokenizer
    model: _Model


class WordPiece:
    """Splits texts into tokens of a fixed vocabulary, longest match first."""

    def __init__(self, tokenizer: Any) -> None:
        """Take the decoded ``tokenizer.json``. Raises ValueError for another kind of tokenizer."""
        wire = msgspec.convert(tokenizer, _Tokenizer)
        self._normalizer = wire.normalizer
        self._model = wire.model
        self._vocabulary = wire.model.vocab
        self.size = max(self._vocabulary.values(), default=-1) + 1
        if wire.model.unk_token not in self._vocabulary:
            raise ValueError(f"the vocabulary has no {wire.model.unk_token}")
        self.unknown = self._vocabulary[wire.model.unk_token]
        self._word = lru_cache(maxsize=8192)(self._split_word)

    def tokens(self, text: str, limit: int | None = None) -> list[int]:
        """Return the first ``limit`` tokens of ``text``, less the unknown ones among them."""
        found = (token for word in self._words(text) for token in self._word(word))
        return [token for token in islice(found, limit) if token != self.unknown]

    def _words(self, text: str) -> Iterator[str]:
        options = self._normalizer
        if options.strip_accents or (options.strip_accents is None and options.lowercase):
            text = "".join([c for c in normalize("NFD", text) if category(c) != "Mn"])
        if options.lowercase:
            # A sigma by itself: at the end of a word it would become a final one.
            text = text.replace("\u03a3", "\u03c3").lower()
        if text.isascii() and text.isalnum():
            yield text
            return
        spaced = [self._spaced(character) for character in text]
        yield from "".join(spaced).split()

    def _spaced(self, character: str) -> str:
        """Return a character as it separates words: punctuation and Chinese characters stand alone."""
        if character.isalnum() and character.isascii():
            return character
        if character in "\t\n\r" or category(character) == "Zs":
            return " "
        kind = category(character)
        if self._normalizer.clean_text and (kind in _CONTROLS or character in "\0\ufffd"):
            return ""
        if kind[0] == "P" or (character.isascii() and kind[0] == "S"):
            return f" {character} "
        alone = self._normalizer.handle_chinese_chars and _is_chinese(character)
        return f" {character} " if alone else character

    def _split_word(self, word: str) -> tuple[int, ...]:
        model, vocabulary = self._model, self._vocabulary
        if len(word) > model.max_input_chars_per_word:
            return (self.unknown,)
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = model.continuing_subword_prefix if start else ""
            end = next(
                (e for e in range(len(word), start, -1) if f"{prefix}{word[start:e]}" in vocabulary), None
            )
            if end is None:
                return (self.unknown,)
            found.append(vocabulary[f"{prefix}{word[start:end]}"])
            start = end
        return tuple(found)


_CONTROLS = ("Cc", "Cf", "Co", "Cs")
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Blocks of CJK ideographs, as in BERT."""


def _is_chinese(character: str) -> bool:
    point = ord(character)
    return any(first <= point <= last for first, last in _CHINESE)
