"""Which model is chosen, why, and what is never made up."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from firsttoken.errors import ConfigError
from firsttoken.placement.choice import Figures, Measured, Wanted, choose, read_measured
from firsttoken.placement.models import TIERS, catalogue
from firsttoken.placement.plan import PlacementError

DAY = date(2026, 11, 22)
MINE = Measured(
    models={
        "bedrock/eu.amazon.nova-micro-v1:0": Figures(ttft=0.4, tokens_per_second=200, quality=0.7),
        "anthropic/claude-haiku-5-5": Figures(ttft=0.5, tokens_per_second=250, quality=0.9),
        "openai/gpt-6-luna": Figures(ttft=0.2, tokens_per_second=50, quality=0.8),
    },
    quality="our questions",
)
NAMES = [row.name for row in catalogue().models]


def test_cheapest_fastest_and_best_of_what_was_measured() -> None:
    """Each is chosen by its own figure: the price, the time for the whole answer, the score."""
    choice = choose(Wanted(tier="fast", measured=MINE, answer=50, on=DAY))
    assert choice.cheapest.name == "bedrock/amazon.nova-micro-v1:0"
    assert choice.fastest.name == "bedrock/amazon.nova-micro-v1:0"
    assert choice.fastest.seconds == pytest.approx(0.4 + 50 / 200)
    assert choice.best.name == "anthropic/claude-haiku-5-5"
    assert choice.quality == "our questions"


def test_a_long_answer_moves_the_choice() -> None:
    """For a short answer the first token decides, for a long one the speed."""
    short = choose(Wanted(tier="fast", measured=MINE, answer=5, on=DAY))
    long = choose(Wanted(tier="fast", measured=MINE, answer=4000, on=DAY))
    assert short.fastest.name == "openai/gpt-6-luna"
    assert long.fastest.name == "anthropic/claude-haiku-5-5"


def test_nothing_is_fast_without_a_source() -> None:
    """Where no speed is published or measured nothing is called the fastest, and a deadline cannot be met."""
    assert choose(Wanted(tier="fast", on=DAY)).fastest is None
    with pytest.raises(PlacementError, match=r"no published or measured speed \("):
        choose(Wanted(tier="fast", deadline=2, on=DAY))


def test_a_deadline_leaves_out_what_is_slower() -> None:
    """The whole answer counts, not only its first token."""
    choice = choose(Wanted(tier="fast", measured=MINE, deadline=5, answer=500, on=DAY))
    reasons = {one.name: one.why_not for one in choice.considered}
    assert reasons["openai/gpt-6-luna"] == "takes 10.2 s"
    assert not reasons["anthropic/claude-haiku-5-5"]


def test_scores_of_two_scales_are_not_mixed() -> None:
    """As soon as there are scores of one's own, published ones do not count."""
    published = choose(Wanted(tier="quality", on=DAY))
    assert published.best.name == "anthropic/claude-opus-5-5"
    assert published.quality.startswith("Terminal-Bench")
    own = choose(Wanted(tier="fast", measured=MINE, on=DAY))
    assert {one.quality for one in own.considered} <= {None, 0.7, 0.8, 0.9}


def test_a_threshold_leaves_out_what_has_no_score() -> None:
    """What nobody has scored is not good enough for a threshold."""
    choice = choose(Wanted(tier="quality", min_quality=60, on=DAY))
    assert {one.name.rpartition("/")[2] for one in choice.considered if not one.why_not} == {
        "claude-opus-5-5",
        "anthropic.claude-opus-5-5",
    }


def test_prices_are_of_the_call_that_is_meant() -> None:
    """A long prompt costs its band, and the mix is the one asked for."""
    short = choose(Wanted(provider="anthropic", tier="fast", prompt=1000, answer=1000, on=DAY))
    long = choose(Wanted(provider="anthropic", tier="fast", prompt=200_000, answer=1000, on=DAY))
    assert short.cheapest.price == pytest.approx(0.3)
    assert long.cheapest.call == pytest.approx(200_000 * 0.5e-6 + 1000 * 2.5e-6)


@budget(deadline=None)
@given(
    st.builds(
        Wanted,
        tier=st.sampled_from(["", *TIERS]),
        max_price=st.floats(0.05, 20) | st.just(0.0),
        min_quality=st.floats(1, 70) | st.just(0.0),
        prompt=st.integers(1, 1_200_000),
        answer=st.integers(1, 130_000),
        on=st.just(DAY),
    )
)
def test_conditions_are_kept(wanted: Wanted) -> None:
    """Whatever is chosen meets every condition, and the cheapest is no dearer than any other that does."""
    try:
        choice = choose(wanted)
    except PlacementError:
        return
    fit = [one for one in choice.considered if not one.why_not]
    for one in filter(None, (choice.cheapest, choice.best)):
        assert one in fit
        assert not wanted.max_price or one.price <= wanted.max_price
        assert not wanted.min_quality or one.quality >= wanted.min_quality
        assert wanted.tier in {"", one.tier}
    if choice.cheapest:
        assert choice.cheapest.price == min(one.price for one in fit if one.price is not None)


def test_a_retired_model_is_not_chosen() -> None:
    """From the day on which the provider switches it off a model is left out."""
    after = choose(Wanted(provider="gemini", tier="fast", on=date(2027, 7, 21)))
    assert {one.name: one.why_not for one in after.considered}["gemini/gemini-3.5-flash-lite"] == (
        "was retired on 2027-07-21"
    )


def test_measurements_are_read(tmp_path: Path) -> None:
    """The file has figures by provider and model; an inference profile counts as its model."""
    file = tmp_path / "results.json"
    file.write_text(
        '{"models": {"bedrock/eu.amazon.nova-micro-v1:0": {"ttft": 0.3, "tokens_per_second": 150}}}'
    )
    choice = choose(Wanted(tier="fast", deadline=10, measured=read_measured(file), on=DAY))
    assert choice.fastest.name == "bedrock/amazon.nova-micro-v1:0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"results.json: expected measurements such as"),
        ('{"models": {"bedrock/amazon.nova-micro-v1:0": {"speed": 1}}}', r"unknown field `speed`"),
        (
            '{"models": {"openai/gpt-99": {}}}',
            r"model 'openai/gpt-99' is not known; expected one of bedrock/",
        ),
        ('{"models": {"gpt-6-luna": {}}}', r"model 'gpt-6-luna' is not known"),
    ],
)
def test_wrong_measurements(text: str, message: str, tmp_path: Path) -> None:
    """A file that cannot be used is refused with what was expected."""
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_measured(file)
    with pytest.raises(ConfigError, match="expected measurements"):
        read_measured(tmp_path / "nowhere.json")
