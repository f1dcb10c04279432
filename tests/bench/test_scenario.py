"""Scenario files: those of the package are right, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsttoken import config
from firsttoken.bench import scenario
from firsttoken.bench.fleet import configuration, toml
from firsttoken.errors import ConfigError

MINIMAL = '[targets.near]\nprofile = "ttft_ms=1"\n'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", scenario.names())
def test_scenarios_of_the_package(name: str, tmp_path: Path) -> None:
    """Each has a description and bars, and its gateway's configuration is one that the gateway takes."""
    chosen = scenario.read(name)
    assert chosen.name == name
    assert chosen.description.endswith(".")
    assert scenario.Expect() != chosen.expect
    tree = configuration(chosen, dict.fromkeys(chosen.targets, "http://127.0.0.1:1"))
    path = tmp_path / "firsttoken.toml"
    path.write_text(toml(tree), "utf-8")
    settings = config.load(path, {})
    assert [t.target for t in settings.models["chat"].all_targets()] == [
        f"{n}/simulated" for n in chosen.targets
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "targets"),
        ("rate = 'fast'\n" + MINIMAL, "rate: Expected `float`"),
        ("speed = 3\n" + MINIMAL, "speed: unknown key; expected one of name, description"),
        (MINIMAL + "colour = 1\n", "targets.*colour: unknown key; expected one of profile, control"),
        ("[targets.near]\nprofile = 'color=red'\n", "targets.near.profile"),
        (MINIMAL + "[expect]\nspeed = 1\n", "expect.speed: unknown key; expected one of availability"),
        (MINIMAL + "[[fault]]\nat = 1\nuntil = 2\n", r"fault\[0\]: expected either target or store"),
        (MINIMAL + "[[fault]]\nat=1\nuntil=2\ntarget='far'\n", r"fault\[0\].target: .*expected one of near"),
        (MINIMAL + "[[fault]]\nat=3\nuntil=2\ntarget='near'\nkind='kill'\n", "at < until <= duration"),
        (MINIMAL + "[[fault]]\nat=1\nuntil=2\ntarget='near'\n", "either a profile or another kind"),
        (MINIMAL + "[[fault]]\nat=1\nuntil=2\ntarget='near'\nkind='melt'\n", "fault.*kind: Invalid enum"),
        (MINIMAL + "[[fault]]\nat=1\nuntil=2\nstore='kill'\n", r"fault\[0\].store: .*\[store\] section"),
        (MINIMAL + "[store]\nkind='sqlite'\n[[fault]]\nat=1\nuntil=2\nstore='kill'\n", "remove or lock"),
        ("= 1", "not readable as TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    """The message has the file, the key and what was expected."""
    with pytest.raises(ConfigError, match=f"mine.toml: .*{said}" if text else said):
        scenario.read(written(tmp_path, text))


def test_a_scenario_that_is_not_there() -> None:
    """The names that there are get listed."""
    with pytest.raises(ConfigError, match="region-refused"):
        scenario.read("nowhere")


def test_another_length_scales_the_faults() -> None:
    """A fault keeps its share of the run."""
    chosen = scenario.read("region-503").lasting(8.0)
    assert (chosen.duration, chosen.faults[0].at, chosen.faults[0].until) == (8.0, 1.5, 4.5)


def test_arrivals_are_those_of_the_seed() -> None:
    """The same seed gives the same requests; prompts differ unless they are to be the same."""
    chosen = scenario.read("client-leaves")
    arrivals = chosen.arrivals()
    assert arrivals == chosen.arrivals()
    assert all(0 < arrival.leave_after <= chosen.leave_after for arrival in arrivals)
    assert len({arrival.prompt for arrival in arrivals}) == len(arrivals)
    same = scenario.read("identical").arrivals()
    assert len(same) == 1000
    assert {arrival.body for arrival in same} == {same[0].body}
