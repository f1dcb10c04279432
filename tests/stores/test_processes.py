"""Several processes work on one store at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from firsttoken.stores import create_store
from tests.stores.conftest import SHARED, Subject

pytestmark = pytest.mark.parametrize("subject", SHARED, indirect=True, scope="session")
CHILD = Path(__file__).with_name("child.py")
PROCESSES = 4
SECONDS = 240


class Times(NamedTuple):
    """How often each process does what."""

    adds: int
    swaps: int
    leases: int


FAST, SLOW = Times(250, 50, 10), Times(40, 8, 4)


class Outcome(NamedTuple):
    """What a process was told to do, and the leases that all of them held."""

    times: Times
    held: list[tuple[int, bool]]


@pytest.fixture(scope="session")
def worked(subject: Subject) -> Outcome:
    """What four processes saw that worked at the same time."""
    times = FAST if subject.kind in ("sqlite", "redis") else SLOW
    arguments = [msgspec.json.encode(subject.settings).decode(), ",".join(map(str, times))]
    children = [
        subprocess.Popen(
            [sys.executable, CHILD, arguments[0], f"child {number}", arguments[1]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **subject.env},
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        answers = [child.communicate(timeout=SECONDS)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    return Outcome(times, [tuple(held) for answer in answers for held in json.loads(answer)])


def test_additions_of_all_processes_count(subject: Subject, worked: Outcome) -> None:
    """No addition is lost, and none counts twice."""

    async def main() -> None:
        store = create_store(subject.settings)
        assert await store.add("adds", 0, 60) == PROCESSES * worked.times.adds
        await store.aclose()

    subject.run(main())


def test_swaps_of_all_processes_count(subject: Subject, worked: Outcome) -> None:
    """Reading and swapping in a loop adds up: nobody overwrites what it has not seen."""

    async def main() -> None:
        store = create_store(subject.settings)
        assert await store.get("swaps") == b"%d" % (PROCESSES * worked.times.swaps)
        await store.aclose()

    subject.run(main())


def test_one_process_holds_the_lease(subject: Subject, worked: Outcome) -> None:
    """Each epoch of a lease has one holder, who is alone meanwhile; epochs are counted without gaps."""
    assert sorted(epoch for epoch, _ in worked.held) == list(range(1, len(worked.held) + 1))
    assert len(worked.held) == PROCESSES * worked.times.leases
    assert all(alone for _, alone in worked.held)


def test_values_of_all_processes_are_there(subject: Subject, worked: Outcome) -> None:
    """What another process wrote is read."""

    async def main() -> None:
        store = create_store(subject.settings)
        names = [f"child {number}" for number in range(PROCESSES)]
        found = await store.get_many([f"{name}'s" for name in names])
        assert dict(found) == {f"{name}'s": name.encode() for name in names}
        await store.aclose()

    subject.run(main())
