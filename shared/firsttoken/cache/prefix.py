"""The providers' own prompt caches: told what to keep where they want to be told, and what that saved.

`Prefixed` stands directly around a target's provider. What the client says itself is never touched; where it
says nothing, markers are set if they pay (`Planner`), or a cache key where that is all a provider takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.break_even import Ledger
from firsttoken.cache.prefix_rules import Rules
from firsttoken.errors import FirstTokenError, UpstreamAuthError, UpstreamRefusedError
from firsttoken.model import Call, Model, Usage
from firsttoken.policies.balance import conversation_of
from firsttoken.policies.estimate import estimate
from firsttoken.policies.failover import CONTEXT_OVERFLOW
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.settings import Prefix as Settings

if TYPE_CHECKING:
    from firsttoken.cache.explicit import Explicit
    from firsttoken.cache.prefix_marker import Marker
    from firsttoken.cache.prefix_planner import Plan

ANY = "*"
MODELS = 64
"""Of a target that passes the client's names on: beyond it, what is learned of a model is forgotten."""


class Saved(Struct):
    """What the prompt cache of one target did. Tokens; ``money`` in the currency of the target's price."""

    calls: int = 0
    input: int = 0
    cached: int = 0
    written: int = 0
    money: float = 0.0


class PrefixSavings:
    """Totals of one process. Memory: one row a target."""

    def __init__(self) -> None:
        self._targets: dict[str, Saved] = {}

    def add(self, target: str, usage: Usage, money: float) -> None:
        """Count an answer."""
        row = self._targets.setdefault(target, Saved())
        row.calls += 1
        row.input += usage.input
        row.cached += usage.cached
        row.written += usage.cache_write
        row.money += money

    def pay(self, target: str, money: float) -> None:
        """Count what keeping an explicit cache costs."""
        self._targets.setdefault(target, Saved()).money -= money

    def view(self) -> dict[str, dict[str, Any]]:
        """Return the totals by target, JSON-ready; ``cached_share`` is of all tokens of prompts."""
        return {
            name: {
                "calls": row.calls,
                "input_tokens": row.input,
                "cached_tokens": row.cached,
                "written_tokens": row.written,
                "cached_share": round(row.cached / row.input, 4) if row.input else 0.0,
                "saved": round(row.money, 6),
            }
            for name, row in sorted(self._targets.items())
        }


class _Known:
    """What is known of a model: its rules, and what sets its markers where it takes any."""

    __slots__ = ("marker", "rules")

    def __init__(self, rules: Rules, settings: Settings, ledger: Ledger) -> None:
        self.rules = rules
        self.marker: Marker | None = None
        if rules.marks and settings.markers:
            from firsttoken.cache.prefix_marker import Marker

            self.marker = Marker(rules, settings.ttl, ledger)


class Prefixed(Policy):
    """A target's provider, with its prompt cache in use.

    ``rules`` tells what holds for a model (see `rules_of`), ``held`` is told which conversations this target
    has in its cache, ``ledger`` finds what pays for its writes. Memory and time: those of one `Marker` for
    each model whose provider takes markers.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        model: Model,
        settings: Settings,
        rules: Callable[[str], Rules],
        *,
        name: str,
        savings: PrefixSavings,
        held: Callable[[Call, str, str], None] | None = None,
        explicit: Explicit | None = None,
        ledger: Callable[[str], Ledger] = lambda _name: Ledger(),
    ) -> None:
        self._model = model
        self._settings = settings
        self._rules = rules
        self._name = name
        self._savings = savings
        self._held = held
        self._explicit = explicit
        self._ledger = ledger
        self._models: dict[str, _Known] = {}
        if (own := name.partition("/")[2]) != ANY:
            self._models[own] = _Known(rules(own), settings, ledger(name))

    async def open(self, call: Call) -> Opened:
        """Open the provider's answer."""
        known = self._known(call)
        marker, plan = known.marker, None
        sent = self._prepared(call, known.rules)
        if marker:
            sent, plan = marker.mark(sent)
        try:
            opened = await (self._open_cached(sent) if self._explicit else open_model(self._model, sent))
        except BaseException as error:
            if marker and plan:
                marker.failed(plan, billed=not isinstance(error, FirstTokenError))
            raise
        if marker and plan:
            marker.began(plan)
        opened.ends.append(lambda ending: self._ended(call, sent, known, plan, ending))
        return opened

    async def _open_cached(self, call: Call) -> Opened:
        """Open the answer with an explicit cache, or in full where there is none, or none any more."""
        explicit = cast("Explicit", self._explicit)
        sent, held, used = explicit.apply(call)
        try:
            opened = await open_model(self._model, sent)
        except (UpstreamRefusedError, UpstreamAuthError) as error:
            if held is None or not used or error.code == CONTEXT_OVERFLOW:
                raise
            opened = await open_model(self._model, call)
            explicit.lost(held)
            used = False
        if held is not None:
            known = held

            def ended(ending: Ending) -> None:
                if ending.usage is not None:
                    explicit.ended(known, ending.usage, used=used)

            opened.ends.append(ended)
        return opened

    def _known(self, call: Call) -> _Known:
        model = self._name.partition("/")[2]
        model = call.request.model if model == ANY else model
        known = self._models.get(model)
        if known is None:
            kept = len(self._models) < MODELS
            ledger = self._ledger(f"{self._name}:{model}") if kept else Ledger()
            known = _Known(self._rules(model), self._settings, ledger)
            if kept:
                self._models[model] = known
        return known

    def _prepared(self, call: Call, rules: Rules) -> Call:
        if self._settings.reorder and rules.wire and call.source.wire != rules.wire:
            call = _in_order(call)
        return _keyed(call, rules) if rules.key else call

    def _ended(self, call: Call, sent: Call, known: _Known, plan: Plan | None, ending: Ending) -> None:
        if known.marker and plan:
            known.marker.ended(plan, ending.usage)
        if (usage := ending.usage) is None:
            return
        rules, ttl = known.rules, "5m"
        if usage.cache_write or usage.cached:
            from firsttoken.cache.prefix_marks import ttl_of

            ttl = ttl_of(sent.request)
        money = rules.saved(usage.cached, usage.cache_write, ttl)
        self._savings.add(self._name, usage, money)
        if money:
            notes = call.record.notes
            notes["saved"] = f"{float(notes.get('saved', 0)) + money:.6f}"
        automatic = not rules.marks and usage.input >= rules.prices.minimum
        if self._held and (usage.cached or usage.cache_write or automatic):
            self._held(call, self._name, ttl)


def _in_order(call: Call) -> Call:
    """Return the call with its tools sorted by name, where each has a name of its own."""
    tools = call.request.tools
    ordered = tuple(sorted(tools, key=lambda tool: tool.name))
    if ordered == tools or len({tool.name for tool in tools}) < len(tools):
        return call
    return replace(call, request=replace(call.request, tools=ordered))


def _keyed(call: Call, rules: Rules) -> Call:
    """Return the call with its conversation as the cache key, from the second turn on.

    A first turn has in common with others only what all of them begin with: without a key they meet there.
    """
    request, source = call.request, call.source
    turned = any(message.role == "assistant" for message in request.messages)
    if request.cache_key or not turned or estimate(request) < rules.prices.minimum:
        return call
    conversation = conversation_of(call)
    if conversation is None:
        return call
    key = conversation.hex()
    if source.wire == rules.wire:
        from firsttoken.cache.prefix_body import with_cache_key

        body = with_cache_key(source.body, key)
        if body is None:
            return call
        source = replace(source, body=body)
    return replace(call, request=replace(request, cache_key=key), source=source)


__all__ = ["PrefixSavings", "Prefixed", "Saved"]
