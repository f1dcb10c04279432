"""Gemini's explicit caches: made when they pay, shared by all instances, renewed while used, then deleted.

A call never waits for any of it. Until a cache is there, calls are sent in full; where one is gone, the call
that notices is sent in full as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from hashlib import blake2b
from secrets import token_hex
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from firsttoken.cache.break_even import Arrivals, Ledger, decide, saving, storing
from firsttoken.cache.explicit_http import CachedContents, cached_contents, without_static
from firsttoken.cache.prices import Prices
from firsttoken.chat import ChatRequest
from firsttoken.errors import UpstreamError
from firsttoken.model import Call, Source, Usage
from firsttoken.policies.estimate import estimate
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import GeminiProvider, Provider, VertexProvider
from firsttoken.stores.store import Store
from firsttoken.wire import codec_of, json_body
from firsttoken.wire.codec import Codec

if TYPE_CHECKING:
    from firsttoken.cache.prefix import PrefixSavings
    from firsttoken.cache.prefix_rules import Rules
    from firsttoken.providers.http import HttpClient

ENTRIES = 256
LEASE = 60.0
"""Seconds in which one instance may make a cache before another one tries."""
MARGIN = 10.0
"""Seconds before its end in which a cache is not used any more."""
RETRY = 600.0
"""Seconds after which a cache that was refused is asked for again."""
LOOK_SECONDS = 5.0
"""Between two looks at the store for what another instance has made."""
PROOF = 3.0
"""See `Ledger`. A cache costs more than one read of it saves, so this takes as many reads as for markers."""
_encode = msgspec.json.encode


class _Stored(Struct, frozen=True, array_like=True):
    """What instances tell each other of a cache; ``until`` is Unix time."""

    name: str
    until: float
    tokens: int


_stored = msgspec.msgpack.Decoder(_Stored)
_pack = msgspec.msgpack.encode


class Held(Struct):
    """What this instance knows of a static prefix."""

    key: str
    tokens: int
    arrivals: Arrivals
    name: str = ""
    until: float = 0.0
    busy: bool = False
    not_before: float = 0.0
    paper_until: float = 0.0
    """Until when it would be kept, had every cache been made that pays."""
    hits: float = 0.0
    """The share of it that the provider caches by itself, as answers tell."""


class Explicit:
    """The explicit caches of one target. Memory: `ENTRIES` prefixes of 1 kB. ``wall`` is Unix time.

    What it spends is bounded as `Ledger` says. A cache belongs to one tenant.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        api: CachedContents,
        codec: Codec,
        prices: Prices,
        *,
        store: Store,
        shadow: Shadow,
        ttl: str = "5m",
        paid: Callable[[float], None] = lambda _tokens: None,
        wall: Callable[[], float] = time,
        ledger: Ledger | None = None,
    ) -> None:
        self._api = api
        self._codec = codec
        self._prices = prices
        self._store = store
        self._shadow = shadow
        self._ttl = 3600.0 if ttl == "1h" else 300.0
        self._paid = paid
        self._wall = wall
        self._owner = token_hex(8)
        self._known: OrderedDict[str, Held] = OrderedDict()
        self._swept = 0.0
        self.ledger = ledger or Ledger()
        self.ledger.proof = PROOF

    def apply(self, call: Call) -> tuple[Call, Held | None, bool]:
        """Return the call as it is to be sent, what is known of its prefix, and whether a cache is used."""
        if call.source.unknown:
            return call, None, False
        static = _static(call.request)
        tokens = estimate(static)
        if tokens < self._prices.minimum:
            return call, None, False
        now = self._wall()
        held = self._sight(call, static, tokens, now)
        self._sweep(now)
        self.ledger.tick(now, storing(self._prices, tokens, self._ttl))
        self._note_on_paper(held, now)
        if not held.name or held.until - MARGIN <= now:
            self._consider(call, held, now)
            return call, held, False
        self._renew_if_it_pays(held, now)
        body = self._body(call)
        _, rest = without_static(body)
        rest["cachedContent"] = Raw(_encode(held.name))
        return replace(call, source=Source(self._codec.WIRE, _encode(rest))), held, True

    def lost(self, held: Held) -> None:
        """Note that the provider does not know a cache any more."""
        old = _pack(_Stored(held.name, held.until, held.tokens))
        held.name = ""
        self._shadow.run(self._store.delete(_key(held), old))

    def _beside(self, held: Held, work: Coroutine[Any, Any, None], reserved: float = 0.0) -> None:
        """Do work on a prefix beside the call, if there is room for it."""
        dropped = self._shadow.dropped
        held.busy = True
        self._shadow.run(work)
        if self._shadow.dropped > dropped:
            held.busy = False
            self.ledger.cancel(reserved)

    def ended(self, held: Held, usage: Usage, *, used: bool) -> None:
        """Note the bill of an answer."""
        cached = min(usage.cached, held.tokens)
        if used:
            gain = saving(self._prices, cached) * (1 - held.hits)
            self.ledger.settle(0.0, gain)
        else:
            held.hits = 0.8 * held.hits + 0.2 * (cached / held.tokens)

    def _sight(self, call: Call, static: ChatRequest, tokens: int, now: float) -> Held:
        whole = _encode((call.tenant, self._api.model, static.messages, static.tools, static.tool_choice))
        key = blake2b(whole, digest_size=16).hexdigest()
        held = self._known.get(key)
        if held is None:
            held = self._known[key] = Held(f"{call.tenant}:{key}", tokens, Arrivals(last=now))
            if len(self._known) > ENTRIES:
                self._known.popitem(last=False)
        else:
            held.arrivals.note(now, self._ttl)
        self._known.move_to_end(key)
        return held

    def _body(self, call: Call) -> dict[str, Raw]:
        same = call.source.wire == self._codec.WIRE
        return json_body.fields(
            call.source.body if same else self._codec.write_request(call, self._api.model)
        )

    def _consider(self, call: Call, held: Held, now: float) -> None:
        """Take over the cache of another instance, or make one if that is likely to pay, beside the call."""
        if held.busy or now < held.not_before or not held.arrivals.in_time:
            return
        cost = storing(self._prices, held.tokens, self._ttl)
        if self._pays(held) and self.ledger.grant(cost, sure=self._sure(held)):
            static, _ = without_static(self._body(call))
            self._beside(held, self._make(held, static, cost), cost)
        elif self._store.shared:
            held.not_before = now + LOOK_SECONDS
            self._beside(held, self._look(held))

    def _pays(self, held: Held) -> bool:
        expected = held.arrivals.rate() * self._ttl
        decision = decide(self._prices, held.tokens, expected, seconds=self._ttl, hits=held.hits, marks=False)
        return decision == "explicit"

    def _sure(self, held: Held) -> bool:
        return held.arrivals.sure(held.arrivals.chance(self._ttl))

    def _note_on_paper(self, held: Held, now: float) -> None:
        """Note what this call would have saved, and what a cache would cost where there would be none."""
        left = held.paper_until - now
        if left > 0:
            self.ledger.note(saving(self._prices, held.tokens) * (1 - held.hits))
        if left <= 0 and held.arrivals.in_time and self._pays(held):
            self.ledger.note(-storing(self._prices, held.tokens, self._ttl))
            held.paper_until = now + self._ttl
        elif 0 < left < self._ttl / 2 and self._renewal_pays(held):
            self.ledger.note(-held.tokens * self._prices.storage_share(self._ttl - left))
            held.paper_until = now + self._ttl

    def _renewal_pays(self, held: Held) -> bool:
        reads = held.arrivals.rate() * self._ttl * (1 - held.hits)
        return reads * saving(self._prices, 1) > self._prices.storage_share(self._ttl)

    async def _look(self, held: Held) -> None:
        try:
            await self._adopt(held)
        finally:
            held.busy = False

    async def _make(self, held: Held, static: dict[str, Raw], reserved: float) -> None:
        """Make a cache, unless another instance has, or is about to."""
        spent, lease = 0.0, f"{_key(held)}:lease"
        try:
            if await self._adopt(held):
                return
            if await self._store.lease(lease, self._owner, LEASE) is None:
                held.not_before = self._wall() + 1.0
                return
            if await self._adopt(held):  # it was made while the lease was asked for
                return
            began = self._wall()
            content = await self._api.create(static, self._ttl)
            held.name, held.until = content.name, began + self._ttl
            held.tokens = content.tokens or held.tokens
            spent = storing(self._prices, held.tokens, self._ttl)
            self._paid(spent)
            await self._share(held)
            await self._store.release(lease, self._owner)
        except UpstreamError:
            held.not_before = self._wall() + RETRY  # too short for it, not served there, or no quota left
        finally:
            held.busy = False
            self._settle(reserved, spent)

    def _settle(self, reserved: float, spent: float) -> None:
        if spent:
            self.ledger.settle(reserved, -spent)
        else:
            self.ledger.cancel(reserved)

    async def _adopt(self, held: Held) -> bool:
        found = await self._store.get(_key(held))
        with suppress(msgspec.DecodeError):
            if found is not None and (known := _stored.decode(found)).until - MARGIN > self._wall():
                held.name, held.until, held.tokens = known.name, known.until, known.tokens
                return True
        return False

    async def _share(self, held: Held) -> None:
        value = _pack(_Stored(held.name, held.until, held.tokens))
        await self._store.put(_key(held), value, max(held.until - self._wall(), 1.0))

    def _renew_if_it_pays(self, held: Held, now: float) -> None:
        """Renew a cache that ends soon: it is there already, so only its storage is to be paid for."""
        if held.busy or held.until - now > self._ttl / 2:
            return
        cost = held.tokens * self._prices.storage_share(self._ttl)
        if self._renewal_pays(held) and self.ledger.grant(cost, sure=self._sure(held)):
            self._beside(held, self._renew(held, cost), cost)

    async def _renew(self, held: Held, reserved: float) -> None:
        spent = 0.0
        try:
            began = self._wall()
            await self._api.renew(held.name, self._ttl)
            # What was left of its time was paid for already.
            spent = held.tokens * self._prices.storage_share(began + self._ttl - held.until)
            held.until = began + self._ttl
            self._paid(spent)
            await self._share(held)
        except UpstreamError:
            held.until = min(held.until, self._wall())
        finally:
            held.busy = False
            self._settle(reserved, spent)

    def _sweep(self, now: float) -> None:
        """Delete what nobody has used for half of its time, at most once in a while."""
        if now - self._swept < self._ttl / 4:
            return
        self._swept = now
        for held in self._known.values():
            idle = now - held.arrivals.last
            if held.name and not held.busy and held.until > now and idle > self._ttl / 2:
                self._beside(held, self._delete(held))

    async def _delete(self, held: Held) -> None:
        """Delete a cache, unless another instance has renewed it meanwhile."""
        try:
            old = _pack(_Stored(held.name, held.until, held.tokens))
            if await self._store.delete(_key(held), old):
                name, held.name = held.name, ""
                await self._api.delete(name)
        except UpstreamError:
            return  # it ends by itself
        finally:
            held.busy = False


def explicit_of(  # noqa: PLR0913 - what it works with
    name: str,
    provider: Provider,
    ttl: str,
    rules: Rules,
    *,
    client: HttpClient,
    store: Store,
    shadow: Shadow,
    savings: PrefixSavings,
    ledger: Callable[[str], Ledger],
) -> Explicit | None:
    """Return the explicit caches of a target, or None where its provider has none, or at no known price."""
    model = name.partition("/")[2]
    if not isinstance(provider, GeminiProvider | VertexProvider) or rules.wire != "gemini":
        return None
    if not rules.prices.storage or model == "*":
        return None
    vertex = isinstance(provider, VertexProvider)
    return Explicit(
        cached_contents(name.partition("/")[0], provider, model, client),
        codec_of("gemini.vertex" if vertex else "gemini"),
        rules.prices,
        store=store,
        shadow=shadow,
        ttl=ttl,
        paid=lambda tokens: savings.pay(name, tokens * rules.price / 1_000_000),
        ledger=ledger(f"{name}:explicit"),
    )


def _static(request: ChatRequest) -> ChatRequest:
    """Return what of a request a cache can hold: instructions and tools."""
    system = [turn for turn in request.messages if turn.role in ("system", "developer")]
    return ChatRequest("", tuple(system), tools=request.tools, tool_choice=request.tool_choice)


def _key(held: Held) -> str:
    return f"prefix:{held.key}"
