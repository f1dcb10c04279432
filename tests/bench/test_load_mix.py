"""What requests of a load test ask, and which scenario files are right."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from firsttoken.bench import loadtest_scenario
from firsttoken.bench.arrivals_trace import Entry
from firsttoken.bench.load import Arrival
from firsttoken.bench.loadtest import address
from firsttoken.bench.mix import Mix, Prompt, Requests, Tenant
from firsttoken.errors import ConfigError

COUNT = 2000
PLAIN = Entry(0.0)


def made(mix: Mix, count: int = COUNT, entry: Entry = PLAIN, **given) -> list[Arrival]:
    requests = Requests(mix, "chat", **{"seed": 1, "salt": "s", **given})
    return [requests.arrival(entry) for _ in range(count)]


def words(arrival: Arrival) -> int:
    return len(arrival.prompt.partition(": ")[2].split())


def test_shares() -> None:
    """Streamed and repeated requests, kinds of prompts and tenants come in the shares that were asked for."""
    prompts = [Prompt(tokens=10, spread=0, share=3), Prompt(tokens=100, spread=0, max_tokens=7, share=1)]
    mix = Mix(
        streamed=0.7,
        repeated=0.2,
        pool=5,
        prompts=prompts,
        tenants={"a": Tenant(share=3), "b": Tenant(share=1)},
    )
    found = made(mix, keys={"a": "key-a", "b": "key-b"})
    assert sum(a.stream for a in found) / COUNT == pytest.approx(0.7, abs=0.03)
    assert sum(a.repeated for a in found) / COUNT == pytest.approx(0.2, abs=0.03)
    assert sum(a.tenant == "a" for a in found) / COUNT == pytest.approx(0.75, abs=0.03)
    fresh = [a for a in found if not a.repeated]
    assert Counter(map(words, fresh))[10] / len(fresh) == pytest.approx(0.75, abs=0.04)
    assert all(a.headers == (("authorization", f"Bearer key-{a.tenant}"),) for a in found)
    assert all((json.loads(a.body).get("max_tokens") == 7) == (words(a) == 100) for a in found)


def test_only_repeated_prompts_are_asked_twice() -> None:
    """A cache can answer those alone, and there are no more of them than the pool holds."""
    found = made(Mix(repeated=0.3, pool=4))
    fresh = [a.prompt for a in found if not a.repeated]
    again = {a.prompt for a in found if a.repeated}
    assert len(fresh) == len(set(fresh))
    assert len(again) == 4
    assert not again & set(fresh)


def test_another_run_asks_other_prompts() -> None:
    """What an earlier run left in caches answers nothing; lengths and order are the same."""
    one, other = made(Mix(repeated=0.5), salt="one"), made(Mix(repeated=0.5), salt="two")
    assert not {a.prompt for a in one} & {a.prompt for a in other}
    assert [words(a) for a in one] == [words(a) for a in other]
    assert [(a.stream, a.repeated) for a in one] == [(a.stream, a.repeated) for a in other]


def test_lengths() -> None:
    """They are even around the mean, as far as the spread says, also where they are very long."""
    found = [words(a) for a in made(Mix(prompts=[Prompt(tokens=100, spread=0.5)]))]
    assert 50 <= min(found) < 60
    assert 140 < max(found) <= 150
    assert {words(a) for a in made(Mix(prompts=[Prompt(tokens=9000, spread=0)]), count=5)} == {9000}


def test_a_trace_wins() -> None:
    """Where it has token counts they are the prompt's length and the answer's limit."""
    asked = made(Mix(), count=1, entry=Entry(3.0, 17, 5))[0]
    assert (asked.at, words(asked), json.loads(asked.body)["max_tokens"]) == (3.0, 17, 5)


def test_fields_and_key() -> None:
    """A request says what the scenario adds, and carries the one key where there are no tenants."""
    asked = made(Mix(), count=1, fields={"temperature": 0}, keys={"": "k"})[0]
    assert json.loads(asked.body)["temperature"] == 0
    assert asked.headers == (("authorization", "Bearer k"),)


@pytest.mark.parametrize("name", ["steady", "burst", "soak", "recovery"])
def test_scenarios_of_the_package(name: str) -> None:
    """Each is listed, has a description and bars, and runs without a URL."""
    assert name in loadtest_scenario.names()
    chosen = loadtest_scenario.read(name)
    assert chosen.name == name
    assert chosen.description.endswith((".", "?"))
    assert loadtest_scenario.Expect() != chosen.expect
    assert chosen.targets
    assert sum(1 for _ in chosen.lasting(10.0).entries()) > 20


def test_recovery_is_disturbed() -> None:
    """Its span is that of surges and faults, scaled with its length."""
    chosen = loadtest_scenario.read("recovery").lasting(6.0)
    assert chosen.disturbed(faults=True) == pytest.approx((2, 3))
    assert loadtest_scenario.read("steady").disturbed(faults=True) is None


def test_a_trace_beside_the_scenario(tmp_path: Path) -> None:
    """Its path is relative to the file that names it, and it ends with the duration."""
    (tmp_path / "trace.csv").write_text("at\n0\n1\n2\n9\n", "utf-8")
    path = tmp_path / "mine.toml"
    path.write_text('duration = 5\n[arrivals]\ntrace = "trace.csv"\n', "utf-8")
    assert [entry.at for entry in loadtest_scenario.read(str(path)).entries()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("= 1", "not readable as TOML"),
        ("speed = 1", "unknown field `speed`"),
        ("duration = 0", "duration: Expected"),
        ("[arrivals]\nprocess = 'uniform'", "arrivals.process: Invalid enum"),
        (
            "duration = 9\n[[arrivals.surges]]\nat = 5\nuntil = 10",
            r"arrivals.surges\[0\]: expected at < until",
        ),
        ("[mix]\nprompts = []", "mix.prompts: expected at least one"),
        ("[targets.near]\nprofile = 'color=red'", "targets.near.profile"),
        ("[[fault]]\nat = 1\nuntil = 2\ntarget = 'far'", r"fault\[0\].target: there is no 'far'"),
        ("[targets.near]\n[[fault]]\nat = 1\nuntil = 2\ntarget = 'near'", "either a profile or another kind"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    """The message has the file, the key and what was expected."""
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"mine.toml: .*{said}"):
        loadtest_scenario.read(str(path))


@pytest.mark.parametrize("url", ["http://h:8080", "http://h:8080/v1/", "http://h:8080/v1/chat/completions"])
def test_addresses(url: str) -> None:
    """A URL may be given as SDKs want it, or with the whole path."""
    assert address(url) == "http://h:8080"


def test_no_address() -> None:
    """Something else is refused before the load begins."""
    with pytest.raises(ConfigError, match="expected a URL such as"):
        address("ftp://h")


def test_the_documented_scenario() -> None:
    """What docs/load.md shows is a scenario that is read as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "load.md").read_text("utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    chosen = loadtest_scenario.parse(tomllib.loads(text), "load.md")
    assert len(chosen.mix.prompts) == len(chosen.mix.tenants) == 2
    assert chosen.disturbed(faults=True) == (200, 320)
