"""The Gemini Developer API: bytes of clients of the same format pass through unchanged in both directions."""

from __future__ import annotations

from urllib.parse import quote

from firsttoken.config import key_of
from firsttoken.providers.upstream import Connection, Upstream, bearer
from firsttoken.settings import GeminiProvider
from firsttoken.wire import codec_of


def chat(name: str, settings: GeminiProvider, model: str, connection: Connection) -> Upstream:
    """Return a model of the API. Raises ConfigError when its key cannot be had."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    base = settings.base_url.rstrip("/")

    def url(model: str, stream: bool) -> str:  # noqa: FBT001 - the shape that `Upstream` asks for
        # Tuned models have a collection of their own, which is part of their name.
        resource = model if "/" in model else f"models/{model}"
        return f"{base}/{quote(resource)}:{method(stream=stream)}"

    return Upstream(
        model, codec_of("gemini"), url, connection, bearer(key, "x-goog-api-key") if key else None
    )


def method(*, stream: bool) -> str:
    """Return how the operation is called in the path; without ``alt=sse`` a stream is one JSON array."""
    return "streamGenerateContent?alt=sse" if stream else "generateContent"
