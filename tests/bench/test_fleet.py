"""Processes and stores that a run breaks, and the configuration that it gives the gateway."""

from __future__ import annotations

import asyncio
import sqlite3
import tomllib
from contextlib import closing

import pytest

from firsttoken.bench.child import BenchError, Child, Redis, Simulator
from firsttoken.bench.fleet import Fleet, SqliteStore, configuration, merged, toml
from firsttoken.bench.scenario import Fault, Scenario, Target
from firsttoken.errors import ConfigError

FAST = Target(profile="ttft_ms=0,itl_ms=0")


def test_faults_of_a_process() -> None:
    """A frozen process is silent, a killed one is gone, and both are back, at the same address."""
    chosen = Scenario(name="mine", targets={"near": FAST})

    async def states() -> list[bool]:
        async with Fleet(chosen) as fleet:
            seen = [await fleet.state("near") is not None]
            port = fleet.simulators["near"].port
            for kind in ("freeze", "kill"):
                fault = Fault(at=0, until=1, target="near", kind=kind)
                await fleet.begin(fault)
                seen.append(await fleet.state("near") is not None)
                await fleet.end(fault)
                seen.append(await fleet.state("near") is not None)
            assert fleet.simulators["near"].port == port
            return seen

    assert asyncio.run(states()) == [True, False, True, False, True]


def test_a_child_that_does_not_start_says_why() -> None:
    """What it wrote is part of the error."""
    child = Simulator("near", "color=red")
    try:
        with pytest.raises(BenchError, match="color"):
            child.start()
    finally:
        child.stop()


def test_redis_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-server the run says what is missing."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="redis-server"):
        Redis("redis").command()


def test_a_child_needs_a_command() -> None:
    """Each kind says how it is started."""
    child = Child("nothing")
    with pytest.raises(NotImplementedError):
        child.command()
    child.stop()


def test_sqlite_is_locked_and_removed() -> None:
    """A lock keeps writers out until it is given back; a removed file is gone."""
    store = SqliteStore()
    path = store.start()["path"]

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=0)) as file, file:
            file.execute("CREATE TABLE IF NOT EXISTS t (x)")
            file.execute("INSERT INTO t VALUES (1)")

    write()
    store.break_("lock")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write()
    store.mend()
    write()
    store.break_("remove")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        write()
    store.stop()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "http://x/v1"),
        ({"kind": "anthropic"}, "http://x"),
        ({"kind": "gemini"}, "http://x/v1beta"),
        ({"kind": "azure"}, "http://x/openai/v1"),
        ({"kind": "bedrock"}, "http://x"),
    ],
)
def test_addresses_are_filled_in(given: dict, address: str) -> None:
    """Each kind of provider gets the path at which the simulator serves its format."""
    chosen = Scenario(targets={"near": FAST}, gateway={"providers": {"near": given}} if given else {})
    provider = configuration(chosen, {"near": "http://x"})["providers"]["near"]
    assert provider["base_url"] == address
    assert provider["kind"] == given.get("kind", "openai")


def test_what_a_scenario_says_is_laid_over() -> None:
    """A route of the scenario's own keeps its targets, and gets all of them where it names none."""
    chosen = Scenario(
        targets={"a": FAST, "b": FAST},
        gateway={"models": {"chat": {"hedge": False}, "one": {"target": "b/m"}}, "hedge": {"floor": 1}},
    )
    tree = configuration(chosen, {"a": "http://a", "b": "http://b"}, {"kind": "memory"})
    assert tree["models"]["chat"] == {"hedge": False, "targets": ["a/simulated", "b/simulated"]}
    assert tree["models"]["one"] == {"target": "b/m"}
    assert (tree["hedge"], tree["store"]) == ({"floor": 1}, {"kind": "memory"})
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4}) == {"a": {"b": 1, "c": 3}, "d": 4}


def test_toml_is_read_back() -> None:
    """What is written is what was meant, whatever the texts hold."""
    tree = {
        "a": {"b/c": [1, 2.5, True], "d": {"text": 'quote " and \\ and 東京\n'}},
        "e": [{"f": "g"}],
        "h": [],
    }
    assert tomllib.loads(toml(tree)) == tree


def test_a_running_gateway_needs_running_simulators() -> None:
    """With ``--url`` the run cannot start a target that the gateway would know."""
    with pytest.raises(ConfigError, match=r"targets\.near\.control"):
        Fleet(Scenario(name="mine", targets={"near": FAST}), "http://127.0.0.1:1")
