"""The simulated model: the embedded default, and what tests and benchmarks run against; never a real answer.

Deterministic for a seed; every token has its own due time on an absolute schedule, so that slowness of the
consumer does not add up. With ``faults`` allowed, a request header chooses what goes wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator

from firsttoken.chat import Opaque
from firsttoken.errors import (
    UnsupportedFieldError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.settings import SimulatedProvider
from firsttoken.simulator import text
from firsttoken.simulator.profile import HEADER, Profile
from firsttoken.wire import json_body

MODEL = "simulated"
SIGNATURE = "c2ltdWxhdGVk"
"""Stands under simulated reasoning, as providers sign theirs (base64)."""
_CACHE_STEP, _CACHE_MINIMUM, _CACHE_ENTRIES = 128, 1024, 1024


class WireFaultError(UpstreamError):
    """A fault below HTTP that only the simulator's own server can show (see `runtimes.simulator`)."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"The simulated target's connection was broken ({kind}).")
        self.kind = kind


class Simulated:
    """A model that repeats the prompt and adds seeded words.

    Memory: `_CACHE_ENTRIES` prefix hashes. Time: constant per token.
    """

    def __init__(self, settings: SimulatedProvider, *, wire_faults: bool = False) -> None:
        self._profile = Profile(
            seed=settings.seed,
            ttft_ms=settings.ttft_ms,
            itl_ms=settings.itl_ms,
            jitter=settings.jitter,
            tokens=settings.tokens,
            context_window=settings.context_window,
        ).changed(settings.profile)
        self._faults = settings.faults
        self._wire_faults = wire_faults
        self._prefixes: OrderedDict[int, None] = OrderedDict()

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer; see `firsttoken.simulator.profile` for what a profile can ask for."""
        profile = self._profile
        if self._faults and (spec := call.headers.get(HEADER)):
            profile = profile.changed(spec)
        _refuse_what_is_not_simulated(call)
        spoken, last = self._plan(call, profile)
        start = asyncio.get_running_loop().time()
        await _before_first_token(profile)
        rng = random.Random(profile.seed)  # noqa: S311 - jitter, not secrets
        due = start + profile.ttft_ms / 1000
        for position, chunk in enumerate(spoken):
            await _until(due)
            if profile.fault and position == profile.after:
                await self._fail(profile)
            yield chunk
            due += profile.itl_ms / 1000 * (1 + profile.jitter * rng.uniform(-1, 1))
            if position % 16 == 15:
                await asyncio.sleep(0)  # without delays a long answer would keep the loop to itself
        yield last

    def _plan(self, call: Call, profile: Profile) -> tuple[list[Chunk], Chunk]:
        """Return the chunks of the answer, one a token, and the one that ends it."""
        request = call.request
        counts = [text.count(message) for message in request.messages]
        used, room = sum(counts), profile.context_window
        if used >= room or used + (request.max_tokens or 1) > room:
            message = (
                f"This model's maximum context length is {room} tokens. However, you asked for {used} tokens"
                f" in the messages and {request.max_tokens or 1} in the completion."
            )
            raise UpstreamRefusedError(message, param="messages", code="context_length_exceeded")
        thought = [Chunk(reasoning=word, model=MODEL) for word in text.thoughts(request)]
        finish: Finish = "stop"
        stopped = ""
        if called := text.tool_calls(request):
            spoken = [fragment for tool in called for fragment in _fragments(tool)]
            finish = "tool_calls"
        else:
            words = text.answer(request, profile.seed, profile.tokens)
            limit = min(request.max_tokens or room, room - used)
            finish = "length" if len(words) > limit else "stop"
            words, stopped = _stop_at(words[:limit], request.stop)
            spoken = [Chunk(text=word, model=MODEL) for word in words]
        usage = Usage(
            input=used,
            output=len(thought) + len(spoken),
            cached=self._cached(call, counts),
            reasoning=len(thought),
        )
        if thought:
            thought.append(Chunk(signature=SIGNATURE, model=MODEL))
        last = Chunk(
            finish="stop_sequence" if stopped else finish, usage=usage, model=MODEL, stopped_by=stopped
        )
        return [*thought, *spoken], last

    def _cached(self, call: Call, counts: list[int]) -> int:
        """Count the tokens of the longest known prefix of whole messages: per tenant, from a minimum on."""
        total, best, prefix = 0, 0, hash(call.tenant)
        for message, tokens in zip(call.request.messages, counts, strict=True):
            total += tokens
            prefix = hash((prefix, message.role, message.text()))
            if prefix in self._prefixes:
                best = total
                self._prefixes.move_to_end(prefix)
            else:
                self._prefixes[prefix] = None
        while len(self._prefixes) > _CACHE_ENTRIES:
            self._prefixes.popitem(last=False)
        return best - best % _CACHE_STEP if best >= _CACHE_MINIMUM else 0

    async def _fail(self, profile: Profile) -> None:
        match profile.fault:
            case "stall":
                await asyncio.Event().wait()
            case "cut" | "reset" | "malformed" if self._wire_faults:
                raise WireFaultError(profile.fault)
            case "cut" | "reset":
                raise UpstreamClosedError("The simulated target's stream was cut.")
            case "malformed":
                raise UpstreamProtocolError("The simulated target sent a malformed frame.")
            case "error_event":
                raise UpstreamError("The simulated target failed in the middle of its answer.")


async def _before_first_token(profile: Profile) -> None:
    match profile.fault:
        case "status" if profile.status == 429:
            raise UpstreamRateLimitError(
                "The simulated target asks to wait.", retry_after=profile.retry_after
            )
        case "status" if profile.status < 500:
            raise UpstreamRefusedError(
                f"The simulated target refuses ({profile.status}).", status=profile.status
            )
        case "status":
            message = f"The simulated target fails ({profile.status})."
            raise UpstreamError(message, status=profile.status, retry_after=profile.retry_after)
        case "hang":
            await asyncio.Event().wait()
        case "slow":
            await asyncio.sleep(profile.ttft_ms / 1000 * 9)


async def _until(due: float) -> None:
    delay = due - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)


def _fragments(call: ToolCall) -> list[Chunk]:
    pieces = [ToolCall(index=call.index, arguments=piece) for piece in text.tokens(call.arguments)]
    head = ToolCall(index=call.index, id=call.id, name=call.name)
    return [Chunk(tool_calls=(piece,), model=MODEL) for piece in (head, *pieces)]


def _stop_at(words: list[str], stop: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the words before the first stop sequence, and which one that was."""
    whole = "".join(words)
    found = sorted((whole.find(mark), mark) for mark in stop if mark and mark in whole)
    return (text.tokens(whole[: found[0][0]]), found[0][1]) if found else (words, "")


def _refuse_what_is_not_simulated(call: Call) -> None:
    json_body.refuse_unknown(call.source, "the simulated model")
    opaque = [part for turn in call.request.messages for part in turn.parts if isinstance(part, Opaque)]
    if opaque:
        message = f"messages: the simulated model cannot read a {opaque[0].kind}."
        raise UnsupportedFieldError(message, param="messages")
