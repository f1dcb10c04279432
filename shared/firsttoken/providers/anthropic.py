"""Anthropic's own API: Messages, and its count of tokens.

Source: Claude API reference, "Messages" and "Count tokens in a message".
"""

from __future__ import annotations

import msgspec

from firsttoken.config import key_of
from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Call, Chunk, Usage
from firsttoken.providers.upstream import Connection, Upstream, bearer
from firsttoken.settings import AnthropicProvider
from firsttoken.wire.anthropic import Dialect

VERSION_HEADER = "anthropic-version"


class _Count(msgspec.Struct, frozen=True):
    input_tokens: int


_count = msgspec.json.Decoder(_Count)


class _CountDialect(Dialect):
    """What the path that counts tokens speaks: the same requests, and answers that are a number."""

    @staticmethod
    def read_answer(body: bytes) -> Chunk:
        """Decode a count. Raises UpstreamProtocolError."""
        try:
            count = _count.decode(body).input_tokens
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamProtocolError(
                f"The target's count of tokens is not what was expected: {error}"
            ) from error
        return Chunk(finish="stop", usage=Usage(input=count))


class Anthropic(Upstream):
    """A model of Anthropic's, which can also count the tokens of a request."""

    def __init__(self, name: str, settings: AnthropicProvider, model: str, connection: Connection) -> None:
        key = key_of(settings.api_key, f"providers.{name}.api_key")
        authorize = bearer(key, "x-api-key") if key else None
        url = settings.base_url.rstrip("/") + "/v1/messages"
        link = _with_version(connection, settings.version)
        codec = Dialect(max_tokens=settings.max_tokens)
        super().__init__(model, codec, lambda _model, _stream: url, link, authorize)
        self._counter = Upstream(
            model, _CountDialect(), lambda _model, _stream: f"{url}/count_tokens", link, authorize
        )

    async def count_tokens(self, call: Call) -> int:
        """Return how many input tokens ``call`` has, as the target counts them. Raises UpstreamError."""
        counted = [chunk.usage async for chunk in self._counter.stream(call)]
        return counted[0].input if counted and counted[0] else 0


def _with_version(connection: Connection, version: str) -> Connection:
    if any(name.lower() == VERSION_HEADER for name, _ in connection.headers):
        return connection
    return msgspec.structs.replace(connection, headers=[(VERSION_HEADER, version), *connection.headers])


def chat(name: str, settings: AnthropicProvider, model: str, connection: Connection) -> Anthropic:
    """Return a model of Anthropic's API. Raises ConfigError when its key cannot be had."""
    return Anthropic(name, settings, model, connection)
