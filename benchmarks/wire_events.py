"""Streams as each provider sends them: the same words, one event a token, with the provider's own envelopes.

Written by hand after the providers' documentation and recordings, not by our codecs: names, order, spacing
and padding are theirs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from zlib import crc32

WORDS = (
    *(" stream", " token", " of", " the", " answer", " to", " a", " question", ",", " naïve", " 東京", "."),
    *(" Retry", " with", ' "quotes"', "\n", " and", " 🙂", " latency", " region", " model", " is", " cheap"),
)
FORMATS = ("openai_chat", "openai_responses", "anthropic", "gemini", "bedrock")
_PAD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ITEM = "msg_68f1c0a4d2b08190a1c5e3f7b9d2e4f6"


def word(position: int) -> str:
    """Return the text of a token."""
    return WORDS[position % len(WORDS)]


def text(tokens: int) -> str:
    """Return the text of a stream of so many tokens."""
    return "".join(map(word, range(tokens)))


@lru_cache
def stream(name: str, tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the events before the tokens, one event for each token, and those behind them."""
    return _STREAMS[name](tokens)


def _sse(kind: str, value: dict[str, Any]) -> bytes:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode() if kind else f"data: {data}\n\n".encode()


def _pad(position: int) -> str:
    return _PAD[: 1 + position * 7 % 16]


def _openai_chat(tokens: int, *, padded: bool = False) -> tuple[list[bytes], list[bytes], list[bytes]]:
    head = {
        "id": "chatcmpl-CZ2aBcDeFgHiJkLmNoPqRsTu",
        "object": "chat.completion.chunk",
        "created": 1763800000,
        "model": "gpt-5.6-terra",
        "service_tier": "default",
        "system_fingerprint": "fp_1a2b3c4d5e",
    }

    def event(delta: dict[str, Any], finish: str | None, position: int) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        more = {"obfuscation": _pad(position)} if padded else {}
        return _sse("", {**head, "choices": [choice], "usage": None, **more})

    usage = {"prompt_tokens": 200, "completion_tokens": tokens, "total_tokens": 200 + tokens}
    return (
        [event({"role": "assistant", "content": "", "refusal": None}, None, 0)],
        [event({"content": word(position)}, None, position) for position in range(tokens)],
        [event({}, "stop", 3), _sse("", {**head, "choices": [], "usage": usage}), b"data: [DONE]\n\n"],
    )


def _openai_chat_padded(tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    return _openai_chat(tokens, padded=True)


def _openai_responses(tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    numbers = iter(range(10**9))
    response: dict[str, Any] = {
        "id": "resp_68f1c0a4",
        "object": "response",
        "created_at": 1763800000,
        "status": "in_progress",
        "model": "gpt-5.6-terra",
        "output": [],
        "usage": None,
    }
    where = {"item_id": _ITEM, "output_index": 0, "content_index": 0}
    item = {"id": _ITEM, "type": "message", "status": "in_progress", "role": "assistant", "content": []}

    def event(kind: str, **fields: Any) -> bytes:
        return _sse(kind, {"type": kind, "sequence_number": next(numbers), **fields})

    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    before = [
        event("response.created", response=response),
        event("response.in_progress", response=response),
        event("response.output_item.added", output_index=0, item=item),
        event("response.content_part.added", **where, part=part),
    ]
    events = [
        event(
            "response.output_text.delta",
            **where,
            delta=word(position),
            logprobs=[],
            obfuscation=_pad(position),
        )
        for position in range(tokens)
    ]
    part["text"] = text(tokens)
    done = {**item, "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 200,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 200 + tokens,
    }
    last = {**response, "status": "completed", "output": [done], "usage": usage}
    return (
        before,
        events,
        [
            event("response.output_text.done", **where, text=part["text"], logprobs=[]),
            event("response.content_part.done", **where, part=part),
            event("response.output_item.done", output_index=0, item=done),
            event("response.completed", response=last),
        ],
    )


def _anthropic(tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    def event(kind: str, **fields: Any) -> bytes:
        return _sse(kind, {"type": kind, **fields})

    message = {
        "model": "claude-sonnet-5-5",
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 200, "output_tokens": 1},
    }
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return (
        [
            event("message_start", message=message),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("ping"),
        ],
        [
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": word(position)})
            for position in range(tokens)
        ],
        [
            event("content_block_stop", index=0),
            event("message_delta", delta=ended, usage={"output_tokens": tokens}),
            event("message_stop"),
        ],
    )


def _gemini(tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    def event(part: str, spoken: int, finish: dict[str, str]) -> bytes:
        counts = {"promptTokenCount": 200, "candidatesTokenCount": spoken, "totalTokenCount": 200 + spoken}
        value = {
            "candidates": [{"content": {"parts": [{"text": part}], "role": "model"}, **finish, "index": 0}],
            "usageMetadata": counts,
            "modelVersion": "gemini-3.8-flash",
            "responseId": "q1YhaZOvKJ2Lz7IP4eKQ6A0",
        }
        return f"data: {json.dumps(value, ensure_ascii=False)}\r\n\r\n".encode()

    return (
        [],
        [event(word(position), position + 1, {}) for position in range(tokens)],
        [event("", tokens, {"finishReason": "STOP"})],
    )


def _bedrock(tokens: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    def frame(kind: str, position: int, **fields: Any) -> bytes:
        value = {**fields, "p": _pad(position)}
        payload = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        named = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        headers = b"".join(
            struct.pack(">B", len(key)) + key.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
            for key, value in named.items()
        )
        lengths = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
        body = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
        return body + struct.pack(">I", crc32(body))

    usage = {"inputTokens": 200, "outputTokens": tokens, "totalTokens": 200 + tokens}
    return (
        [frame("messageStart", 1, role="assistant")],
        [
            frame("contentBlockDelta", position, contentBlockIndex=0, delta={"text": word(position)})
            for position in range(tokens)
        ],
        [
            frame("contentBlockStop", 2, contentBlockIndex=0),
            frame("messageStop", 3, stopReason="end_turn"),
            frame("metadata", 4, metrics={"latencyMs": 900}, usage=usage),
        ],
    )


_STREAMS: dict[str, Callable[[int], tuple[list[bytes], list[bytes], list[bytes]]]] = {
    "openai_chat": _openai_chat,
    "openai_chat, padded": _openai_chat_padded,
    "openai_responses": _openai_responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
}


def batches(events: list[bytes], size: int) -> Iterator[bytes]:
    """Yield the events as reads that hold ``size`` of them."""
    for start in range(0, len(events), size):
        yield b"".join(events[start : start + size])
