"""A conversation goes on where its prompt is cached, whatever the balance would say."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from firsttoken.model import Call
from firsttoken.policies.balance import Balance, conversation_of
from firsttoken.policies.target import Target

ENTRIES = 10_000
_KEPT = {"5m": 300.0, "1h": 3600.0}


class Holders:
    """Which target holds the prompt of which conversation, in this process.

    Memory: `ENTRIES` conversations of about 200 bytes; those that were used least recently go. The tenant is
    part of a conversation.
    """

    def __init__(self) -> None:
        self._targets: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def note(self, call: Call, target: str, ttl: str) -> None:
        """Note that ``target`` has cached the prompt of ``call`` for ``ttl`` (``5m`` or ``1h``)."""
        conversation = conversation_of(call)
        if conversation is None:
            return
        until = asyncio.get_running_loop().time() + _KEPT.get(ttl, _KEPT["5m"])
        self._targets[conversation] = (target, until)
        self._targets.move_to_end(conversation)
        if len(self._targets) > ENTRIES:
            self._targets.popitem(last=False)

    def of(self, call: Call) -> str:
        """Return the target that holds the prompt of ``call``; empty where none does any more."""
        conversation = conversation_of(call) if self._targets else None
        if conversation is None or conversation not in self._targets:
            return ""
        target, until = self._targets[conversation]
        if asyncio.get_running_loop().time() < until:
            return target
        del self._targets[conversation]
        return ""


class Sticky:
    """A balance that puts the holder of the conversation first, unless ``is_open`` says it is broken."""

    def __init__(self, balance: Balance, holders: Holders, is_open: Callable[[str], bool]) -> None:
        self._balance = balance
        self._holders = holders
        self._is_open = is_open

    def order(self, call: Call, targets: Sequence[Target]) -> Sequence[Target]:
        """Return the targets: the holder, then the others as the balance has them."""
        ordered = self._balance.order(call, targets)
        name = self._holders.of(call)
        holder = next((target for target in ordered if target.name == name), None) if name else None
        if holder is None or self._is_open(name):
            return ordered
        return [holder, *(target for target in ordered if target is not holder)]
