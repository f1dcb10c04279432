"""Purges: by tenant, route, tag, or all; when instances know of them; and the command line."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import pytest
from cache.caches import Instance, Scripted, SharedStore, asked
from policies.models import HELLO, collect
from virtual_time import EPOCH, run

from firsttoken.cache import purge
from firsttoken.cache.answers import place_of
from firsttoken.cache.purge import ALL, Purges, labels_of
from firsttoken.commands.cache import register
from firsttoken.errors import ConfigError, StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Route

DOCS, NEWS = place_of("docs", Route(target="p/m", tags=["a", "b"])), place_of("news", Route(target="p/m"))
PURGED: list[tuple[tuple[str, ...], set[str]]] = [
    (labels_of(tenant="x"), {"x docs", "x news"}),
    (labels_of(route="docs"), {"x docs", "y docs"}),
    (labels_of(tags=["b"]), {"x docs", "y docs"}),
    (labels_of(tenant="x", route="news"), {"x docs", "x news", "y news"}),
    ((ALL,), {"x docs", "x news", "y docs", "y news"}),
    (labels_of(tenant="z", route="r", tags=["c"]), set()),
]


@pytest.mark.parametrize(("labels", "gone"), PURGED, ids=lambda given: " ".join(sorted(given)) or "none")
@pytest.mark.parametrize("where", ["memory", "store"])
def test_a_purge_reaches_what_carries_its_label(labels: Any, gone: set[str], where: str) -> None:
    """Answers with one of the labels are gone, in memory and in the store; all others stay."""

    async def work() -> None:
        store = SharedStore()
        memory = {"memory_bytes": 0} if where == "store" else {}
        routes = {p: Instance(Scripted(HELLO), store, place=p, **memory) for p in (DOCS, NEWS)}

        async def states() -> dict[str, str]:
            return {
                f"{tenant} {place.labels[0].removeprefix('route:')}": (await one.ask(tenant=tenant))[0]
                for tenant in "xy"
                for place, one in routes.items()
            }

        await states()
        assert set((await states()).values()) == {"hit"}
        await Purges(store, Shadow(), wall=lambda: EPOCH).purge(labels)
        await asyncio.sleep(purge.MAX_AGE + 0.1)
        assert {name for name, state in (await states()).items() if state == "miss"} == gone
        assert set((await states()).values()) == {"hit"}

    run(work())


def test_an_instance_knows_of_its_own_purge_at_once() -> None:
    """No delay where it was purged; elsewhere five seconds at most, and no round trip until then."""

    async def work() -> None:
        store = SharedStore()
        here, there = (Instance(Scripted(HELLO), store) for _ in range(2))
        for one in (here, there):
            await one.ask()
        await here.tiers.purges.purge([ALL])
        assert (await here.ask())[0] == "miss"
        asked = dict(store.asked)
        assert (await there.ask())[0] == "hit"
        assert store.asked == asked
        await asyncio.sleep(3)
        assert (await there.ask())[0] == "hit"  # and it reads the marks beside it
        assert (await there.ask())[0] == "hit"  # the new one, from the store

    run(work())


def test_steady_calls_never_wait_for_marks() -> None:
    """Marks are read beside calls, once in a while, before they are too old."""

    async def work() -> None:
        store = SharedStore()
        one = Instance(Scripted(HELLO), store)
        await one.ask()
        read = store.asked["get_many"]
        for _ in range(100):
            before = store.asked["get_many"]
            chunks = await collect(one, asked())
            assert chunks
            assert store.asked["get_many"] == before
            await asyncio.sleep(0.5)
        assert 10 <= store.asked["get_many"] - read <= 20

    run(work())


def test_what_is_on_its_way_during_a_purge_is_purged() -> None:
    """An answer whose call began before the purge is not given after it."""

    async def work() -> None:
        store = SharedStore()
        one, other = Instance(Scripted((5.0, *HELLO)), store), Instance(Scripted(HELLO), store)
        task = asyncio.ensure_future(one.ask())
        await asyncio.sleep(1)
        await other.tiers.purges.purge([ALL])
        await task
        assert (await other.ask())[0] == "miss"

    run(work())


def test_a_purge_without_a_store_fails() -> None:
    """Who purges is told when that did not work; answers go on being given meanwhile."""

    async def work() -> None:
        store = SharedStore()
        one = Instance(Scripted(HELLO), store)
        await one.ask()
        store.down = True
        with pytest.raises(StoreError):
            await one.tiers.purges.purge([ALL])
        await asyncio.sleep(60)
        assert (await one.ask())[0] == "hit"

    run(work())


def test_a_store_that_forgets_brings_nothing_back() -> None:
    """A mark that was evicted from the store still counts where it was known."""

    async def work() -> None:
        store = SharedStore()
        one = Instance(Scripted(HELLO), store)
        await one.tiers.purges.purge([ALL])
        await one.ask()
        await store.delete("cache-purged:all")
        await asyncio.sleep(60)
        assert (await one.ask())[0] == "hit"
        assert await one.tiers.purges.times([ALL]) == {}

    run(work())


def test_labels_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tenants: what was read longest ago goes."""
    monkeypatch.setattr(purge, "MAX_LABELS", 100)

    async def work() -> None:
        one = Instance(Scripted(HELLO), SharedStore())
        for number in range(300):
            await one.ask(tenant=str(number))
        assert len(one.tiers.purges._seen) <= 100

    run(work())


def test_a_clock_that_is_set_back_reads_again() -> None:
    """A copy from the future is no copy."""

    async def work() -> None:
        now = [EPOCH]
        store = SharedStore()
        purges = Purges(store, Shadow(), wall=lambda: now[0])
        assert await purges.marks([ALL]) == {ALL: ""}
        await Purges(store, Shadow(), wall=lambda: EPOCH).purge([ALL])
        now[0] -= 3600
        assert (await purges.marks([ALL]))[ALL]
        await store.put("cache-purged:all", b"\xff", 100)
        assert (await purges.times([ALL])) == {ALL: 0.0}

    run(work())


CONFIGURATION = """
[cache]
mode = "on"
[store]
kind = "{kind}"
[auth.keys]
acme = ["{digest}"]
[providers.simulated]
kind = "simulated"
[models.docs]
target = "simulated/m"
version = "7"
tags = ["a"]
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the configuration of a kind of store."""

    def write(kind: str) -> None:
        file = tmp_path / "firsttoken.toml"
        path = f'path = "{tmp_path}/store.sqlite"' if kind == "sqlite" else ""
        text = CONFIGURATION.format(kind=kind, digest="0" * 64).replace("[auth", f"{path}\n[auth")
        file.write_text(text, "utf-8")
        monkeypatch.setenv("FIRSTTOKEN_CONFIG", str(file))

    return write


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    parsed = parser.parse_args(["cache", *arguments])
    return int(parsed.run(parsed))


def test_the_command_purges(configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What was purged is said, and shown with its time; the rest was never purged."""
    configured("sqlite")
    assert command("purge", "--tenant", "acme", "--route", "docs") == 0
    assert capsys.readouterr().out == "purged: tenant:acme, route:docs\n"
    assert command("show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("cache", "keeps", "store", "memory", "all", "tenant", "route", "tag"),
    ]
    assert [("never purged" in line) for line in lines[4:]] == [True, False, False, True]
    assert lines[2].startswith("store    sqlite: reached in ")
    assert "docs; cached, version 7, tags a; purged 20" in lines[6]


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("sqlite", [], "expected --tenant"),
        ("sqlite", ["--route", "nope"], "--route nope: expected one of docs"),
        ("sqlite", ["--tag", "nope"], "--tag nope: expected one of a"),
        ("memory", ["--all"], "restart"),
    ],
)
def test_what_cannot_be_purged_is_said(kind: str, arguments: list[str], said: str, configured: Any) -> None:
    """A wrong name, no name, or a memory that nobody else can reach: what was expected."""
    configured(kind)
    with pytest.raises(ConfigError, match=said):
        command("purge", *arguments)


def test_show_without_a_store(
    configured: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a shared store, or with one that is down, the rest is shown all the same."""
    configured("memory")
    assert command("show") == 0
    assert "memory: every process for itself" in capsys.readouterr().out
    configured("redis")
    monkeypatch.setenv("FIRSTTOKEN_STORE__URL", "redis://127.0.0.1:1/0")
    assert command("show") == 0
    assert "redis: not reached" in capsys.readouterr().out
