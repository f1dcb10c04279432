"""Any server that speaks OpenAI Chat Completions: bytes pass through unchanged in both directions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from firsttoken.config import OpenAIProvider, secret
from firsttoken.errors import ConfigError, UpstreamProtocolError
from firsttoken.model import Call, Chunk
from firsttoken.providers.http import HttpClient, Response, Timeouts
from firsttoken.wire import openai_chat
from firsttoken.wire.openai_errors import error_from

MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


class OpenAICompatible:
    """A model of such a server. Holds no state of a call; shares the process's one HTTP client."""

    def __init__(
        self, name: str, settings: OpenAIProvider, model: str, client: HttpClient, timeouts: Timeouts
    ) -> None:
        self._model = model
        self._client = client
        self._timeouts = timeouts
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        key = secret(settings.api_key, f"providers.{name}.api_key")
        if (key and not key.isascii()) or "\n" in key or "\r" in key:
            raise ConfigError(f"providers.{name}.api_key: expected printable ASCII without line breaks")
        self._headers = [("content-type", "application/json"), *settings.headers.items()]
        if key:
            self._headers.append(("authorization", f"Bearer {key}"))
        self._forward = [header.lower() for header in settings.forward_headers]

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the server's answer.

        Raises UpstreamError and its kinds; closes the connection when it is closed.
        """
        model = call.request.model if self._model == "*" else self._model
        response = await self._client.request(
            "POST",
            self._url,
            headers=self._headers_for(call),
            body=openai_chat.write_request(call, model),
            timeouts=self._timeouts,
            deadline=call.deadline,
        )
        try:
            if response.status != 200:
                body = await response.read(MAX_ERROR_BYTES)
                raise error_from(response.status, response.headers, body)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async for chunk in _read_stream(response, whole=not call.request.stream):
                    yield chunk
            else:
                yield _answer(await response.read(MAX_ANSWER_BYTES), whole=not call.request.stream)
        finally:
            response.close()

    def _headers_for(self, call: Call) -> list[tuple[str, str]]:
        accept = ("accept", "text/event-stream" if call.request.stream else "application/json")
        forwarded = [(name, call.headers[name]) for name in self._forward if name in call.headers]
        return [*self._headers, accept, *forwarded]


def _answer(body: bytes, *, whole: bool) -> Chunk:
    chunk = openai_chat.read_answer(body)
    if chunk.finish is None and not (chunk.text or chunk.tool_calls):
        raise UpstreamProtocolError("The target's answer has no choices.")
    return chunk if whole else openai_chat.decoded(chunk)


async def _read_stream(response: Response, *, whole: bool) -> AsyncGenerator[Chunk]:
    reader = openai_chat.StreamReader()
    async for received in response.chunks():
        chunk = reader.feed(received)
        if chunk is not None:
            yield openai_chat.decoded(chunk) if whole else chunk
        if reader.done:
            break
    reader.close()
