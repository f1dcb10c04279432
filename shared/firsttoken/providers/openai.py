"""Any server that speaks OpenAI's formats: bytes pass through unchanged in both directions."""

from __future__ import annotations

from functools import partial

from firsttoken.config import key_of
from firsttoken.providers.upstream import Connection, Upstream, bearer
from firsttoken.settings import OpenAIProvider
from firsttoken.wire import codec_of

CODECS = {
    "chat": (partial(codec_of, "openai_chat"), "/chat/completions"),
    "responses": (partial(codec_of, "openai_responses"), "/responses"),
}
"""The wire formats of OpenAI's API and where they are served."""


def chat(name: str, settings: OpenAIProvider, model: str, connection: Connection) -> Upstream:
    """Return a model of such a server. Raises ConfigError when its key cannot be had."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    codec, path = CODECS[settings.api]
    url = settings.base_url.rstrip("/") + path
    return Upstream(model, codec(), lambda _model, _stream: url, connection, bearer(key) if key else None)
