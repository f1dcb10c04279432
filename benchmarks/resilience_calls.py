"""Gateways in this process, and calls to them without HTTP in front."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.gateway import Gateway
from firsttoken.model import Call, Chunk, Source
from firsttoken.settings import Settings
from firsttoken.simulator import text

_numbers = itertools.count()


def gateway(tree: Mapping[str, Any]) -> Gateway:
    """Return a gateway with the settings of a configuration file's tree."""
    return Gateway(msgspec.convert({"store": {"kind": "memory"}, **tree}, Settings))


def call(
    prompt: str, *, model: str = "chat", headers: Mapping[str, str] | None = None, **fields: Any
) -> Call:
    """Return a streamed call from inside a running loop."""
    return Call(
        request=request(prompt, model=model, **fields),
        source=Source("openai_chat", b"{}"),
        id=f"req_{next(_numbers)}",
        deadline=asyncio.get_running_loop().time() + 60.0,
        headers=headers or {},
    )


def request(prompt: str, *, model: str = "chat", **fields: Any) -> ChatRequest:
    """Return a request with one turn."""
    return ChatRequest(
        model=model, messages=(Message("user", (Text(prompt),)),), **{"stream": True, **fields}
    )


async def chunks(model: Any, asked: Call) -> list[Chunk]:
    """Return all chunks of an answer."""
    return [chunk async for chunk in model.stream(asked)]


def expected(prompt: str, tokens: int | None = None) -> str:
    """Return the text that the simulated model gives."""
    return "".join(text.answer(request(prompt), 0, tokens))
