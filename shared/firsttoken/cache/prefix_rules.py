"""How each provider wants to be told what to cache, and how it counts it."""

from __future__ import annotations

from datetime import date
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.prices import Prices, prices_of
from firsttoken.settings import (
    AnthropicProvider,
    AzureProvider,
    BedrockProvider,
    GeminiProvider,
    OpenAIProvider,
    Provider,
    SimulatedProvider,
    VertexProvider,
)

_UNKNOWN = Prices()


class Rules(Struct, frozen=True, kw_only=True):
    """What holds for one model of a provider."""

    wire: str = ""
    """The format that the target speaks."""
    marks: Literal["", "cache_control", "cachePoint"] = ""
    """The word for a marker; empty where the provider takes none, or needs none."""
    tools: bool = True
    """Whether a marker may stand behind tools."""
    key: bool = False
    """Whether a cache key brings the calls of a conversation to the same machine."""
    prices: Prices = _UNKNOWN
    price: float = 0.0
    """Of a million tokens of input, in the operator's currency; 0 when unknown."""

    def saved(self, cached: int, written: int, ttl: str) -> float:
        """Return the money that caching saved, less than 0 where writes cost more than reads saved."""
        shares = cached * (1 - self.prices.read) - written * (self.prices.write_for(ttl) - 1)
        return self.price * shares / 1_000_000


def rules_of(provider: Provider, model: str, *, price: float = 0.0, on: date | None = None) -> Rules:
    """Return the rules for a model; ``price`` is the operator's own, in place of the list's."""
    match provider:
        case AnthropicProvider():
            rules = Rules(wire="anthropic", marks="cache_control")
        case VertexProvider() if model.startswith("claude-"):
            rules = Rules(wire="anthropic", marks="cache_control")
        case VertexProvider() | GeminiProvider():
            rules = Rules(wire="gemini")
        case BedrockProvider(api="converse"):
            rules = _bedrock(model)
        case OpenAIProvider() | AzureProvider():
            wire = "openai-responses" if provider.api == "responses" else "openai-chat"
            rules = Rules(wire=wire, key=_takes_key(provider))
        case SimulatedProvider() | _:
            rules = Rules()
    prices = prices_of(model, on)
    if prices is None:
        return replace(rules, price=0.0)
    if isinstance(provider, BedrockProvider) and prices.minimum_bedrock:
        prices = replace(prices, minimum=prices.minimum_bedrock)
    return replace(rules, prices=prices, price=price or prices.input)


def _bedrock(model: str) -> Rules:
    """Return the rules of Bedrock: Claude takes checkpoints everywhere, Nova not behind tools."""
    if "claude" in model:
        return Rules(wire="bedrock-converse", marks="cachePoint")
    if "nova" in model:
        return Rules(wire="bedrock-converse", marks="cachePoint", tools=False)
    return Rules(wire="bedrock-converse")


def _takes_key(provider: OpenAIProvider | AzureProvider) -> bool:
    """Return whether a server is OpenAI's own, or Azure: others may refuse a field that they don't know."""
    from urllib.parse import urlsplit

    host = urlsplit(provider.base_url).hostname or ""
    return isinstance(provider, AzureProvider) or host == "api.openai.com" or host.endswith(".openai.com")
