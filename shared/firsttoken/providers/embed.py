"""What all embedders over HTTP share: one call or many of them at once, the vectors in the texts' order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, checked, estimate_tokens
from firsttoken.errors import UnsupportedFieldError, UpstreamError, UpstreamRefusedError
from firsttoken.providers.http import Response
from firsttoken.providers.upstream import MAX_ERROR_BYTES, Authorize, Connection
from firsttoken.wire import json_body

T = TypeVar("T")

MAX_BYTES = 128 * 1024 * 1024
"""Of one answer: 2048 vectors of 3072 numbers, written out as decimals."""
CONCURRENCY = 8
"""Calls at once for one request, where a target takes fewer texts than the client sends."""

ErrorFrom = Callable[[int, dict[str, str], bytes], UpstreamError]


class Poster:
    """Sends requests to one provider and reads whole answers."""

    def __init__(self, connection: Connection, authorize: Authorize | None, error_from: ErrorFrom) -> None:
        self._connection = connection
        self._authorize = authorize
        self._error_from = error_from

    def answered(self, call: EmbedCall, response: Response) -> None:
        """Take notes of the head of an answer, whatever its status."""

    async def post(self, url: str, body: bytes, call: EmbedCall) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of the answer. Raises UpstreamError and its kinds."""
        link = self._connection
        forwarded = [(name, call.headers[name]) for name in link.forward_headers if name in call.headers]
        json = "application/json"
        headers = [("content-type", json), ("accept", json), *link.headers, *forwarded]
        if self._authorize:
            headers = await self._authorize(url, headers, body)
        response = await link.client.request(
            "POST", url, headers=headers, body=body, timeouts=link.timeouts, deadline=call.deadline
        )
        try:
            self.answered(call, response)
            if response.status != 200:
                said = await response.read(MAX_ERROR_BYTES)
                raise self._error_from(response.status, response.headers, said)
            return await response.read(MAX_BYTES), response.headers
        finally:
            response.close()


class Dialect(Protocol):
    """How one family of models is asked; ``size`` is the number of texts that a call can hold."""

    size: int

    def url(self, model: str) -> str:
        """Return where the model is called."""

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call. Raises UnsupportedFieldError for what the model cannot do."""

    def read(self, body: bytes, headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return the vectors of an answer and the tokens it counts, or None where it does not.

        Raises UpstreamProtocolError.
        """


class Batched:
    """Embeds a request in as many calls as its target needs: all of its texts, or none."""

    def __init__(self, model: str, dialect_of: Callable[[str], Dialect], poster: Poster) -> None:
        self._model = model
        self._dialect_of = dialect_of
        self._poster = poster

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``. One failed call fails the request and cancels the others."""
        request = call.request
        model = request.model if self._model == "*" else self._model
        dialect = self._dialect_of(model)
        _refuse(call, model)
        texts = request.inputs
        batches = [texts[start : start + dialect.size] for start in range(0, len(texts), dialect.size)]
        bodies = [dialect.write(batch, request, model) for batch in batches]
        url = dialect.url(model)

        async def one(position: int) -> tuple[tuple[bytes, ...], int | None]:
            batch = batches[position]
            try:
                vectors, tokens = dialect.read(*await self._poster.post(url, bodies[position], call))
            except UpstreamRefusedError as error:
                if len(texts) == 1:
                    raise
                raise _naming(error, position * dialect.size, len(batch)) from error
            return checked(vectors, len(batch)), tokens

        answers = await in_order([partial(one, position) for position in range(len(batches))])
        counts = [tokens for _, tokens in answers]
        estimated = any(count is None for count in counts)
        return Embeddings(
            vectors=checked([vector for vectors, _ in answers for vector in vectors], len(texts)),
            tokens=estimate_tokens(texts) if estimated else sum(filter(None, counts)),
            estimated=estimated,
            model=model,
        )


async def in_order(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int = CONCURRENCY) -> list[T]:
    """Run ``jobs``, at most ``limit`` of them at once, and return their results in their order.

    The first error is raised, and what still runs is cancelled.
    """
    if len(jobs) == 1:
        return [await jobs[0]()]
    results: dict[int, T] = {}
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for position, job in waiting:
            results[position] = await job()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [results[position] for position in range(len(jobs))]


def _refuse(call: EmbedCall, model: str) -> None:
    json_body.refuse_unknown(call.source, model)
    if call.request.tokens:
        message = f"input: {model} reads texts, not tokens of another model's vocabulary."
        raise UnsupportedFieldError(message, param="input")
    if call.request.user:
        raise json_body.unsupported("user", model)


def _naming(error: UpstreamRefusedError, first: int, size: int) -> UpstreamRefusedError:
    """Return the refusal of one call, naming the texts that it held."""
    where = f"input[{first}]" if size == 1 else f"input[{first}] to input[{first + size - 1}]"
    return UpstreamRefusedError(f"{where}: {error}", status=error.status, param="input", code=error.code)


def no_choice(request: EmbedRequest, model: str, choices: Sequence[int]) -> None:
    """Refuse a number of dimensions that is not among ``choices``. Raises UnsupportedFieldError."""
    if request.dimensions is not None and request.dimensions not in choices:
        known = ", ".join(map(str, choices))
        message = f"dimensions: {model} has vectors of {known}; got {request.dimensions}."
        raise UnsupportedFieldError(message, param="dimensions")
