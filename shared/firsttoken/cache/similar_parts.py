"""Settings in, what `Similar` needs out: embedder, index, rules and judge, once for all routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from msgspec import Struct

from firsttoken import config
from firsttoken.cache.crypto import Seal, seal_of
from firsttoken.cache.index import MemoryIndex, VectorIndex
from firsttoken.cache.judge import Judge
from firsttoken.cache.quarantine import Quarantine
from firsttoken.cache.similar import Shared
from firsttoken.cache.similar_lookup import Lookup, rules_for
from firsttoken.embedding import Embedder
from firsttoken.errors import ConfigError
from firsttoken.model import Model
from firsttoken.policies.shadow import Shadow
from firsttoken.providers import lexical
from firsttoken.providers.http import HttpClient
from firsttoken.settings import LocalProvider, Settings
from firsttoken.stores.store import Store

EMBEDDED = "lexical"
"""The name under which the embedded embedder is there without being configured."""


class Around(Struct, frozen=True):
    """What of a gateway the similar cache uses."""

    store: Store
    shadow: Shadow
    client: HttpClient
    embedders: Mapping[str, Embedder]
    rng: Random
    judge: Callable[[], Model]
    """Returns the model that judges, without the caches of its route."""


def shared_for(settings: Settings, around: Around) -> Shared:
    """Return what the routes share. Raises ConfigError for settings that cannot be."""
    semantic, cache = settings.semantic, settings.cache
    if cache.mode == "off":
        raise ConfigError('semantic.mode: needs the exact cache, too; expected cache.mode = "on"')
    if semantic.judge and semantic.judge not in settings.models:
        raise ConfigError(f"semantic.judge: expected the name of a model, got {semantic.judge!r}")
    embedder, space = _embedder(settings, around.embedders)
    rules = rules_for(semantic.language, lexical=space.startswith(lexical.MODEL))
    quarantine = Quarantine(around.store, ttl=cache.max_age)
    judge = None
    if semantic.judge:
        judge = Judge(
            semantic,
            around.judge,
            around.store,
            quarantine,
            around.shadow,
            policy=f"{space}|{semantic.threshold}|{semantic.language}",
            rng=around.rng,
        )
    return Shared(
        settings=semantic,
        lookup=Lookup(semantic, embedder, _index(settings, around), rules),
        quarantine=quarantine,
        store=around.store,
        shadow=around.shadow,
        space=space,
        fresh=cache.ttl,
        judge=judge,
    )


def _embedder(settings: Settings, embedders: Mapping[str, Embedder]) -> tuple[Embedder, str]:
    """Return the embedder, and the name of the space that its vectors are in."""
    name = settings.semantic.embedding
    route = settings.embeddings.get(name)
    if route is None:
        if name != EMBEDDED:
            raise ConfigError(f"semantic.embedding: expected [embeddings.{name}] or {EMBEDDED!r}")
        from firsttoken.providers.embed_local import embedder

        local = LocalProvider()
        return embedder(name, local, EMBEDDED, None), f"{lexical.MODEL}:{local.dimensions}"
    provider = settings.providers[route.target.partition("/")[0]]
    if not isinstance(provider, LocalProvider):
        return embedders[name], f"{route.target}"
    kind = lexical.MODEL if route.target.endswith(f"/{EMBEDDED}") else f"{route.target}:{provider.path}"
    return embedders[name], f"{kind}:{provider.dimensions}"


def _index(settings: Settings, around: Around) -> VectorIndex:
    semantic, cache = settings.semantic, settings.cache
    if semantic.index == "memory":
        memory = MemoryIndex(semantic.entries)
        if not around.store.shared:
            return memory
        from firsttoken.cache.index_store import StoredIndex

        return StoredIndex(memory, around.store, around.shadow, ttl=cache.max_age, seal=_seal(settings))
    index = _service(settings, around.client)
    if not cache.encryption_key:
        return index
    from firsttoken.cache.index_sealed import SealedIndex

    return SealedIndex(index, _seal(settings))


def _service(settings: Settings, client: HttpClient) -> VectorIndex:
    semantic, ttl = settings.semantic, settings.cache.max_age
    url = config.secret(semantic.index_url, "semantic.index_url")
    if semantic.index == "pgvector":
        from firsttoken.cache.pgvector import PgvectorIndex

        return PgvectorIndex(url, entries=semantic.entries, ttl=ttl)
    from firsttoken.cache.search import SearchIndex

    return SearchIndex(url, client, entries=semantic.entries, ttl=ttl)


def _seal(settings: Settings) -> Seal:
    def known(value: str, where: str) -> str:
        return config.secret(value, where) if value else ""

    cache = settings.cache
    return seal_of(
        known(cache.encryption_key, "cache.encryption_key"), known(cache.key_secret, "cache.key_secret")
    )
