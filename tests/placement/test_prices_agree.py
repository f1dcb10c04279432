"""The catalogue's prices against two others: the package genai-prices, and the project's own cache prices."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from genai_prices import Usage, calc_price
from genai_prices.types import PriceCalculation

from firsttoken.cache.prices import prices_of
from firsttoken.placement.models import Model, catalogue

DAYS = (date(2026, 11, 22), date(2027, 1, 15))
PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "vertex": "google",
    "bedrock": "aws",
}
"""As genai-prices calls them. It has no prices of Azure's current models."""
GLOBAL = ("anthropic.", "openai.gpt", "amazon.nova-2")
"""Models of Bedrock whose list price is that of the global profile."""
TOLERANCE = 0.001
DIFFERENT: dict[str, str] = {}
"""Rows that differ, with the reason; none at present."""
PRICED = [row for row in catalogue().models if row.prices and row.provider in PROVIDERS]


def other(row: Model, day: date, prompt: int, cached: int, answer: int) -> PriceCalculation:
    """What genai-prices says of a call."""
    model = f"global.{row.model}" if row.model.startswith(GLOBAL) else row.model
    usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=answer)
    when = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return calc_price(usage, model, provider_id=PROVIDERS[row.provider], genai_request_timestamp=when)


@pytest.mark.parametrize("day", DAYS, ids=str)
@pytest.mark.parametrize("prompt", [1_000, 90_000, 150_000, 250_000, 300_000])
@pytest.mark.parametrize("row", PRICED, ids=lambda row: row.name)
def test_a_call_costs_what_genai_prices_says(row: Model, prompt: int, day: date) -> None:
    """Prompts of every band, with and without a cache, cost the same there on both days."""
    if row.name in DIFFERENT:
        pytest.skip(DIFFERENT[row.name])
    rates = row.rates(prompt, day)
    for cached in (0, 500) if rates.cached is not None else (0,):
        expected = float(other(row, day, prompt, cached, 200).total_price)
        assert rates.cost(prompt, 200, cached) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("row", [row for row in PRICED if row.context], ids=lambda row: row.name)
def test_a_model_reads_as_much_as_genai_prices_says(row: Model) -> None:
    """The context is the same, but for what one says in round thousands and the other exactly."""
    known = other(row, DAYS[0], 1000, 0, 100).model.context_window
    assert known is None or row.context == pytest.approx(known, rel=0.06)


@pytest.mark.parametrize("day", DAYS, ids=str)
@pytest.mark.parametrize("row", [row for row in catalogue().models if row.prices], ids=lambda row: row.name)
def test_the_prompt_cache_counts_with_the_same_prices(row: Model, day: date) -> None:
    """Where the decision to mark a prompt knows a model, it knows the catalogue's price and shares."""
    known = prices_of(row.model, day)
    rates = row.rates(on=day)
    if known is None or not known.input or known.model != row.family:
        return  # another model's row stands in for it, or none
    assert rates.input == pytest.approx(known.input)
    if rates.cached is not None:
        assert rates.cached / rates.input == pytest.approx(known.read, abs=0.001)
    if rates.write is not None:
        assert rates.write / rates.input == pytest.approx(known.write)
