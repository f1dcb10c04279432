"""The catalogue of models: what it says, from which day on, and where it was read."""

from __future__ import annotations

from datetime import date

import pytest

from firsttoken.errors import ConfigError
from firsttoken.placement.models import PREFIXES, TIERS, Model, catalogue, find, of_tier, rates_of
from firsttoken.settings import Provider

MODELS = catalogue().models
KINDS = {kind.__struct_config__.tag for kind in Provider.__args__}


def name(row: Model) -> str:
    return row.name


@pytest.mark.parametrize("row", MODELS, ids=name)
def test_every_row_has_a_source_and_a_day(row: Model) -> None:
    """A row says where it was read and when; so does a score; the provider is one that can be configured."""
    assert row.source.startswith("https://")
    assert date(2026, 1, 1) < row.checked <= catalogue().checked
    assert row.quality is None or row.quality.source.startswith("https://")
    assert row.provider in KINDS
    assert row.family in row.model


@pytest.mark.parametrize("row", MODELS, ids=name)
def test_prices_are_dollars_for_a_million_tokens(row: Model) -> None:
    """Prices are in a range that a slip of a thousand would leave; a cache is cheap, output is not."""
    for rates in row.prices:
        assert 0.01 <= rates.input <= 50
        assert rates.input < rates.output <= 200
        assert rates.cached is None or 0 < rates.cached < rates.input
        assert rates.write is None or rates.write > rates.input
        assert rates.write_1h is None or rates.write_1h > (rates.write or 0)


@pytest.mark.parametrize("row", MODELS, ids=name)
def test_there_is_one_rate_for_a_day_and_a_length(row: Model) -> None:
    """No two rates begin on the same day and at the same length; the first one is for short prompts."""
    keys = [(rates.since, rates.above) for rates in row.prices]
    assert len(set(keys)) == len(keys)
    assert not keys or min(keys)[1] == 0


def test_names_are_unique_and_each_tier_has_models() -> None:
    """A provider's model is there once; there are 25 or more, of all tiers and kinds of provider."""
    names = [row.name for row in MODELS]
    assert len(set(names)) == len(names) >= 25
    assert {row.tier for row in MODELS} == set(TIERS)
    assert {row.provider for row in MODELS} == KINDS - {"simulated", "local"}


def test_prices_change_on_their_day() -> None:
    """A price holds from its day on, and not a day before."""
    before = rates_of("gemini", "gemini-3.8-flash", on=date(2026, 12, 31))
    after = rates_of("gemini", "gemini-3.8-flash", on=date(2027, 1, 1))
    assert (before.input, before.output) == (0.75, 3.75)
    assert (after.input, after.output) == (1.5, 7.5)


@pytest.mark.parametrize(("prompt", "expected"), [(0, 0.1), (100_000, 0.1), (100_001, 0.5)])
def test_long_prompts_have_their_own_band(prompt: int, expected: float) -> None:
    """The band begins above its length, and the whole call is charged at its rates."""
    rates = rates_of("anthropic", "claude-haiku-5-5", prompt, date(2026, 11, 22))
    assert rates.input == expected


def test_cost_of_a_call() -> None:
    """A call costs its prompt, less what was read from a cache, and its answer."""
    rates = rates_of("anthropic", "claude-sonnet-5-5", on=date(2026, 11, 22))
    assert rates.cost(1_000_000, 100_000) == pytest.approx(2 + 1)
    assert rates.cost(1_000_000, 100_000, cached=900_000) == pytest.approx(0.2 + 0.09 + 1)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_an_inference_profile_is_its_model(prefix: str) -> None:
    """The prefix of a profile does not hide the model."""
    assert find("bedrock", f"{prefix}anthropic.claude-sonnet-5-5").family == "claude-sonnet-5-5"


def test_what_is_not_known_is_none() -> None:
    """No figure is made up: an unknown model has no row, a row without a source for its price no price."""
    assert find("openai", "gpt-99") is None
    assert rates_of("openai", "gpt-99") is None
    assert find("azure", "gpt-4.1-mini").blended() is None


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    """An unknown tier or model names the tiers and the families there are."""
    with pytest.raises(
        ConfigError, match=r"'quick' is not in the catalogue.*fast, balanced, quality.*gpt-6-luna"
    ):
        of_tier("quick")
