"""What providers charge for cached prompts, and from how many tokens on they cache at all.

One row a model, with the day from which it holds and where it was read. Shares are of the price of input:
those decide what pays, and hold for resellers' prices too; the price itself only turns tokens into money.
"""

from __future__ import annotations

from datetime import date, timedelta

from msgspec import Struct

_ANTHROPIC = "platform.claude.com: Prompt caching, Pricing; read 2026-10-24"
_BEDROCK = "docs.aws.amazon.com/bedrock: Prompt caching; aws.amazon.com/bedrock/pricing; read 2026-11-22"
_OPENAI = "developers.openai.com: Prompt caching, Pricing; read 2026-11-22"
_GOOGLE = "ai.google.dev/gemini-api/docs: Context caching, Pricing; read 2026-10-07"
_LONG_AGO = date(2024, 1, 1)


class Prices(Struct, frozen=True, kw_only=True):
    """The prices of a model's prompts.

    ``read`` and ``write`` are shares of the price of input. Providers charge more for very long prompts;
    that is not in here, so savings are understated there.
    """

    model: str = ""
    """Part of the names of the models that this is about."""
    input: float = 0.0
    """US dollars for a million tokens; 0 when unknown."""
    read: float = 1.0
    write: float = 1.0
    """Of what is kept for five minutes, or for as long as the provider likes."""
    write_1h: float = 0.0
    """Of what is kept for an hour; 0 where that cannot be asked for."""
    storage: float = 0.0
    """US dollars for a million tokens and hour in an explicit cache; 0 where there is none, or unknown."""
    minimum: int = 1024
    """Tokens that a prefix must have to be cached."""
    minimum_bedrock: int = 0
    """The same on Bedrock; 0 where it is no other."""
    since: date = _LONG_AGO
    source: str = ""

    def write_for(self, ttl: str) -> float:
        """Return the share of the price of input that a write costs; ``ttl`` is ``5m`` or ``1h``."""
        return self.write_1h if ttl == "1h" and self.write_1h else self.write

    def storage_share(self, seconds: float) -> float:
        """Return what it costs to store a token so long, as a share of the price of input."""
        return self.storage * seconds / 3600 / self.input if self.input else 0.0


def _claude(  # noqa: PLR0913 - the columns of the table
    model: str,
    dollars: float,
    read: float,
    minimum: int,
    *,
    bedrock: int = 0,
    since: date = _LONG_AGO,
) -> Prices:
    return Prices(
        model=model,
        input=dollars,
        read=read,
        write=1.25,
        write_1h=2.0,
        minimum=minimum,
        minimum_bedrock=bedrock,
        since=since,
        source=_ANTHROPIC,
    )


def _nova(model: str, dollars: float, minimum: int) -> Prices:
    return Prices(model=model, input=dollars, read=0.25, minimum=minimum, source=_BEDROCK)


def _gpt(model: str, dollars: float, read: float) -> Prices:
    return Prices(model=model, input=dollars, read=read, write=1.25, source=_OPENAI)


def _gemini(model: str, dollars: float, storage: float, minimum: int, *, since: date = _LONG_AGO) -> Prices:
    return Prices(
        model=model,
        input=dollars,
        read=0.1,
        storage=storage,
        minimum=minimum,
        since=since,
        source=_GOOGLE,
    )


TABLE = (
    _claude("claude", 0, 0.1, 4096),  # whatever is not named below
    _claude("claude-fable-5", 0, 0.1, 512, bedrock=1024),
    _claude("claude-fable-5-1", 10, 0.025, 512, bedrock=1024),
    _claude("claude-opus-5-5", 4, 0.05, 512),
    _claude("claude-opus-5", 5, 0.1, 512),
    _claude("claude-opus-4-8", 5, 0.1, 1024),
    _claude("claude-opus-4-7", 5, 0.1, 2048, bedrock=4096),
    _claude("claude-opus-4-6", 5, 0.1, 4096),
    _claude("claude-opus-4-5", 5, 0.1, 4096),
    _claude("claude-opus-4", 15, 0.1, 1024),
    _claude("claude-sonnet-5-5", 2, 0.1, 512),
    _claude("claude-sonnet-5-5", 2, 0.05, 512, since=date(2026, 10, 7)),
    _claude("claude-sonnet-5", 2, 0.1, 1024),
    _claude("claude-sonnet-4-6", 3, 0.1, 1024, bedrock=2048),
    _claude("claude-sonnet-4", 3, 0.1, 1024),
    _claude("claude-haiku-5-5", 0.1, 0.1, 4096, since=date(2026, 10, 7)),  # its minimum is not documented
    _claude("claude-haiku-4-5", 1, 0.1, 4096),
    _nova("nova", 0, 1536),  # whatever is not named below
    _nova("nova-2-lite", 0.3, 1536),
    _nova("nova-micro", 0.035, 1536),
    _gpt("gpt-6-astra", 10, 0.1),
    _gpt("gpt-6.1-sol", 2, 0.05),
    _gpt("gpt-6.1-terra", 1, 0.05),
    _gpt("gpt-6-luna", 0.1, 0.1),
    _gpt("gpt-5.6-terra", 1, 0.1),
    _gemini("gemini-3.8-flash", 0.75, 0.5, 4096),
    _gemini("gemini-3.8-flash", 1.5, 1.0, 4096, since=date(2027, 1, 1)),
    _gemini("gemini-3.1-pro", 2, 4.5, 4096),
    _gemini("gemini-3.5-flash-lite", 0.3, 0, 4096),
    _gemini("gemini-2.5-pro", 1.25, 4.5, 2048),
    _gemini("gemini-2.5-flash-lite", 0.1, 1.0, 2048),
    _gemini("gemini-2.5-flash", 0.3, 1.0, 2048),
)
"""Of the rows whose name is part of a model's, the longest name counts, and of those the newest row."""


def prices_of(model: str, on: date | None = None) -> Prices | None:
    """Return the prices of a model on a day (today in UTC), or None for one that is not in the table."""
    day = on or _today()
    rows = [row for row in TABLE if row.model in model and row.since <= day]
    return max(rows, key=lambda row: (len(row.model), row.since), default=None)


def _today() -> date:
    from time import time

    return date(1970, 1, 1) + timedelta(days=time() // 86_400)
