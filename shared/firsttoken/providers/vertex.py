"""Gemini and Claude on Vertex AI (Agent Platform): one address scheme, two wire formats.

The name of a model says whose it is: ``claude-...`` is Anthropic's and speaks its format, ``endpoints/ID`` is
a tuned Gemini, anything else is a model of Google's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from urllib.parse import quote

import msgspec

from firsttoken.config import key_of
from firsttoken.model import Call, Chunk, Model
from firsttoken.providers.gemini import method
from firsttoken.providers.google_auth import authorize
from firsttoken.providers.upstream import Authorize, Connection, Upstream, bearer
from firsttoken.settings import VertexProvider
from firsttoken.wire import codec_of

_ANY = "*"
_MULTI_REGIONS = ("us", "eu")
_CLAUDE = "claude-"
_TRAFFIC = {
    "priority": "x-vertex-ai-llm-shared-request-type",
    "flex": "x-vertex-ai-llm-shared-request-type",
    "shared": "x-vertex-ai-llm-request-type",
    "dedicated": "x-vertex-ai-llm-request-type",
}
"""The header that asks for a kind of traffic.

Source: the Vertex AI guides "Priority PayGo" and "Provisioned Throughput".
"""


class ByName:
    """A model that is Google's or Anthropic's, as the name that the client said tells."""

    def __init__(self, google: Upstream, anthropic: Upstream) -> None:
        self._google = google
        self._anthropic = anthropic

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer of the model that ``call`` names."""
        claude = call.request.model.startswith(_CLAUDE)
        return (self._anthropic if claude else self._google).stream(call)


def chat(name: str, settings: VertexProvider, model: str, connection: Connection) -> Model:
    """Return a model of the project. Raises ConfigError when its credentials cannot be had."""
    add = authorization(name, settings)
    linked = link(settings, connection)

    def google() -> Upstream:
        return Upstream(model, codec_of("gemini.vertex"), _google_url(settings), linked, add)

    def anthropic() -> Upstream:
        from firsttoken.wire.anthropic import vertex_codec

        return Upstream(model, vertex_codec(settings), _anthropic_url(settings), linked, add)

    if model == _ANY:
        return ByName(google(), anthropic())
    return anthropic() if model.startswith(_CLAUDE) else google()


def authorization(name: str, settings: VertexProvider) -> Authorize:
    """Return what adds the configured access token, or one of the application-default credentials."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    return bearer(key) if key else authorize(name)


def link(settings: VertexProvider, connection: Connection) -> Connection:
    """Return ``connection`` with the header of the kind of traffic that is asked for."""
    if not settings.traffic:
        return connection
    headers = [*connection.headers, (_TRAFFIC[settings.traffic], settings.traffic)]
    return msgspec.structs.replace(connection, headers=headers)


def parent(settings: VertexProvider) -> str:
    """Return the address of project and location, where all models are."""
    place = f"projects/{quote(settings.project)}/locations/{quote(settings.location)}"
    return f"{host(settings)}/{settings.api_version}/{place}"


def host(settings: VertexProvider) -> str:
    """Return scheme and host of the configured location.

    Source: the Vertex AI guide "Deployments and endpoints", and Google's SDK ``google-genai``.
    """
    if settings.base_url:
        return settings.base_url.rstrip("/")
    if settings.location == "global":
        return "https://aiplatform.googleapis.com"
    if settings.location in _MULTI_REGIONS:
        return f"https://aiplatform.{settings.location}.rep.googleapis.com"
    return f"https://{quote(settings.location)}-aiplatform.googleapis.com"


def _google_url(settings: VertexProvider) -> Callable[[str, bool], str]:
    base = parent(settings)

    def url(model: str, stream: bool) -> str:  # noqa: FBT001 - the shape that `Upstream` asks for
        resource = model if model.startswith("endpoints/") else f"publishers/google/models/{model}"
        return f"{base}/{quote(resource)}:{method(stream=stream)}"

    return url


def _anthropic_url(settings: VertexProvider) -> Callable[[str, bool], str]:
    base = f"{parent(settings)}/publishers/anthropic/models"

    def url(model: str, stream: bool) -> str:  # noqa: FBT001 - as above
        return f"{base}/{quote(model)}:{'streamRawPredict' if stream else 'rawPredict'}"

    return url
