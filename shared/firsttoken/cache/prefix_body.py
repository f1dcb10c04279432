"""Markers in a client's own body: put in where they belong, with every other byte's meaning kept.

A target of the client's format gets the client's body, not a translation of it, so that nothing is lost that
the neutral words have no place for. All of these return None for a body that they cannot mark.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from firsttoken.cache.prefix_marks import Mark
from firsttoken.chat import Ttl
from firsttoken.wire import json_body

_Block = dict[str, Raw]
_blocks = msgspec.json.Decoder(list[_Block])
_block = msgspec.json.Decoder(_Block)
_list = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.encode
_ROLE = b'"assistant"'
_CLAUDE_KINDS = (b'"text"', b'"image"', b'"document"', b'"tool_use"', b'"tool_result"')
_BEDROCK_KINDS = ("text", "image", "document", "toolUse", "toolResult")


def with_markers(wire: str, body: bytes, marks: Sequence[Mark], ttl: Ttl) -> bytes | None:
    """Return ``body`` with markers at these places."""
    try:
        fields = json_body.fields(body)
        write = {"anthropic": _anthropic, "bedrock-converse": _bedrock}[wire]
        for mark in marks:
            write(fields, mark, ttl)
        return _encode(fields)
    except (msgspec.DecodeError, LookupError):
        return None


def with_cache_key(body: bytes, key: str) -> bytes | None:
    """Return the body of a request to OpenAI with a cache key as its last field."""
    whole = body.rstrip()
    if b'"prompt_cache_key"' in body or not whole.endswith(b"}"):
        return None
    return whole[:-1] + b',"prompt_cache_key":' + _encode(key) + b"}"


def _raw(value: object) -> Raw:
    return Raw(_encode(value))


def _answered(messages: Sequence[_Block], mark: Mark) -> int:
    """Return the assistant's latest turn but at the very end, or the one before it."""
    turns = [at for at, turn in enumerate(messages[:-1]) if bytes(turn["role"]) == _ROLE]
    return turns[-1 if mark.place == "said" else -2]


def _anthropic(fields: _Block, mark: Mark, ttl: Ttl) -> None:
    control = _raw({"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl})
    if mark.place == "tools":
        tools = _blocks.decode(fields["tools"])
        tools[-1]["cache_control"] = control
        fields["tools"] = _raw(tools)
    elif mark.place == "system":
        fields["system"] = _controlled(fields["system"], control)
    else:
        messages = _blocks.decode(fields["messages"])
        turn = messages[_answered(messages, mark)]
        turn["content"] = _controlled(turn["content"], control)
        fields["messages"] = _raw(messages)


def _controlled(content: Raw, control: Raw) -> Raw:
    """Return content with a marker on its last block that can have one. Raises LookupError."""
    if bytes(content).startswith(b'"'):
        if bytes(content) == b'""':
            raise LookupError
        return _raw([{"type": "text", "text": content, "cache_control": control}])
    blocks = _blocks.decode(content)
    found = [block for block in blocks if _can_be_marked(block)]
    found[-1]["cache_control"] = control
    return _raw(blocks)


def _can_be_marked(block: _Block) -> bool:
    return bytes(block["type"]) in _CLAUDE_KINDS and bytes(block.get("text", Raw(b"0"))) != b'""'


def _bedrock(fields: _Block, mark: Mark, ttl: Ttl) -> None:
    point = _raw({"cachePoint": {"type": "default"} if ttl == "5m" else {"type": "default", "ttl": ttl}})
    if mark.place == "tools":
        config = _block.decode(fields["toolConfig"])
        config["tools"] = _raw([*_list.decode(config["tools"]), point])
        fields["toolConfig"] = _raw(config)
    elif mark.place == "system":
        fields["system"] = _raw([*_list.decode(fields["system"]), point])
    else:
        messages = _blocks.decode(fields["messages"])
        turn = messages[_answered(messages, mark)]
        blocks = _list.decode(turn["content"])
        kinds = [at for at, block in enumerate(_blocks.decode(turn["content"])) if _is_content(block)]
        turn["content"] = _raw([*blocks[: kinds[-1] + 1], point, *blocks[kinds[-1] + 1 :]])
        fields["messages"] = _raw(messages)


def _is_content(block: _Block) -> bool:
    return any(kind in block for kind in _BEDROCK_KINDS)
