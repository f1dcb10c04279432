"""The catalogue of models: what each costs from which day on, how long it reads and writes, and who says so.

It is data (``models.json``): what no source was found for is left out, never guessed. The tiers are ours:
*fast* is what a provider sells as small and quick, *quality* its strongest, *balanced* what lies between.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from firsttoken.errors import ConfigError

Tier = Literal["fast", "balanced", "quality"]
TIERS: tuple[Tier, ...] = ("fast", "balanced", "quality")
PREFIXES = ("global.", "us.", "eu.", "apac.", "jp.", "au.", "ca.", "in.", "us-gov.")
"""Of Bedrock's inference profiles: the same model, routed within a geography or anywhere."""


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what the data files hold: a misspelt field is an error."""


class Rates(Row, frozen=True, kw_only=True):
    """US dollars for a million tokens, from a day on, of prompts longer than ``above`` tokens.

    The whole call is charged at the rates for the length of its prompt.
    """

    since: date = date.min
    above: int = 0
    input: float
    cached: float | None = None
    """Of tokens read from the provider's prompt cache."""
    write: float | None = None
    """Of tokens written to it, for five minutes or as long as the provider keeps them."""
    write_1h: float | None = None
    output: float

    def cost(self, prompt: int, answer: int, cached: int = 0) -> float:
        """Return what a call costs in US dollars; ``cached`` tokens of the prompt were read from a cache."""
        read = self.input if self.cached is None else self.cached
        return ((prompt - cached) * self.input + cached * read + answer * self.output) / 1_000_000


class CacheRules(Row, frozen=True, kw_only=True):
    """From how many tokens on the provider caches a prompt, and for how long it can be told to."""

    minimum: int | None = None
    ttl: tuple[str, ...] = ()


class Quality(Row, frozen=True, kw_only=True):
    """A published score. Scores of different benchmarks cannot be compared."""

    score: float
    benchmark: str
    source: str
    checked: date


class Model(Row, frozen=True, kw_only=True):
    """What is known of a model at one provider. ``None``, or nothing, is what no source was found for."""

    provider: str
    """The kind of provider, as in ``[providers.NAME] kind``."""
    model: str
    """The id to call it by where no region's inference profile is needed (see `Offer`)."""
    family: str
    """The same for one model at all providers."""
    tier: Tier
    context: int | None = None
    """Tokens of prompt and answer together."""
    output: int | None = None
    """Tokens of the longest answer."""
    prices: tuple[Rates, ...] = ()
    """List prices of the global endpoint; a region may cost more (`Offer.uplift`)."""
    batch: float | None = None
    """Of the price, for what may take a day."""
    cache: CacheRules | None = None
    limits: str = ""
    ttft: float | None = None
    """Seconds to the first token, where the provider publishes them."""
    speed: float | None = None
    """Tokens a second after that, likewise."""
    quality: Quality | None = None
    preview: bool = False
    retires: date | None = None
    source: str
    checked: date

    @property
    def name(self) -> str:
        """Return ``provider/model``, by kind of provider."""
        return f"{self.provider}/{self.model}"

    def rates(self, prompt: int = 0, on: date | None = None) -> Rates | None:
        """Return what holds on a day (today in UTC) for a prompt so long, or None where nothing is known."""
        day = on or today()
        valid = [row for row in self.prices if row.since <= day]
        newest = max((row.since for row in valid), default=None)
        bands = [row for row in valid if row.since == newest and (row.above < prompt or not row.above)]
        return max(bands, key=lambda row: row.above, default=None)

    def blended(self, prompt: int = 3000, answer: int = 1000, on: date | None = None) -> float | None:
        """Return US dollars for a million tokens of which ``prompt`` to ``answer`` are input and output."""
        rates = self.rates(prompt, on)
        return rates.cost(prompt, answer) / (prompt + answer) * 1_000_000 if rates else None


class Catalogue(Row, frozen=True, kw_only=True):
    """The file as a whole."""

    checked: date
    models: tuple[Model, ...]


@cache
def catalogue() -> Catalogue:
    """Return the catalogue, read once: less than a millisecond, 40 kB."""
    raw = Path(__file__).with_name("models.json").read_bytes()
    return msgspec.json.decode(raw, type=Catalogue)


def find(provider: str, model: str) -> Model | None:
    """Return the row of a model at a kind of provider; an inference profile counts as its model."""
    plain = next((model.removeprefix(p) for p in PREFIXES if model.startswith(p)), model)
    return _rows().get((provider, plain))


def rates_of(provider: str, model: str, prompt: int = 0, on: date | None = None) -> Rates | None:
    """Return the list price of a model, or None where the catalogue does not have it."""
    row = find(provider, model)
    return row.rates(prompt, on) if row else None


def of_tier(name: str) -> tuple[Model, ...]:
    """Return the models of a tier, a family, or of one id. Raises ConfigError for what is none of them."""
    rows = catalogue().models
    plain = next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)
    found = tuple(row for row in rows if plain in (row.tier, row.family, row.model, row.name))
    if not found:
        families = sorted({row.family for row in rows})
        raise ConfigError(
            f"model {name!r} is not in the catalogue;"
            f" expected a tier ({', '.join(TIERS)}) or one of {', '.join(families)}"
        )
    return found


def known(what: str, value: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError where a value is not among the names that there are."""
    if value not in names:
        raise ConfigError(f"{what} {value!r} is not known; expected one of {', '.join(names)}")


def today() -> date:
    """Return the day in UTC."""
    from time import time

    return date(1970, 1, 1) + timedelta(days=time() // 86_400)


@cache
def _rows() -> dict[tuple[str, str], Model]:
    return {(row.provider, row.model): row for row in catalogue().models}
