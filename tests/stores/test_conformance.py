"""What every store does alike: values, keys and swaps."""

from __future__ import annotations

import asyncio
import random

import pytest

from firsttoken.stores.store import MAX_KEY_BYTES
from tests.stores.conftest import Subject

LONG = 600.0
KEYS = [
    "a/b//c/",
    "../..",
    'it\'s "quoted" `too`',
    "50% of #1? a&b=c\\d",
    " leading and trailing ",
    "tab\tand\nline",
    "\N{GRINNING FACE}\N{GRINNING FACE} \N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "Case",
    "case",
    "x" * MAX_KEY_BYTES,
    "x" * (MAX_KEY_BYTES - 1) + "y",
    "\N{GRINNING FACE}" * (MAX_KEY_BYTES // 4),
]


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), b"\0"])
def test_a_value_comes_back_as_it_was_written(subject: Subject, value: bytes) -> None:
    """A store keeps every byte, and none; what is written last is what is read."""

    async def main() -> None:
        key = subject.key()
        await subject.store.put(key, b"before", LONG)
        await subject.store.put(key, value, LONG)
        assert await subject.store.get(key) == value
        assert type(await subject.store.get(key)) is bytes

    subject.run(main())


def test_any_text_of_512_bytes_is_a_key(subject: Subject) -> None:
    """Keys differ as soon as one character of them does, whatever the characters are."""

    async def main() -> None:
        store = subject.store
        for number, key in enumerate(KEYS):
            await store.put(key, b"%d" % number, LONG)
            assert await store.add(key, number + 1, LONG) == number + 1
            assert await store.lease(key, str(number), LONG) is not None
        for number, key in enumerate(KEYS):
            assert await store.get(key) == b"%d" % number
            assert await store.add(key, 0, LONG) == number + 1
            assert await store.lease(key, "another", LONG) is None
        assert await store.get_many(KEYS) == {key: b"%d" % number for number, key in enumerate(KEYS)}

    subject.run(main())


def test_a_value_has_a_limit(subject: Subject) -> None:
    """A value of ``max_value_bytes`` is kept; one byte more is a ValueError, and changes nothing."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        value = random.Random(1).randbytes(store.max_value_bytes)
        await store.put(key, value, LONG)
        assert await store.get(key) == value
        assert await store.swap(key, value, b"small", LONG)
        with pytest.raises(ValueError, match=str(store.max_value_bytes)):
            await store.put(key, value + b"!", LONG)
        with pytest.raises(ValueError, match=str(store.max_value_bytes)):
            await store.swap(key, b"small", value + b"!", LONG)
        assert await store.get(key) == b"small"

    subject.run(main())


def test_what_is_absent(subject: Subject) -> None:
    """Nothing is found, deleted or swapped where nothing is."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        assert await store.get(key) is None
        assert await store.get_many([]) == {}
        assert await store.get_many([key]) == {}
        assert await store.delete(key) is False
        assert await store.delete(key, b"") is False
        assert await store.swap(key, b"", b"new", LONG) is False
        assert await store.get(key) is None

    subject.run(main())


def test_many_values_at_once(subject: Subject) -> None:
    """However many keys are asked for, each that is there comes back once."""

    async def main() -> None:
        keys = [subject.key(f"many {number}") for number in range(230)]
        await asyncio.gather(*(subject.store.put(key, key.encode(), LONG) for key in keys[::2]))
        found = await subject.store.get_many([*keys, keys[0]])
        assert dict(found) == {key: key.encode() for key in keys[::2]}

    subject.run(main())


def test_a_swap_happens_only_where_the_old_value_is(subject: Subject) -> None:
    """No value and an empty value are different; the new value may be the old one."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        assert await store.swap(key, None, b"", LONG) is True
        assert await store.swap(key, None, b"a", LONG) is False
        assert await store.swap(key, b"a", b"b", LONG) is False
        assert await store.get(key) == b""
        assert await store.swap(key, b"", b"a", LONG) is True
        assert await store.swap(key, b"a", b"a", LONG) is True
        assert await store.swap(key, b"a", b"b\0", LONG) is True
        assert await store.swap(key, b"b", b"c", LONG) is False
        assert await store.get(key) == b"b\0"

    subject.run(main())


def test_one_of_many_swaps_wins(subject: Subject) -> None:
    """Of swaps that expect the same, one succeeds: from nothing, and from a value."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        for old in (None, b"first"):
            new = b"first" if old is None else b"second"
            done = await asyncio.gather(*(store.swap(key, old, new, LONG) for _ in range(20)))
            assert sum(done) == 1

    subject.run(main())


def test_a_value_is_deleted_once(subject: Subject) -> None:
    """Deleting says whether there was something to delete, and leaves alone what is not ``old``."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        await store.put(key, b"a", LONG)
        assert await store.delete(key, b"b") is False
        assert await store.get(key) == b"a"
        assert await store.delete(key, b"a") is True
        assert await store.delete(key, b"a") is False
        await store.put(key, b"", LONG)
        assert sum(await asyncio.gather(*(store.delete(key) for _ in range(5)))) == 1
        assert await store.get(key) is None
        assert await store.swap(key, None, b"c", LONG) is True

    subject.run(main())


def test_values_counters_and_leases_are_apart(subject: Subject) -> None:
    """One key may name a value, a counter and a lease; none of them disturbs the others."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        assert await store.add(key, 5, LONG) == 5
        assert await store.get(key) is None
        epoch = await store.lease(key, "me", LONG)
        assert await store.swap(key, None, b"value", LONG) is True
        assert await store.add(key, 1, LONG) == 6
        assert await store.delete(key) is True
        assert await store.add(key, 1, LONG) == 7
        assert await store.lease(key, "me", LONG) == epoch

    subject.run(main())


def test_who_gives_up_disturbs_nobody(subject: Subject) -> None:
    """After operations that were cancelled at any moment, others still get their own answers."""

    async def main() -> None:
        store = subject.store
        keys = [subject.key() for _ in range(8)]
        for key in keys:
            await store.put(key, key.encode(), LONG)
        for turns in range(24):
            task = asyncio.create_task(store.get(keys[0]))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            if turns % 5 == 4:
                await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait([task])
            key = keys[turns % 8]
            assert await store.get(key) == key.encode()

    subject.run(main())


def test_many_operations_at_once(subject: Subject) -> None:
    """More operations than a store has connections all get their own answer."""

    async def main() -> None:
        keys = [subject.key() for _ in range(100)]
        await asyncio.gather(*(subject.store.put(key, key.encode(), LONG) for key in keys))
        answers = await asyncio.gather(*(subject.store.get(key) for key in keys))
        assert answers == [key.encode() for key in keys]

    subject.run(main())
