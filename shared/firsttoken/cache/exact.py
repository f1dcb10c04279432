"""Equal requests get the answer that was given before (docs/caching.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random

from msgspec.structs import replace

from firsttoken.cache import policy
from firsttoken.cache.answers import Answers, keeps_raw
from firsttoken.cache.entry import Collector, Entry
from firsttoken.cache.lease import MAX_WAIT, Turn
from firsttoken.errors import FirstTokenError, StoreError
from firsttoken.model import Call, Chunk, Model
from firsttoken.telemetry.record import Attempt, Record

_LOOK_AGAIN = 1.0
"""Seconds between two looks whether another instance has renewed an answer."""


class Cached:
    """A model whose answers are given again.

    Younger than ``ttl`` an answer is given as it is; older, it is given while one instance renews it beside
    the call; from ``max_age`` on it is gone. One instance at a time makes the answer to a new request, and
    writes it to the store after its last chunk. Memory of a call: ``settings.max_entry_bytes``.
    """

    def __init__(self, model: Model, answers: Answers, *, rng: Random) -> None:
        self._model = model
        self._answers = answers
        self._rng = rng

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``; see `Model`."""
        key = self._answers.key_to_keep(call)
        return self._model.stream(call) if key is None else self._answer(call, key)

    async def _answer(self, call: Call, key: str) -> AsyncGenerator[Chunk]:
        making = _Making(self._answers, call, key)
        try:
            entry = None if policy.wish_of(call.headers) == "no-cache" else await self._find(making)
            if entry is not None:
                async with aclosing(self._give(call, entry)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            await making.begin()
            async with aclosing(self._model.stream(call)) as chunks:
                async for chunk in chunks:
                    making.kept.note(chunk)
                    yield chunk
            making.whole = True
        except FirstTokenError as error:
            making.error = error
            raise
        finally:
            making.end()

    async def _find(self, making: _Making) -> Entry | None:
        """Return an entry that answers the call, waiting for one that another instance makes."""
        entry = await making.find()
        if entry is None and (turn := making.open_turn()) is not None:
            now = asyncio.get_running_loop().time()
            seconds = min((making.call.deadline - now) / 3, MAX_WAIT)
            entry = await turn.wait(making.find, seconds, self._rng)
        return None if entry is None or entry.holds_nothing else entry

    async def _give(self, call: Call, entry: Entry) -> AsyncGenerator[Chunk]:
        """Give an entry, and have it renewed where it is time. Raises UpstreamRefusedError for a refusal."""
        tiers, record = self._answers.tiers, call.record
        if entry.refusal is not None:
            record.cache = "refused"
            raise entry.refusal.error()
        record.cache = "hit"
        if tiers.age(entry) >= tiers.settings.ttl:
            record.cache = "stale"
            if tiers.may_renew(entry.key):
                tiers.shadow.run(self._renew(call, entry.key))
        async with aclosing(self._answers.replay(entry, call)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _renew(self, asked: Call, key: str) -> None:
        """Make an answer anew, unless another instance does or has.

        Where that fails the old one stays, and nobody tries again before the lease is over.
        """
        call = replace(asked, record=Record(cache="miss"), attempt=Attempt(), tried=set(), kind="first")
        making = _Making(self._answers, call, key)
        turn = making.open_turn()
        try:
            if turn is not None and not await self._takes(turn, key):
                return
            await making.begin()
            async with asyncio.timeout_at(call.deadline), aclosing(self._model.stream(call)) as chunks:
                async for chunk in chunks:
                    making.kept.note(chunk)
            making.whole = True
        except (FirstTokenError, TimeoutError):
            return
        finally:
            if turn is not None:
                turn.stop()
        entry = making.entry()
        if entry is not None:
            self._answers.tiers.remember(entry)
            self._answers.tiers.rest(key, 0.0)
            await making.write(entry)

    async def _takes(self, turn: Turn, key: str) -> bool:
        """Return whether it is ours to renew an answer; without a store it is."""
        tiers = self._answers.tiers
        try:
            if not await turn.take():
                tiers.rest(key, _LOOK_AGAIN)
                return False
        except StoreError:
            return True
        entry = await tiers.load_shared(key)
        if entry is None or tiers.age(entry) >= tiers.settings.ttl:
            return True
        tiers.rest(key, 0.0)  # another instance has renewed it
        await turn.free()
        return False


class _Making:
    """An answer on its way into the cache."""

    def __init__(self, answers: Answers, call: Call, key: str) -> None:
        self.call = call
        self.kept = Collector(answers.tiers.settings.max_entry_bytes, raw=keeps_raw(call))
        self.whole = False
        self.error: FirstTokenError | None = None
        self.turn: Turn | None = None
        self._answers = answers
        self._tiers = answers.tiers
        self._key = key
        self._created = 0.0
        self._stamps: dict[str, str] = {}

    async def find(self) -> Entry | None:
        """Return what is kept for the call: an answer for this client, a refusal, or a note of neither."""
        entry = await self._tiers.load(self._key, self.call.record)
        if entry is None or entry.holds_nothing or self._answers.serves(entry, self.call):
            return entry
        return None

    def open_turn(self) -> Turn | None:
        """Return a turn to make the answer; None where no other instance could make it."""
        self.turn = self._tiers.turn(self._key)
        return self.turn

    async def begin(self) -> None:
        """Note when the call was made, and what was purged before."""
        self.call.record.cache = "miss"
        self._created = self._tiers.wall()
        self._stamps = await self._tiers.purges.marks(self._answers.labels(self.call))

    def end(self) -> None:
        """Keep what came of it, beside the call."""
        entry = self.entry() if self._created else None
        held = self.turn is not None and self.turn.held
        if entry is not None:
            self._tiers.remember(entry)
        elif held and self._created and (self.whole or self.error is not None):
            entry = Entry(self._key, self._tiers.wall(), self._stamps)  # so that nobody waits for it
        if held or (entry is not None and self._tiers.shared):
            self._tiers.shadow.run(self.write(entry))

    def entry(self) -> Entry | None:
        """Return what is to be kept: an answer, or a refusal; None where it is neither."""
        call, kept = self.call, self.kept
        if self.whole and policy.may_keep(kept, call.request, call.record):
            return Entry(self._key, self._created, self._stamps, call.record.target, kept.chunks())
        if self.error is None or not self._tiers.settings.negative_ttl:
            return None
        refusal = policy.refusal_of(self.error, call.record)
        if refusal is None:
            return None
        return Entry(self._key, self._created, self._stamps, call.record.target, refusal=refusal)

    async def write(self, entry: Entry | None) -> None:
        """Write it to the store, then let another instance have the turn. Raises StoreError."""
        turn = self.turn
        try:
            if entry is not None:
                await self._tiers.keep(entry)
        finally:
            if turn is not None:
                await turn.free()
