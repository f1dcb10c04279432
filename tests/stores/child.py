"""A process that works on a store together with others, for tests/stores/test_processes.py.

Its arguments: the store's settings as JSON, its own name, and how often it does each thing. It says "ready",
waits for a line, works, and says what it saw.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from firsttoken.settings import StoreSettings
from firsttoken.stores import Guarded, create_store

LONG = 600.0


async def swap_up(store: Guarded) -> None:
    """Add one to a number that is a value: read, and write where nobody else wrote meanwhile."""
    while True:
        old = await store.get("swaps")
        if await store.swap("swaps", old, b"%d" % (int(old or b"0") + 1), LONG):
            return


async def hold(store: Guarded, name: str) -> tuple[int, bool]:
    """Take the lease, and say which epoch it was and whether nobody else worked meanwhile."""
    while (epoch := await store.lease("lease", name, LONG)) is None:
        await asyncio.sleep(0.005)
    before = await store.add("inside", 1, LONG)
    await asyncio.sleep(0.002)
    after = await store.add("inside", -1, LONG)
    assert await store.release("lease", name)
    return epoch, (before, after) == (1, 0)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(settings: str, name: str, times: str) -> None:
    store = create_store(msgspec.json.decode(settings, type=StoreSettings))
    adds, swaps, leases = map(int, times.split(","))
    await store.open()
    say("ready")
    sys.stdin.readline()
    for _ in range(adds):
        await store.add("adds", 1, LONG)
    for _ in range(swaps):
        await swap_up(store)
    held = [await hold(store, name) for _ in range(leases)]
    await store.put(f"{name}'s", name.encode(), LONG)
    await store.aclose()
    say(msgspec.json.encode(held).decode())


asyncio.run(main(*sys.argv[1:]))
