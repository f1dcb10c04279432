"""An answer that breaks off is gone on with by another target; the client gets one answer.

This is the outermost of the policies that choose a target: whatever failed, it opens the model inside once
more, with what was said so far. There are three ways, by what that is:

- nothing visible yet: the same request again, without its thoughts;
- plain text: its continuation (see `continuation`);
- tool calls or structured output: the same request again, where it gives the same answer; that is compared
  with what was said, and passed on from there.

What cannot be gone on with ends with the error that broke it. An answer whose reason to finish came is whole:
what breaks behind it (token counts, end marks) harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

from msgspec import Struct, field
from msgspec.structs import replace

from firsttoken.chat import ChatRequest
from firsttoken.errors import FirstTokenError, UpstreamRefusedError
from firsttoken.model import Call, Chunk, Model, Source, Usage
from firsttoken.policies.continuation import ask_for
from firsttoken.policies.opened import Opened, Policy, open_model
from firsttoken.policies.said import Said
from firsttoken.policies.seam import NOTHING, MismatchError, Overlap, Replay, Seam, Withheld, says
from firsttoken.settings import Resume as Limits

WAIT = 0.1
"""Seconds before a target that has just broken is asked again: half to one and a half times that."""


class _Progress(Struct):
    """One call on its way: what was said, and how often it may still be gone on with."""

    call: Call
    said: Said
    left: int
    broken: set[str] = field(default_factory=set)
    """The targets that broke it."""
    prefill: bool = False
    """Whether whoever may answer takes the beginning of the answer; otherwise it is asked."""
    prefilled: bool = False
    """Whether the last of them was given it."""


class Resume(Policy):
    """A model whose streamed answers survive their target.

    ``methods`` says of each target of the route how it goes on with an answer; ``exact`` names those that
    give the same answer to the same request, whatever it asks for. Memory of a call: that of `Said`.
    """

    def __init__(
        self, model: Model, limits: Limits, methods: Mapping[str, str], exact: Collection[str] = ()
    ) -> None:
        self._model = model
        self._limits = limits
        self._usable = {name: method for name, method in methods.items() if method != "no"}
        self._unusable = frozenset(methods) - frozenset(self._usable)
        self._prefill = all(method == "prefill" for method in self._usable.values())
        self._exact = bool(self._usable) and all(name in exact for name in self._usable)

    async def open(self, call: Call) -> Opened:
        """Open the answer; what is left to read of it goes on where it breaks."""
        opened = await open_model(self._model, call)
        rest = self._answer(call, opened)
        await anext(rest)  # from here on closing it closes what it reads
        return Opened(list(opened.head), rest)

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``; see `Model`."""
        return self._answer(call)

    async def _answer(self, call: Call, opened: Opened | None = None) -> AsyncGenerator[Chunk]:
        """Stream an answer. Of one that was opened already: nothing first, then what follows its head."""
        said = Said(self._limits.max_chars)
        skip = 0
        if opened is None:
            opened = await open_model(self._model, call)
        else:
            skip = len(opened.head)
            try:
                yield NOTHING
            except BaseException:
                await opened.aclose()
                raise
        try:
            async with aclosing(opened.chunks()) as chunks:
                async for chunk in chunks:
                    said.note(chunk)
                    if skip:
                        skip -= 1
                    else:
                        yield chunk
        except FirstTokenError as error:
            broken = error
        else:
            return
        progress = _Progress(call, said, self._limits.attempts, prefill=self._prefill)
        async with aclosing(self._second_half(progress, broken)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _second_half(self, progress: _Progress, broken: FirstTokenError) -> AsyncGenerator[Chunk]:
        """Stream the rest of an answer that broke, however often it breaks again."""
        call, said = progress.call, progress.said
        while not said.finished:
            opened, seam = await self._go_on(progress, broken)
            try:
                async with aclosing(opened.chunks()) as chunks:
                    async for chunk in chunks:
                        if says(new := seam.take(chunk)):
                            yield _behind(said, new, call)
                if says(new := seam.rest()):
                    yield _behind(said, new, call)
            except FirstTokenError as error:
                broken = error
            except MismatchError:
                raise broken from None
            else:
                return

    async def _go_on(self, progress: _Progress, broken: FirstTokenError) -> tuple[Opened, Seam]:
        """Open the second half. Raises ``broken`` where there is none to be had."""
        call, said = progress.call, progress.said
        progress.broken.add(call.record.target)
        avoided = self._avoided(progress)
        if not (broken.failover and call.request.stream and self._usable) or said.over:
            raise broken
        if _is_cut_short(said, call.request):
            return Opened([_end_of(said)], _nothing()), Seam(said)
        cause: FirstTokenError | None = None
        while progress.left:
            progress.left -= 1
            if not avoided:
                await _wait(call, broken)
            asked, seam = self._ask_for(progress, broken)
            try:
                opened = await open_model(
                    self._model, replace(asked, kind="resume", tried={*self._unusable, *avoided})
                )
            except FirstTokenError as error:
                cause = error
                if isinstance(error, UpstreamRefusedError) and progress.prefilled:
                    progress.left += 1  # that was none: from now on targets are asked
                    progress.prefill = progress.prefilled = False
                elif error.failover:
                    avoided = set()
                else:
                    break
            else:
                if call.record.target in self._unusable:
                    await opened.aclose()
                    break
                call.record.resumed += 1
                return opened, seam
        raise broken from cause

    def _avoided(self, progress: _Progress) -> set[str]:
        """Return the targets to leave out: all that broke, at least the last of them, if others are left."""
        for broken in (progress.broken, {progress.call.record.target}):
            if self._usable.keys() - broken:
                return broken
        return set()

    def _ask_for(self, progress: _Progress, broken: FirstTokenError) -> tuple[Call, Seam]:
        """Return what to ask and how its answer joins.

        Raises ``broken`` where the answer cannot be gone on with.
        """
        call, said = progress.call, progress.said
        progress.prefilled = False
        if _is_more_than_text(said, call.request):
            if said.refusal or not self._gives_the_same(call.request):
                raise broken
            return call, Replay(said)
        text = said.text()
        if not text.strip():
            return call, Withheld(said, text)
        if call.source.unknown:
            raise broken  # not the client's bytes any more, and the same in other words cannot be said
        progress.prefilled = progress.prefill
        asked = ask_for(call.request, said, "prefill" if progress.prefill else "ask")
        seam = (
            Withheld(said, asked.withheld, asked.longer) if progress.prefill else Overlap(said, asked.longer)
        )
        return replace(call, request=asked.request, source=Source("", b"")), seam

    def _gives_the_same(self, request: ChatRequest) -> bool:
        return request.temperature == 0 or request.seed is not None or self._exact


def _behind(said: Said, new: Chunk, call: Call) -> Chunk:
    """Return a chunk of a second half as the client gets it, and note that it does."""
    if said.passed and said.passed == call.source.wire:
        new = replace(new, follows=said.joined())
    said.passed = ""
    said.note(new)
    return new


def _is_more_than_text(said: Said, request: ChatRequest) -> bool:
    return bool(said.tools or said.refusal) or request.output is not None


def _is_cut_short(said: Said, request: ChatRequest) -> bool:
    """Return whether the limit of tokens is reached, so that there is nothing left to ask for."""
    limit = request.max_tokens
    return limit is not None and not _is_more_than_text(said, request) and said.tokens() >= limit


def _end_of(said: Said) -> Chunk:
    return Chunk(finish="length", usage=Usage() if said.first_usage else None)


async def _nothing() -> AsyncGenerator[Chunk]:
    return
    yield


async def _wait(call: Call, broken: FirstTokenError) -> None:
    """Wait a moment. Raises ``broken`` where the call has no time for that."""
    from random import uniform  # not needed before something breaks, and slow to import

    seconds = WAIT * uniform(0.5, 1.5)  # noqa: S311
    if asyncio.get_running_loop().time() + seconds >= call.deadline:
        raise broken
    await asyncio.sleep(seconds)
