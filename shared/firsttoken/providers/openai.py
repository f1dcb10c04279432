"""Any server that speaks OpenAI Chat Completions: bytes pass through unchanged in both directions."""

from __future__ import annotations

from firsttoken.config import OpenAIProvider, key_of
from firsttoken.providers.upstream import Connection, Upstream, bearer
from firsttoken.wire import openai_chat


def chat(name: str, settings: OpenAIProvider, model: str, connection: Connection) -> Upstream:
    """Return a model of such a server. Raises ConfigError when its key cannot be had."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    url = settings.base_url.rstrip("/") + "/chat/completions"
    return Upstream(model, openai_chat, lambda _model, _stream: url, connection, bearer(key) if key else None)
