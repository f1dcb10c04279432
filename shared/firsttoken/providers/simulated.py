"""The simulated model: the embedded default, and what tests and benchmarks run against; never a real answer.

Deterministic for a seed; every token has its own due time on an absolute schedule, so that slowness of the
consumer does not add up. With ``faults`` allowed, a request header chooses what goes wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping

import msgspec

from firsttoken.chat import Opaque
from firsttoken.errors import (
    AuthenticationError,
    FirstTokenError,
    UnsupportedFieldError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.settings import SimulatedProvider
from firsttoken.simulator import text
from firsttoken.simulator.limits import Limits
from firsttoken.simulator.profile import HEADER, Profile
from firsttoken.simulator.prompt_cache import Found, PromptCache
from firsttoken.wire import json_body

MODEL = "simulated"
SIGNATURE = "c2ltdWxhdGVk"
"""Stands under simulated reasoning, as providers sign theirs (base64)."""
_CACHES_BY_MARKER = ("anthropic", "bedrock-converse")
"""The wire formats whose providers cache a prompt only where the request says so."""


class WireFaultError(UpstreamError):
    """A fault below HTTP that only the simulator's own server can show (see `runtimes.simulator`)."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"The simulated target's connection was broken ({kind}).")
        self.kind = kind


class Simulated:
    """A model that repeats the prompt and adds seeded words, with its own rate limits and prompt cache.

    Time: constant per token. Memory: that of `Limits` and `PromptCache`.
    """

    def __init__(self, settings: SimulatedProvider, *, wire_faults: bool = False) -> None:
        self.profile = Profile(
            seed=settings.seed,
            ttft_ms=settings.ttft_ms,
            itl_ms=settings.itl_ms,
            jitter=settings.jitter,
            tokens=settings.tokens,
            context_window=settings.context_window,
        ).changed(settings.profile)
        """How it behaves from now on; the simulator's server changes it while it runs."""
        self.limits = Limits()
        self._faults = settings.faults
        self._wire_faults = wire_faults
        self._cache = PromptCache()
        self._luck = random.Random(settings.seed)  # noqa: S311 - which calls fail, not secrets

    def profile_for(self, headers: Mapping[str, str]) -> Profile:
        """Return the profile of one call. Raises RequestError when its header asks for nonsense."""
        spec = headers.get(HEADER) if self._faults else None
        return self.profile.changed(spec) if spec else self.profile

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer; see `firsttoken.simulator.profile` for what a profile can ask for."""
        profile = self.profile_for(call.headers)
        if profile.fault and profile.share < 1 and self._luck.random() >= profile.share:
            profile = msgspec.structs.replace(profile, fault="")
        _refuse_what_is_not_simulated(call)
        start = asyncio.get_running_loop().time()
        spoken, last = self._plan(call, profile, start)
        await _before_first_token(profile, own=not self._wire_faults)
        rng = random.Random(profile.seed)  # noqa: S311 - jitter, not secrets
        factor = profile.slow_factor if profile.fault == "slow" else 1.0
        due = start + factor * profile.ttft_ms / 1000
        for position, chunk in enumerate(spoken):
            await _until(due)
            if profile.fault and position == profile.after:
                await self._fail(profile)
            yield chunk
            due += profile.itl_ms / 1000 * (1 + profile.jitter * rng.uniform(-1, 1))
            if position % 16 == 15:
                await asyncio.sleep(0)  # without delays a long answer would keep the loop to itself
        yield last

    def _plan(self, call: Call, profile: Profile, now: float) -> tuple[list[Chunk], Chunk]:
        """Return the chunks of the answer, one a token, and the one that ends it."""
        request = call.request
        used = text.count_request(request)
        room = _room(used, request.max_tokens, profile.context_window)
        rest = text.rest(request, profile.seed, profile.tokens)
        thoughts = text.thoughts(request) if rest is None else []  # in mid-answer it has thought
        thought = [Chunk(reasoning=word, model=MODEL) for word in thoughts]
        finish: Finish = "stop"
        stopped = ""
        if rest is None and (called := text.tool_calls(request)):
            spoken = [fragment for tool in called for fragment in _fragments(tool)]
            finish = "tool_calls"
        else:
            words = text.answer(request, profile.seed, profile.tokens) if rest is None else rest
            finish = "length" if len(words) > room else "stop"
            words, stopped = _stop_at(words[:room], request.stop)
            spoken = [Chunk(text=word, model=MODEL) for word in words]
        output = len(thought) + len(spoken)
        found = self._admit(call, profile, used, output, now)
        usage = Usage(used, output, found.cached, found.written, len(thought))
        if thought:
            thought.append(Chunk(signature=SIGNATURE, model=MODEL))
        last = Chunk(
            finish="stop_sequence" if stopped else finish, usage=usage, model=MODEL, stopped_by=stopped
        )
        return [*thought, *spoken], last

    def _admit(self, call: Call, profile: Profile, used: int, output: int, now: float) -> Found:
        """Charge the call and return what the prompt cache holds. Raises UpstreamRateLimitError."""
        marked = call.source.wire in _CACHES_BY_MARKER
        found = self._cache.look_up(call.request, call.tenant, profile, now, marked=marked)
        new = used - found.cached if marked else used  # only these providers leave out what they have read
        charged = new + (call.request.max_tokens or output)
        self.limits.take(call.request.model, profile, charged, now)
        self._cache.keep(found, now)
        return found

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


async def _before_first_token(profile: Profile, *, own: bool) -> None:
    match profile.fault:
        case "status":
            raise _refusal(profile, own=own)
        case "hang":
            await asyncio.Event().wait()


def _refusal(profile: Profile, *, own: bool) -> FirstTokenError:
    """Return the error with the wanted status.

    ``own`` asks for what an endpoint makes of it, else it is what the provider itself says.
    """
    status, wait = profile.status, profile.retry_after
    if status == 429:
        return UpstreamRateLimitError("The simulated target asks to wait.", retry_after=wait)
    if status in (401, 403) and own:
        return UpstreamAuthError(f"The simulated target refused this endpoint's credentials ({status}).")
    if status == 401:
        return AuthenticationError("The simulated provider does not know this API key.")
    if status < 500:
        return UpstreamRefusedError(f"The simulated target refuses ({status}).", status=status)
    return UpstreamError(f"The simulated target fails ({status}).", status=status, retry_after=wait)


def _room(used: int, wanted: int | None, window: int) -> int:
    """Return how many tokens the answer may have. Raises UpstreamRefusedError over the context window."""
    if used >= window or used + (wanted or 1) > window:
        message = (
            f"This model's maximum context length is {window} tokens. However, you asked for {used} tokens"
            f" in the messages and {wanted or 1} in the completion."
        )
        raise UpstreamRefusedError(message, param="messages", code="context_length_exceeded")
    return min(wanted or window, window - used)


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
