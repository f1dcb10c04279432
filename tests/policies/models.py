"""Models for the tests of policies, and the calls they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Chunk, Source, Usage
from firsttoken.policies.opened import open_model
from firsttoken.telemetry.record import Record

Step = Chunk | float | BaseException
"""A chunk to say, seconds to wait, or what to raise."""


def say(text: str, **fields: Any) -> Chunk:
    return Chunk(text=text, **fields)


END = Chunk(finish="stop", usage=Usage(input=3, output=2))
HELLO: tuple[Step, ...] = (say("Hel"), say("lo"), END)


class Scripted:
    """A model that follows a script: for each call the next one, the last one for all further calls.

    A script is a sequence of steps, or a function from the call to one. ``calls`` are those that came,
    ``closed`` counts those whose generator was closed before its end.
    """

    def __init__(self, *scripts: Sequence[Step] | Callable[[Call], Sequence[Step]]) -> None:
        self._scripts = scripts or (HELLO,)
        self.calls: list[Call] = []
        self.times: list[float] = []
        self.closed = 0
        self.active = 0

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(call)
        self.times.append(asyncio.get_running_loop().time())
        self.active += 1
        whole = False
        try:
            for step in script(call) if callable(script) else script:
                if isinstance(step, Chunk):
                    yield step
                elif isinstance(step, BaseException):
                    whole = True
                    raise step
                else:
                    await asyncio.sleep(step)
            whole = True
        finally:
            self.active -= 1
            self.closed += not whole


def make_call(text: str = "Hi", *, deadline: float = 60.0, tenant: str = "local", **fields: Any) -> Call:
    """A streamed call from inside a running loop; ``deadline`` is seconds from now."""
    request = ChatRequest(model="m", messages=(Message("user", (Text(text),)),), **{"stream": True, **fields})
    at = asyncio.get_running_loop().time() + deadline
    return Call(
        request=request,
        source=Source("openai_chat", b"{}"),
        id="req",
        deadline=at,
        tenant=tenant,
        record=Record(),
    )


async def collect(model: Any, call: Call) -> list[Chunk]:
    """All chunks of an answer."""
    return [chunk async for chunk in model.stream(call)]


async def text_of(model: Any, call: Call) -> str:
    """The text of an answer."""
    return "".join([chunk.text for chunk in await collect(model, call)])


__all__ = ["END", "HELLO", "Scripted", "Step", "collect", "make_call", "open_model", "say", "text_of"]
