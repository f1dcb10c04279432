"""The part of firsttoken.toml that a plan writes is one that loads, with its targets in order."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from firsttoken import config
from firsttoken.errors import ConfigError
from firsttoken.placement.plan import Wish, place
from firsttoken.placement.regions import CLOUDS
from firsttoken.placement.written import toml_of

DAY = date(2026, 11, 22)


@pytest.mark.parametrize("number", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_it_loads(cloud: str, number: int, tmp_path: Path) -> None:
    """Each function's part is a configuration with the plan's targets, in its order, on its providers."""
    plan = place(Wish(users={"eu": 1}, residency=("EU",), cloud=cloud, failover=True, on=DAY))
    placed = plan.placed[number]
    file = tmp_path / "firsttoken.toml"
    file.write_text(toml_of(plan, placed.region), "utf-8")
    settings = config.load(file, {})
    listed = [weighted.target for weighted in settings.models["fast"].all_targets()]
    assert [target.partition("/")[2] for target in listed] == [target.model for target in placed.targets]
    kinds = {settings.providers[target.partition("/")[0]].__struct_config__.tag for target in listed}
    assert kinds == {CLOUDS[cloud]}


def test_the_route_may_be_named() -> None:
    """The public name is the tier, or what was asked for."""
    plan = place(Wish(users={"us": 1}, cloud="aws", on=DAY))
    assert '[models."chat"]' in toml_of(plan, route="chat")


def test_a_region_that_is_not_in_the_plan() -> None:
    """Asking for another region names the two there are."""
    plan = place(Wish(users={"us": 1}, cloud="aws", on=DAY))
    with pytest.raises(ConfigError, match=r"'eu-west-1' is not in the plan; expected us-\S+ or us-"):
        toml_of(plan, "eu-west-1")
