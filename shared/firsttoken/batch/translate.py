"""Requests of a batch in the words of its target, and the target's answers in those of its client."""

from __future__ import annotations

from math import inf

from firsttoken.batch.batch import Batch, derived
from firsttoken.batch.lines import Line
from firsttoken.batch.provider import Result, answered, failed
from firsttoken.chat import ChatRequest
from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Source
from firsttoken.wire import openai_chat
from firsttoken.wire.codec import Codec

UNKNOWN = -1
"""The number of a result that belongs to no line: it is passed over."""


class Translator:
    """Between OpenAI Chat Completions and the format of a target, whose name for the model is ``model``."""

    def __init__(self, batch: Batch, codec: Codec, model: str) -> None:
        self._batch = batch
        self._codec = codec
        self.model = model if model != "*" else batch.model

    def request(self, line: Line) -> bytes:
        """Return the request of a line. Raises UnsupportedFieldError for what the target has no word for."""
        request, source = openai_chat.read_request(line.body)
        return self._codec.write_request(self._call(request, source, line.number), self.model)

    def answer(self, number: int, body: bytes) -> Result:
        """Return what an answer of the target means."""
        request = ChatRequest(model=self._batch.model, messages=())
        call = self._call(request, Source("openai-chat", b"{}"), number)
        try:
            chunk = self._codec.read_answer(body)
            written = openai_chat.write_answer(call, [chunk], int(self._batch.created))
        except FirstTokenError as error:
            return failed(number, error)
        return answered(number, written)

    def error(self, number: int, status: int, body: bytes) -> Result:
        """Return what an error answer of the target means."""
        return failed(number, self._codec.error_from(status, {}, body))

    def _call(self, request: ChatRequest, source: Source, number: int) -> Call:
        name = derived(self._batch, number)
        return Call(request=request, source=source, id=name, deadline=inf, tenant=self._batch.tenant)


def key_of(number: int) -> str:
    """Return what a line is called at a provider: nothing of its client's is told."""
    return f"line{number:07d}"


def number_of(key: object) -> int:
    """Return the number of the line that is called ``key``; `UNKNOWN` for what `key_of` did not make."""
    digits = key.removeprefix("line") if isinstance(key, str) and key.startswith("line") else ""
    return int(digits) if len(digits) == 7 and digits.isdecimal() and digits.isascii() else UNKNOWN
