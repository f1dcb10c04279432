"""Answers to similar questions: what was said to one that asks for the same thing is said again.

A question is compared to others of its scope only (`firsttoken.cache.scope`), each candidate has to pass the
guard, and what is replayed is the answer that the exact cache holds. In the mode ``shadow`` nothing is
served: the record says what would have been, and a judge looks at some of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from hashlib import sha256
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.entry import Entry
from firsttoken.cache.index import Near
from firsttoken.cache.judge import Hit, Judge, category_of
from firsttoken.cache.quarantine import Quarantine
from firsttoken.cache.scope import Place, question_of, scope_of
from firsttoken.cache.similar_lookup import Asked, Finding, Lookup
from firsttoken.errors import StoreError
from firsttoken.model import Call, Chunk, Model
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Semantic
from firsttoken.stores.store import Store

YOUNG_SECONDS = 60.0
"""So long a question without an answer stays in the index: the answer may be on its way to the store."""
LABEL_SECONDS = 86_400.0
"""How long a hit can be labelled by hand."""


class Answers(Protocol):
    """The exact cache of a route, as this one needs it (`firsttoken.cache.answers`)."""

    def key(self, call: Call) -> str | None:
        """Return the key of the answer to ``call``; None where no other call's answer may be given for it."""

    async def load(self, key: str) -> Entry | None:
        """Return the answer of a key; None where there is none, or it is too old or damaged."""

    def serves(self, entry: Entry, call: Call) -> bool:
        """Return whether an answer has all that the client of ``call`` gets."""

    def replay(self, entry: Entry, call: Call) -> AsyncGenerator[Chunk]:
        """Stream an answer again, in the client's format."""


class Shared(Struct, frozen=True):
    """What the routes of a gateway have in common here."""

    settings: Semantic
    lookup: Lookup
    quarantine: Quarantine
    store: Store
    shadow: Shadow
    space: str = ""
    """The embedding model and its dimensions."""
    fresh: float = 3600.0
    """Seconds: an answer that is older is renewed by its own question only, and answers no other."""
    judge: Judge | None = None
    """Without one the mode ``on`` serves whatever is near enough and passes the guard."""
    now: Callable[[], float] = time.time


class Similar(Policy):
    """A model whose answers are given again to similar questions.

    Nothing that fails here (embedder, index, store) fails a call: it is a miss. Time in the way of a call: a
    look-up (`Lookup`), 0.3 ms with the embedder and the index of this process. Memory: the index's.
    """

    def __init__(self, model: Model, answers: Answers, shared: Shared, place: Place) -> None:
        self._model = model
        self._answers = answers
        self._shared = shared
        self._place = replace(place, embedder=shared.space)

    async def open(self, call: Call) -> Opened:
        """Open the answer to a similar question, or the model's own."""
        asked = self._asked(call)
        if asked is None:
            return await open_model(self._model, call)
        if self._shared.settings.mode == "on":
            finding = await self._shared.lookup.find(asked, partial(self._accept, call, asked))
            if finding.near is not None and finding.answer is not None:
                hit = self._hit(asked, finding.near)
                if self._serves(hit):
                    return await self._serve(call, finding.answer, finding, hit)
            _note(call, finding, served=False)
        else:
            self._shared.shadow.run(self._observe(call, asked))
        opened = await open_model(self._model, call)
        opened.ends.append(partial(self._ended, asked))
        return opened

    async def label(self, tenant: str, call_id: str, *, good: bool) -> bool:
        """Say whether the answer to a call was right; False where no hit of this tenant has that id.

        One bad label ends what an answer is used for beyond its own question. Raises StoreError.
        """
        shared = self._shared
        found = await shared.store.get(_label_name(tenant, call_id))
        if found is None:
            return False
        try:
            hit = msgspec.msgpack.decode(found, type=Hit)
        except msgspec.DecodeError:
            return False
        if shared.judge is not None:
            await shared.judge.label(hit, good=good)
        elif not good:
            await shared.quarantine.put(hit.tenant, hit.scope, hit.key)
        return True

    def _asked(self, call: Call) -> Asked | None:
        """Return the question of a call, or None where it has none, or its answer is not to be kept."""
        text = question_of(call)
        if text is None:
            return None
        key = self._answers.key(call)
        scope = scope_of(call, self._place) if key is not None else None
        return None if key is None or scope is None else Asked(scope, key, text, call.tenant)

    def _serves(self, hit: Hit) -> bool:
        judge = self._shared.judge
        if judge is None:
            return True
        judge.consider(hit)
        return judge.trusts(hit)

    async def _serve(self, call: Call, answer: Entry, finding: Finding[Entry], hit: Hit) -> Opened:
        call.record.cache = "similar"
        _note(call, finding, served=True)
        self._shared.shadow.run(self._remember(call, hit))
        return await open_model(_Replay(partial(self._answers.replay, answer)), call)

    async def _observe(self, call: Call, asked: Asked) -> None:
        """Look a question up beside its call, and only say what was found."""
        accept = partial(self._accept, call, asked)
        finding: Finding[Entry] = await self._shared.lookup.find(asked, accept, beside=True)
        _note(call, finding, served=False)
        if finding.near is not None and finding.answer is not None:
            hit = self._hit(asked, finding.near)
            if self._shared.judge is not None:
                self._shared.judge.consider(hit)

    async def _accept(self, call: Call, asked: Asked, near: Near) -> Entry | None:
        """Return the answer to a near question, unless it is gone, in quarantine, or lacks something."""
        shared = self._shared
        if shared.quarantine.holds_here(asked.tenant, asked.scope, near.key):
            return None
        try:
            answer = await self._answers.load(near.key)
            held = answer is not None and await shared.quarantine.holds(asked.tenant, asked.scope, near.key)
        except StoreError:
            return None
        if held or (answer is None and shared.now() - near.asked > YOUNG_SECONDS):
            shared.shadow.run(shared.lookup.remove(asked, near))
        if answer is None or held or shared.now() - answer.created >= shared.fresh:
            return None
        return answer if self._answers.serves(answer, call) else None

    def _ended(self, asked: Asked, ending: Ending) -> None:
        """Add a question once its answer is whole."""
        if ending.error is None and not ending.left:
            self._shared.shadow.run(self._shared.lookup.add(asked, self._shared.now()))

    async def _remember(self, call: Call, hit: Hit) -> None:
        """Keep what a label by hand will be about: no words, only which answer it was."""
        data = msgspec.msgpack.encode(replace(hit, asked="", found=""))
        await self._shared.store.put(_label_name(call.tenant, call.id), data, LABEL_SECONDS)

    def _hit(self, asked: Asked, near: Near) -> Hit:
        return Hit(
            tenant=asked.tenant,
            route=self._place.route,
            scope=asked.scope,
            key=near.key,
            category=category_of(asked.text),
            asked=asked.text,
            found=near.text,
        )


class _Replay:
    """An answer of the cache as a model."""

    def __init__(self, replay: Callable[[Call], AsyncGenerator[Chunk]]) -> None:
        self._replay = replay

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        return self._replay(call)


def _note(call: Call, finding: Finding[Entry], *, served: bool) -> None:
    """Say in the record what was found, without its words."""
    would = finding.answer is not None and not served
    if finding.near is not None:
        call.record.notes["similar"] = f"{finding.near.score:.3f}"
    call.record.notes["similar_reason"] = f"shadow: {finding.reason}" if would else finding.reason


def _label_name(tenant: str, call_id: str) -> str:
    return f"similar-hit:{sha256(msgspec.msgpack.encode((tenant, call_id))).hexdigest()[:40]}"
