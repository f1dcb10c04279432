"""The store in a file: where it is, what happens when it is harmed, and what it costs the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from firsttoken.errors import StoreError
from firsttoken.settings import SqliteStore as Settings
from firsttoken.stores import create_store, sqlite
from firsttoken.stores.sqlite import SqliteStore
from tests.stores.conftest import PATIENCE

GARBAGE = b"this is no database. " * 1000


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def at(path: Path, timeout: float = PATIENCE) -> SqliteStore:
    return SqliteStore(Settings(path=str(path), timeout=timeout))


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM entries").fetchone()[0]


def remove_all(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


async def end(*stores: SqliteStore) -> None:
    for store in stores:
        await store.aclose()


def test_the_default_file_is_this_users(temporary: Path) -> None:
    """Without a path the file is in a directory that only this user can open, named like the digest."""

    async def main() -> None:
        store = create_store(Settings(timeout=PATIENCE), name="0a1b")
        await store.put("k", b"v", 60)
        directory = temporary / f"firsttoken-{os.getuid()}"
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "0a1b.sqlite").is_file()
        other = create_store(Settings(timeout=PATIENCE), name="other")
        assert await other.get("k") is None
        await store.aclose()
        await other.aclose()

    asyncio.run(main())


def _open_to_all(path: Path, _: pytest.MonkeyPatch) -> None:
    path.mkdir()
    path.chmod(0o755)


def _link(path: Path, _: pytest.MonkeyPatch) -> None:
    path.with_name("elsewhere").mkdir(mode=0o700)
    path.symlink_to("elsewhere")


def _file(path: Path, _: pytest.MonkeyPatch) -> None:
    path.touch(mode=0o700)


def _of_somebody_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir(mode=0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    path.rename(path.with_name(f"firsttoken-{uid + 1}"))


@pytest.mark.parametrize("prepare", [_open_to_all, _link, _file, _of_somebody_else])
def test_a_directory_that_others_can_use_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    """Nothing is written to, or believed from, a directory that somebody else may have prepared."""
    prepare(temporary / f"firsttoken-{os.getuid()}", monkeypatch)

    async def main() -> None:
        store = SqliteStore(Settings())
        with pytest.raises(StoreError, match=r"store\.path"):
            await store.get("k")
        await store.aclose()

    asyncio.run(main())
    assert not list(temporary.rglob("*.sqlite"))


@pytest.mark.parametrize("path", ["missing/store.sqlite", "."])
def test_a_path_that_cannot_be_opened(tmp_path: Path, path: str) -> None:
    """A file that cannot be made is a StoreError, not a crash, and does not tell where it should be."""

    async def main() -> None:
        store = at(tmp_path / path)
        with pytest.raises(StoreError) as caught:
            await store.put("k", b"v", 60)
        assert str(tmp_path) not in str(caught.value)
        await store.aclose()

    asyncio.run(main())


def test_a_deleted_file_is_made_anew(tmp_path: Path) -> None:
    """Processes that share a file still share one after it was deleted under them."""

    async def main() -> None:
        one, other = at(tmp_path / "s"), at(tmp_path / "s")
        await one.put("k", b"v", 60)
        assert await other.get("k") == b"v"
        remove_all(tmp_path)
        assert await one.get("k") is None
        assert await one.swap("k", None, b"w", 60)
        assert await other.get("k") == b"w"
        assert await other.add("k", 1, 60) == 1
        assert await one.add("k", 1, 60) == 2
        await end(one, other)

    asyncio.run(main())


def test_a_corrupt_file_of_the_user_is_left_alone(tmp_path: Path) -> None:
    """A configured path may name something else by mistake: a StoreError, every time, and no byte changed."""
    path = tmp_path / "precious"
    path.write_bytes(GARBAGE)

    async def main() -> None:
        store = at(path)
        for _ in range(3):
            with pytest.raises(StoreError, match="SQLITE_NOTADB"):
                await store.put("k", b"v", 60)
        await store.aclose()
        assert path.read_bytes() == GARBAGE
        path.unlink()
        await store.put("k", b"v", 60)
        assert await store.get("k") == b"v"
        await store.aclose()

    asyncio.run(main())


def test_a_corrupt_file_of_our_own_is_replaced(temporary: Path) -> None:
    """A temporary file that is corrupt costs one operation; then there is a new one."""

    async def main() -> None:
        stores = [SqliteStore(Settings(timeout=PATIENCE), name="x") for _ in range(2)]
        (temporary / f"firsttoken-{os.getuid()}").mkdir(mode=0o700)
        (temporary / f"firsttoken-{os.getuid()}" / "x.sqlite").write_bytes(GARBAGE)
        with pytest.raises(StoreError):
            await stores[0].get("k")
        for store in stores:
            assert await store.swap("k", None, b"v", 60) == (store is stores[0])
        await end(*stores)

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"", GARBAGE, GARBAGE[:100]])
def test_a_file_that_is_overwritten_while_it_is_open(temporary: Path, content: bytes) -> None:
    """Whatever is done to an open file, operations end in an answer or a StoreError, and it works again."""

    async def main() -> None:
        store = SqliteStore(Settings(timeout=PATIENCE), name="x")
        for number in range(200):
            await store.put(f"{number}", bytes(2000), 60)
        (temporary / f"firsttoken-{os.getuid()}" / "x.sqlite").write_bytes(content)
        errors = 0
        for number in range(200):
            try:
                await store.put(f"{number}", b"v", 60)
                assert await store.get(f"{number}") == b"v"
            except StoreError:
                errors += 1
        assert errors < 5
        await store.aclose()

    asyncio.run(main())


def test_a_writer_elsewhere_is_waited_for(tmp_path: Path) -> None:
    """While another process writes, reading goes on, writing ends in a StoreError, the loop runs."""
    path = tmp_path / "s"

    async def main() -> None:
        store = at(path, timeout=0.5)
        await store.put("k", b"v", 60)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            late = at(path, timeout=0.5)
            assert await late.get("k") == b"v"
            put = asyncio.create_task(store.put("k", b"w", 60))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not put.done()
            with pytest.raises(StoreError, match="SQLITE_BUSY"):
                await put
            assert await late.get("k") == b"v"
            other.execute("COMMIT")
        await store.put("k", b"w", 60)
        assert await late.get("k") == b"w"
        await end(store, late)

    asyncio.run(main())


def test_expired_rows_go_as_others_are_written(tmp_path: Path) -> None:
    """Nobody need purge: each write deletes, on average, more rows than it adds."""
    now = [1e9]

    async def main() -> None:
        path = tmp_path / "s"
        store = SqliteStore(Settings(path=str(path), timeout=PATIENCE), clock=lambda: now[0])
        for number in range(500):
            await store.put(f"{number}", b"", 60)
        assert rows(path) == 500
        now[0] += 61
        for number in range(4 * sqlite.PURGE_EVERY):
            await store.put(f"new {number % 10}", b"", 60)
        assert rows(path) == 10
        await store.aclose()

    asyncio.run(main())


def test_purging_keeps_epochs(tmp_path: Path) -> None:
    """Purging deletes every expired row, and those of leases only hours after their end."""
    now = [1e9]

    async def main() -> None:
        path = tmp_path / "s"
        store = SqliteStore(Settings(path=str(path), timeout=PATIENCE), clock=lambda: now[0])
        for number in range(300):
            await store.put(f"{number}", b"", 60)
        assert await store.lease("lease", "me", 60) == 1
        now[0] += 3600
        assert await store.purge() == 300
        assert await store.lease("lease", "you", 60) == 2
        now[0] += 86400
        assert await store.purge() == 1
        assert rows(path) == 0
        await store.aclose()

    asyncio.run(main())


def test_a_full_file_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has a largest size: what does not fit is a StoreError until something has expired."""
    monkeypatch.setattr(sqlite, "MAX_FILE_BYTES", 400_000)
    now = [1e9]

    async def main() -> None:
        store = SqliteStore(Settings(path=str(tmp_path / "s"), timeout=PATIENCE), clock=lambda: now[0])
        for number in range(3):
            await store.put(f"{number}", bytes(100_000), 60)
        for _ in range(2):
            with pytest.raises(StoreError, match="SQLITE_FULL"):
                await store.put("new", bytes(100_000), 60)
        assert await store.get("0") is not None
        now[0] += 61
        await store.put("new", bytes(100_000), 60)
        assert await store.get("new") is not None
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_one_store_serves_several_event_loops(tmp_path: Path, factory: type) -> None:
    """A loop that ended takes nothing with it; a store that was closed opens its file again."""
    store = at(tmp_path / "s")

    async def leave() -> None:
        asyncio.create_task(store.add("left", 1, 60))  # noqa: RUF006 - nobody waits for it
        await asyncio.sleep(0)

    for expected in (1, 2, 3, 4):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(leave())
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(store.add("k", 1, 60)) == expected
            if expected == 2:
                runner.run(store.aclose())
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(store.aclose())


def test_the_thread_ends_with_the_store(tmp_path: Path) -> None:
    """A store that nobody uses has no thread; a closed one has none either."""

    def threads() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("firsttoken-sqlite")}

    async def main() -> None:
        before = threads()
        store = at(tmp_path / "s")
        await store.aclose()
        assert not threads() - before
        await asyncio.gather(*(store.put("k", b"", 60) for _ in range(20)))
        assert len(threads() - before) == 1
        await store.aclose()
        async with asyncio.timeout(PATIENCE):
            while threads() - before:
                await asyncio.sleep(0.01)

    asyncio.run(main())
