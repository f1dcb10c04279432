"""Providers: the servers behind the targets, a kind each."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import NotNegative, Section, Share, Url


class HttpProvider(Section, frozen=True, kw_only=True):
    """What every provider over HTTP can be given. ``api_key`` may be ``env:NAME``."""

    api_key: str = ""
    headers: dict[str, str] = {}
    forward_headers: list[str] = []

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"{type(self).__name__}(...)"


class OpenAIProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """Any server that speaks OpenAI Chat Completions, or with ``api = "responses"`` OpenAI Responses."""

    base_url: Url
    api: Literal["chat", "responses"] = "chat"


class AzureProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="azure"):
    """Azure OpenAI / Foundry, v1 API: ``https://RESOURCE.openai.azure.com/openai/v1``.

    Without ``api_key`` an Entra token is used (managed identity, or whatever azure-identity finds).
    """

    base_url: Url
    api: Literal["chat", "responses"] = "chat"
    scope: str = "https://ai.azure.com/.default"
    spillover: str = ""


class AnthropicProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="anthropic"):
    """Anthropic Messages. It needs a limit of output tokens: ``max_tokens`` where the client says none."""

    base_url: Url = "https://api.anthropic.com"
    version: str = "2023-06-01"
    max_tokens: Annotated[int, Meta(ge=1)] = 4096


class GeminiProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="gemini"):
    """The Gemini Developer API, with an API key."""

    base_url: Url = "https://generativelanguage.googleapis.com/v1beta"


class VertexProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="vertex"):
    """Gemini and Claude on Vertex AI (Agent Platform). ``location`` is global, us, eu, or a region.

    ``api_key`` may hold an access token; without it application-default credentials are used.
    """

    project: str
    location: str = "global"
    base_url: Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")] = ""
    api_version: str = "v1"
    traffic: Literal["", "priority", "flex", "shared", "dedicated"] = ""
    anthropic_version: str = "vertex-2023-10-16"
    max_tokens: Annotated[int, Meta(ge=1)] = 4096


class BedrockProvider(HttpProvider, frozen=True, kw_only=True, tag_field="kind", tag="bedrock"):
    """Amazon Bedrock, Converse operations; ``api = "openai"`` takes its OpenAI-compatible endpoint.

    ``api_key`` is a Bedrock API key; without it requests are signed with the credentials that botocore finds.
    Models are model ids, inference-profile ids, or ARNs (of profiles and provisioned throughput).
    """

    region: Annotated[str, Meta(min_length=1)]
    base_url: Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")] = ""
    api: Literal["converse", "openai"] = "converse"
    latency: Literal["", "standard", "optimized"] = ""
    service_tier: Literal["", "priority", "default", "flex", "reserved"] = ""
    guardrail: str = ""
    guardrail_version: str = "DRAFT"


class SimulatedProvider(Section, frozen=True, tag_field="kind", tag="simulated"):
    """The embedded simulated model. ``faults`` lets a request header choose faults: never in production."""

    seed: int = 0
    ttft_ms: NotNegative = 150.0
    itl_ms: NotNegative = 20.0
    jitter: Share = 0.0
    tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    context_window: Annotated[int, Meta(ge=16)] = 8192
    profile: str = ""
    faults: bool = False


class LocalProvider(Section, frozen=True, tag_field="kind", tag="local"):
    """Embedders inside this process: ``lexical``, and ``static`` with a table of vectors at ``path``."""

    dimensions: Annotated[int, Meta(ge=64, le=4096)] = 384
    path: str = ""


Provider = (
    OpenAIProvider
    | AzureProvider
    | AnthropicProvider
    | GeminiProvider
    | VertexProvider
    | BedrockProvider
    | SimulatedProvider
    | LocalProvider
)
