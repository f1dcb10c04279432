"""The composition root: settings in, one model a route out. Read top to bottom it is the life of a call.

A route is a public model name, a target is a provider and a model of it. `Gateway._route` puts the policies
that choose between targets around the targets, `Gateway._target` those that concern one target around its
provider.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Collection, Iterable
from functools import cached_property, partial
from random import Random
from typing import TYPE_CHECKING

import msgspec

from firsttoken import config
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_ledger import Ledgers
from firsttoken.cache.prefix_rules import rules_of
from firsttoken.errors import ConfigError, NotFoundError
from firsttoken.model import Call, Chunk, Model
from firsttoken.policies.balance import Balance, balance_of
from firsttoken.policies.board import Board
from firsttoken.policies.breaker import Breaker
from firsttoken.policies.budget import Budgets
from firsttoken.policies.circuit import Circuit
from firsttoken.policies.coalesce import SIMULATE, Coalesced
from firsttoken.policies.continuation import method_of
from firsttoken.policies.failover import Failover
from firsttoken.policies.limit import Limited, Limiter
from firsttoken.policies.resume import Resume
from firsttoken.policies.retry import Retry
from firsttoken.policies.shadow import Shadow
from firsttoken.policies.stats import Stats
from firsttoken.policies.sticky import Holders, Sticky
from firsttoken.policies.target import Measured, Target
from firsttoken.policies.throttle import Throttled
from firsttoken.policies.timeouts import Timeouts
from firsttoken.providers.factory import Factory, kind_of
from firsttoken.providers.http import HttpClient
from firsttoken.settings import Embedding, HttpProvider, Provider, Route, Rung, Settings, Weighted
from firsttoken.settings import Target as Known
from firsttoken.stores import create_store

if TYPE_CHECKING:
    from firsttoken.cache.answers import Answers
    from firsttoken.cache.around import Caches
    from firsttoken.embedding import EmbedCall, Embedder, Embeddings
    from firsttoken.jobs.jobs import Jobs
    from firsttoken.jobs.pace import Pace
    from firsttoken.jobs.webhook import Webhooks
    from firsttoken.model import Later
    from firsttoken.objects import Objects
    from firsttoken.queues import Queue

ANY = "*"


class Gateway:
    """All routes of one process, the targets behind them, and the state that instances share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client = HttpClient()
        self._factory = Factory(settings, self._client)
        self._rng = Random()  # noqa: S311 - jitter and choices, not secrets
        self._budgets = Budgets(settings.retry)
        self.shadow = Shadow()
        self.store = create_store(settings.store, name=_digest(settings))
        self._shared = self.store if self.store.shared else None
        self.board = Board(self._shared, settings.breaker, self.shadow, rng=self._rng)
        self.targets: dict[str, Target] = {}
        self.providers: dict[str, Model] = {}
        """The bare models behind the targets, without any policy."""
        self.breakers: dict[str, Breaker] = {}
        self.limiters: dict[str, Limiter] = {}
        self.prefix_savings = PrefixSavings()
        self._ledgers = Ledgers(self._shared, self.shadow)
        self.answered: dict[str, int] = {}
        """Calls by what the cache had to say (`Record.cache`), of those that it was asked for."""
        self._holders = Holders()
        self.embedders = {name: self._embedder(item) for name, item in settings.embeddings.items()}
        self.caches = self._caches() if settings.cache.mode == "on" else None
        self._fresh: dict[str, Model] = {}
        """What answers each route where no kept answer may."""
        self.routes: dict[str, Model] = {
            name: self._route(name, route) for name, route in settings.models.items()
        }

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``. Raises NotFoundError when no route has the model's name."""
        return self.routes[_named(call.request.model, self.routes, "model")].stream(call)

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``. Raises NotFoundError when no route has the model's name."""
        route = _named(call.request.model, self.embedders, "embedding model")
        call.record.target = self.settings.embeddings[route].target
        return await self.embedders[route].embed(call)

    @cached_property
    def queue(self) -> Queue | None:
        """Where calls wait that are answered later; None where none is configured."""
        from firsttoken.queues import create_queue

        kind = self.settings.queue
        return None if kind is None else create_queue(kind, self._client, name=_digest(self.settings))

    @cached_property
    def objects(self) -> Objects:
        """Where large values of jobs are kept."""
        from firsttoken.objects import create_objects

        return create_objects(self.settings.objects, self._client, self.store)

    @cached_property
    def jobs(self) -> Jobs | None:
        """The calls that are answered later; None without a queue."""
        if self.queue is None:
            return None
        from firsttoken.jobs.jobs import Jobs

        return Jobs(self.settings, self.store, self.queue, self.objects)

    @cached_property
    def pace(self) -> Pace:
        """How fast jobs may be answered."""
        from firsttoken.jobs.pace import Pace

        return Pace(self.store, self.settings.jobs, self._requests_a_minute, rng=self._rng)

    @cached_property
    def webhooks(self) -> Webhooks:
        """What tells clients that their jobs have ended. Raises ConfigError for a secret that is none."""
        from firsttoken.jobs.webhook import Webhooks

        return Webhooks(self.settings.webhook)

    def wait_for(self, model: str) -> float | None:
        """Return the seconds until a target of a model may be called; None: one may be now."""
        route = self.settings.models.get(model) or self.settings.models.get(ANY)
        names = [item.target for item in route.all_targets()] if route else []
        views = [self.breakers[name].circuit.view() for name in names if name in self.breakers]
        if not views or len(views) < len(names) or any(not view.seconds_left for view in views):
            return None
        return min(view.seconds_left for view in views)

    async def aclose(self) -> None:
        """Close the connections to all targets, to the store and to the queue."""
        await self.shadow.aclose()
        await self._ledgers.aclose()
        if self.caches:
            await self.caches.aclose()
        for name in ("webhooks", "objects", "queue"):
            if made := vars(self).get(name):
                await made.aclose()
        await self.store.aclose()
        await self._client.aclose()

    def _route(self, name: str, route: Route) -> Model:
        """Return what answers the calls of a route: policies that choose, around its targets."""
        settings, listed = self.settings, route.all_targets()
        headers = self._forwarded(listed)
        answers = self.caches.answers(name, route, headers) if self.caches and route.cache else None
        targets = self._targets(item.target for item in listed)
        weights = {item.target: item.weight for item in listed}
        model: Model = Failover(
            targets,
            self._balance(route, weights),
            context_overflow=self._targets(route.context_overflow),
            content_filter=self._targets(route.content_filter),
        )
        by_name = {target.name: target for target in targets}
        if settings.hedge.enabled and route.hedge and len(targets) > 1:
            from firsttoken.policies.hedge import Hedge

            model = Hedge(model, settings.hedge, by_name, settings.breaker, calm=self._is_calm)
        model = Retry(model, settings.retry, self._budgets, rng=self._rng)
        if settings.resume.enabled and route.resume:
            simulated = [name for name in by_name if self._kind(name) == "simulated"]
            instead = [*route.context_overflow, *route.content_filter]
            model = Resume(model, settings.resume, self._continues([*by_name, *instead]), exact=simulated)
        rungs = self.caches.ladder(route) if self.caches and answers else route.degrade
        if rungs:
            from firsttoken.policies.degrade import Degrade

            model = Degrade(model, [(rung.label(), self._rung(rung, answers)) for rung in rungs])
        self._fresh[name] = model
        if self.caches and answers:
            model = self.caches.wrap(name, route, answers, headers, model)
        if settings.coalesce.mode != "off" and route.coalesce:
            model = Coalesced(model, settings.coalesce, headers=[*headers, "cache-control"])
        defer = route.defer or settings.jobs.defer
        if settings.queue is not None and defer != "off":
            from firsttoken.policies.defer import Deferred

            model = Deferred(model, partial(self._submit, headers), outage=defer == "outage")
        return model

    def _target(self, name: str) -> Target:
        """Return a target: policies that concern this one, around its provider."""
        settings, known = self.settings, self.settings.targets.get(name, Known())
        # Behind HTTP the client of the provider sees every byte, so it tells silence from thinking.
        http = isinstance(self._provider(name), HttpProvider)
        gap = settings.timeouts.idle if http else settings.timeouts.gap
        stats = Stats()
        limiter = self.limiters[name] = Limiter(
            name, known, settings.limit, stats, self._shared, self.shadow, kind=self._kind(name)
        )
        provider = self.providers[name] = self._factory.chat(name)
        model: Model = Measured(Timeouts(self._prefixed(name, provider), settings.timeouts, gap), stats)
        if settings.breaker.enabled:
            circuit = Circuit(name, settings.breaker, self.board)
            model = self.breakers[name] = Breaker(model, circuit, stats)
        if settings.throttle.enabled:
            model = Throttled(model, settings.throttle, self._rng)
        model = Limited(model, limiter)
        return Target(name, model, stats, price=known.price, headroom=limiter.headroom)

    def _balance(self, route: Route, weights: dict[str, float]) -> Balance:
        """Return how a route chooses; a conversation stays where its prompt is cached."""
        balance = balance_of(route.balance, weights, self._rng, sticky=route.sticky)
        if not route.sticky or len(weights) == 1 or route.balance in ("weight", "cost"):
            return balance
        return Sticky(balance, self._holders, self._is_open)

    def _is_open(self, name: str) -> bool:
        return name in self.breakers and self.breakers[name].circuit.is_open

    def _prefixed(self, name: str, provider: Model) -> Model:
        """Return a target's provider with its prompt cache in use."""
        settings, kind = self.settings, self._provider(name)
        rules = partial(rules_of, kind, price=settings.targets.get(name, Known()).price)
        explicit = None
        if settings.prefix.explicit:
            from firsttoken.cache.explicit import explicit_of

            explicit = explicit_of(
                name,
                kind,
                settings.prefix.ttl,
                rules(name.partition("/")[2]),
                client=self._client,
                store=self.store,
                shadow=self.shadow,
                savings=self.prefix_savings,
                ledger=self._ledgers.of,
            )
        return Prefixed(
            provider,
            settings.prefix,
            rules,
            name=name,
            savings=self.prefix_savings,
            held=self._holders.note,
            explicit=explicit,
            ledger=self._ledgers.of,
        )

    def _embedder(self, item: Embedding) -> Embedder:
        """Return an embedder: its cache around micro-batches, where the vectors cost something."""
        target = item.target
        embedder = self._factory.embedder(target)
        if self._kind(target) == "local":
            return embedder
        if item.window:
            from firsttoken.batch.micro import MicroBatched

            headers = [*self._forwarded([Weighted(target=target)]), SIMULATE]
            embedder = MicroBatched(embedder, item, headers=headers)
        if self.settings.cache.mode == "off":
            return embedder
        from firsttoken.cache.embedded import CachedEmbedder

        return CachedEmbedder(embedder, self.store, self.shadow, self.settings.cache, target)

    def _targets(self, names: Iterable[str]) -> list[Target]:
        """Return the targets of these names; a target of several routes is one."""
        listed = list(names)
        for name in listed:
            if name not in self.targets:
                self.targets[name] = self._target(name)
        return [self.targets[name] for name in listed]

    def _rung(self, rung: Rung, answers: Answers | None) -> Model:
        from firsttoken.policies.degrade import FixedText

        if rung.target:
            return self._targets([rung.target])[0]
        if rung.text:
            return FixedText(rung.text)
        if self.caches is None or answers is None:
            raise ConfigError('degrade: stale = true needs kept answers; expected cache.mode = "on"')
        return self.caches.stale(answers)

    def _caches(self) -> Caches:
        from firsttoken.cache.around import Caches
        from firsttoken.cache.similar_parts import Around

        def judge() -> Model:
            return self._fresh[self.settings.semantic.judge]

        around = Around(self.store, self.shadow, self._client, self.embedders, self._rng, judge)
        return Caches(self.settings, around)

    async def _submit(self, headers: list[str], call: Call, later: Later) -> str:
        if self.jobs is None:
            raise ConfigError("queue: a call can become a job only where a queue is configured")
        return (await self.jobs.submit(call, later, headers=[*headers, "cache-control"])).id

    def _requests_a_minute(self, model: str) -> float:
        """Return what the targets of a model allow together, as far as that is known."""
        route = self.settings.models.get(model) or self.settings.models.get(ANY)
        names = [item.target for item in route.all_targets()] if route else []
        buckets = [self.limiters[name].quotas.requests for name in names]
        return sum(bucket.limit for bucket in buckets if bucket.known)

    def _is_calm(self) -> bool:
        return not any(breaker.circuit.is_open for breaker in self.breakers.values())

    def _continues(self, targets: Iterable[str]) -> dict[str, str]:
        """Return for each target how it goes on with an answer that broke off."""
        known = self.settings.targets
        return {
            name: method_of(known.get(name, Known()).continues, self._kind(name), name.partition("/")[2])
            for name in targets
        }

    def _forwarded(self, listed: Iterable[Weighted]) -> list[str]:
        """Return the names of the client's headers that a target of these may get to see."""
        providers = [self._provider(item.target) for item in listed]
        names = [provider.forward_headers for provider in providers if isinstance(provider, HttpProvider)]
        return sorted({name.lower() for several in names for name in several})

    def _provider(self, target: str) -> Provider:
        return self.settings.providers[target.partition("/")[0]]

    def _kind(self, target: str) -> str:
        return kind_of(self._provider(target))


def _named(model: str, routes: Collection[str], what: str) -> str:
    route = model if model in routes else ANY
    if route not in routes:
        known = f"expected one of {', '.join(sorted(routes))}" if routes else "none is configured"
        message = f"The {what} {model!r} does not exist here; {known}."
        raise NotFoundError(message, param="model", code="model_not_found")
    return route


def _digest(settings: Settings) -> str:
    """Return what tells this configuration from others: state of one means nothing to another."""
    return hashlib.sha256(msgspec.json.encode(settings)).hexdigest()[:16]


def create_gateway(settings: Settings | None = None) -> Gateway:
    """Build a gateway from ``settings`` or from the configuration of this process. Raises ConfigError."""
    return Gateway(settings or config.load())
