"""What other rules of the guard judged or wrote is not trusted."""

from __future__ import annotations

from random import Random

import pytest
from policies.fleet import FakeStore
from virtual_time import run, wall

from firsttoken.cache import index_store, judge, words
from firsttoken.cache.crypto import Checksum
from firsttoken.cache.index import MemoryIndex, Question
from firsttoken.cache.index_store import StoredIndex
from firsttoken.cache.judge import Hit, Judge
from firsttoken.cache.quarantine import Quarantine
from firsttoken.embedding import pack
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Semantic


def _index(store: FakeStore) -> StoredIndex:
    return StoredIndex(MemoryIndex(10), store, Shadow(), ttl=60.0, now=wall, seal=Checksum())


def test_questions_of_other_rules_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index in the store that was written under other rules is as good as empty."""

    async def work() -> None:
        store = FakeStore()
        await _index(store).add("s", Question("k", "a question", "q", pack([1.0, 0.0]), wall()))
        assert await _index(store).equal("s", "q") is not None
        monkeypatch.setattr(index_store, "rules_version", lambda: "other")
        assert await _index(store).equal("s", "q") is None
        assert not await _index(store).nearest("s", pack([1.0, 0.0]), 5)

    run(work())


def test_other_rules_have_to_be_shown_good_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits that were counted under other rules make no category trusted."""

    async def work() -> None:
        store, shadow = FakeStore(), Shadow()
        hit = Hit("t", "r", "s", "k", "how")
        settings = Semantic(precision=0.1)

        def make() -> Judge:
            return Judge(
                settings,
                lambda: pytest.fail("asks no model"),
                store,
                Quarantine(store, ttl=60.0),
                shadow,
                policy="p",
                rng=Random(1),
            )

        one = make()
        await one.label(hit, good=True)
        assert one.trusts(hit)
        monkeypatch.setattr(judge, "rules_version", lambda: "other")
        assert not one.trusts(hit)

    run(work())


def test_version_changes_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other data are other rules; the same data are the same in every process."""
    before = words.rules_version()
    words.rules_version.cache_clear()
    assert words.rules_version() == before
    words.rules_version.cache_clear()
    monkeypatch.setattr(words, "_data", lambda: b"other")
    assert words.rules_version() != before
    words.rules_version.cache_clear()
