"""Markers for the calls to one model whose provider caches only what it is told to."""

from __future__ import annotations

import asyncio
from typing import cast

from msgspec.structs import replace

from firsttoken.cache.break_even import Ledger
from firsttoken.cache.prefix_body import with_markers
from firsttoken.cache.prefix_marks import has_markers, look_at, marked
from firsttoken.cache.prefix_planner import Plan, Planner
from firsttoken.cache.prefix_rules import Rules
from firsttoken.chat import Ttl
from firsttoken.model import Call, Usage


class Marker:
    """Sets markers where they pay. Memory: that of a `Planner`. Time: that of hashing the prompt."""

    def __init__(self, rules: Rules, ttl: str, ledger: Ledger) -> None:
        self.planner = Planner(rules.prices, ttl, ledger)
        self._rules = rules

    def mark(self, call: Call) -> tuple[Call, Plan]:
        """Return the call as it is sent, and what was decided for it; the call itself where nothing was."""
        source = call.source
        if source.unknown or has_markers(call.request):
            return call, Plan()
        prompt = look_at(call.request, f"{call.tenant}\n{call.request.model}", tools=self._rules.tools)
        planner, now = self.planner, asyncio.get_running_loop().time()
        whole = planner.sight(prompt.key, now, prompt.before)
        prefixes = [
            (planner.sight(mark.key, now) if mark.key else whole, mark.tokens) for mark in prompt.marks
        ]
        plan = planner.plan(prefixes, now)
        chosen = [prompt.marks[position] for position in plan.marks]
        if not chosen:
            return call, plan
        ttl = cast("Ttl", planner.ttl)
        if source.wire == self._rules.wire:
            body = with_markers(source.wire, source.body, chosen, ttl)
            if body is None:
                planner.failed(plan)
                return call, Plan()
            source = replace(source, body=body)
        return replace(call, request=marked(call.request, chosen, ttl), source=source), plan

    def began(self, plan: Plan) -> None:
        """Note that an answer has begun."""
        self.planner.began(plan)

    def ended(self, plan: Plan, usage: Usage | None) -> None:
        """Note the bill of an answer; None where it is not known."""
        self.planner.ended(plan, usage)

    def failed(self, plan: Plan, *, billed: bool) -> None:
        """Note that there was no answer; ``billed`` where it may have to be paid for nevertheless."""
        self.planner.failed(plan, billed=billed)
