"""Settings of the similar cache: what is built of them, and what is refused at start."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from policies.fleet import FakeStore
from policies.models import Scripted

from firsttoken.cache.index import MemoryIndex
from firsttoken.cache.index_sealed import SealedIndex
from firsttoken.cache.index_store import StoredIndex
from firsttoken.cache.pgvector import PgvectorIndex
from firsttoken.cache.search import SearchIndex
from firsttoken.cache.similar import Shared
from firsttoken.cache.similar_parts import Around, shared_for
from firsttoken.errors import ConfigError
from firsttoken.policies.shadow import Shadow
from firsttoken.providers.embed_local import embedder
from firsttoken.providers.http import HttpClient
from firsttoken.settings import Cache, Embedding, LocalProvider, Route, Semantic, Settings, SimulatedProvider
from firsttoken.settings import MemoryStore as MemorySettings
from firsttoken.stores.memory import MemoryStore

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
PROVIDERS: dict[str, Any] = {
    "p": SimulatedProvider(),
    "here": LocalProvider(dimensions=128),
    "there": SimulatedProvider(),
}
EMBEDDINGS = {"words": Embedding(target="here/lexical"), "meaning": Embedding(target="there/e")}


def build(store: Any = None, cache: Cache = Cache(mode="on"), **semantic: Any) -> Shared:  # noqa: B008
    settings = Settings(
        cache=cache,
        semantic=Semantic(mode="on", **semantic),
        providers=PROVIDERS,
        embeddings=EMBEDDINGS,
        models={"m": Route(target="p/m")},
    )
    local = embedder("here", PROVIDERS["here"], "lexical", None)
    embedders: dict[str, Any] = {"words": local, "meaning": object()}
    around = Around(store or FakeStore(), Shadow(), HttpClient(), embedders, Random(1), Scripted)
    return shared_for(settings, around)


@pytest.mark.parametrize(
    ("name", "space", "given"),
    [
        ("lexical", "lexical-1:384", "password reset"),
        ("words", "lexical-1:128", "password reset"),
        ("meaning", "there/e", "How do I reset my password?"),
    ],
)
def test_the_embedder_is_configured_or_the_embedded_one(name, space, given):
    """The embedded one compares words, so it gets their canonical form; any other gets the question."""
    shared = build(embedding=name)
    assert shared.space == space
    assert shared.lookup._rules.embedding_text("How do I reset my password?") == given


def test_another_language_has_nearly_equal_words_only():
    """The guard knows English; otherwise the same words in any order are similar, and no others."""
    rules = build(language="other").lookup._rules
    assert rules.canonical("  Wie  Geht DAS? ") == "wie geht das?"
    said = ("Wie geht das?", "  WIE geht das?!", "Wie ging das?")
    one, same, other = (rules.prepare(text) for text in said)
    assert rules.verdict(one, same).same
    assert not rules.verdict(one, other).same


def test_the_index_is_remembered_where_instances_share_a_store():
    """A store of this process would only hold the same once more."""
    assert isinstance(build().lookup._index, StoredIndex)
    assert isinstance(build(MemoryStore(MemorySettings())).lookup._index, MemoryIndex)


@pytest.mark.parametrize(
    ("index", "url", "kind"),
    [
        ("pgvector", "postgresql://u@127.0.0.1/d", PgvectorIndex),
        ("search", "https://x.search.windows.net/indexes/i?api-key=k", SearchIndex),
    ],
)
def test_a_service_gets_no_words_where_answers_are_encrypted(monkeypatch, index, url, kind):
    """The connection may stand in the environment; with an encryption key questions are sealed."""
    monkeypatch.setenv("INDEX_URL", url)
    assert isinstance(build(index=index, index_url="env:INDEX_URL").lookup._index, kind)
    sealed = build(cache=Cache(mode="on", encryption_key=KEY), index=index, index_url=url).lookup._index
    assert isinstance(sealed, SealedIndex)
    assert isinstance(sealed._index, kind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": Cache()}, "cache.mode"),
        ({"embedding": "nowhere"}, r"\[embeddings.nowhere\]"),
        ({"judge": "nobody"}, "semantic.judge"),
        ({"index": "pgvector"}, "semantic.index_url"),
        ({"index": "search", "index_url": "env:NOT_SET"}, "NOT_SET"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_start(settings, message):
    """The message names the setting."""
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_counts_of_a_judge_hold_for_one_way_of_deciding():
    """Another embedder or threshold has to be shown good again."""
    policies = {
        build(judge="m", **fields).judge._policy
        for fields in ({}, {"embedding": "words"}, {"threshold": 0.9}, {"language": "other"})
    }
    assert len(policies) == 4
