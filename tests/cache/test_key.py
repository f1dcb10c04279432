"""The canonical key: what changes it, what does not, and what has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from wire.request_strategies import CAN, requests

from firsttoken.cache.key import request_key
from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Opaque,
    OutputFormat,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import FirstTokenError, RequestError
from firsttoken.model import Call, Source
from firsttoken.wire import codec_of

BODIES = json.loads((Path(__file__).parents[1] / "data" / "bodies.json").read_text("utf-8"))
"""A valid body for each path, with most of what its format can say."""
FORMATS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
    "/v1/messages": "anthropic",
    "generateContent": "gemini",
    "converse": "bedrock",
}
LABELS = {
    *("metadata", "user", "labels", "requestMetadata", "stream", "stream_options", "prompt_cache_key"),
    *("cache_control", "cachePoint", "safety_identifier"),
}
"""Fields that say nothing about the answer."""
STRUCTURE = {"type", "status"}
"""Fields whose other values are nonsense, which is read over."""
EXACT = settings(max_examples=30, deadline=None, derandomize=True)


def call_of(request: ChatRequest, source: Source | None = None, tenant: str = "acme") -> Call:
    return Call(request, source or Source("openai-chat", b"{}"), "req", 0.0, tenant)


def read(format_: str, body: Any) -> Call:
    """The call that a body asks for."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call_of(*codec_of(format_).read_request(data, "m", stream=False))


def key(request: ChatRequest, **fields: Any) -> str | None:
    return request_key(call_of(replace(request, **fields)))


def shuffled(value: Any, draw: Any) -> Any:
    """The same JSON with the keys of its objects in another order; the text of arguments is left alone."""
    if isinstance(value, list):
        return [shuffled(item, draw) for item in value]
    if not isinstance(value, dict):
        return value
    names = draw(st.permutations(list(value)))
    keep = {name for name in names if name in ("input", "args") and isinstance(value[name], dict)}
    return {name: value[name] if name in keep else shuffled(value[name], draw) for name in names}


def leaves(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path for name, child in inner for path in leaves(child, (*here, name))]
    return found if isinstance(value, dict | list) else [here]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy with one leaf changed to another value of its kind."""
    copy = json.loads(json.dumps(value))
    node = copy
    for name in path[:-1]:
        node = node[name]
    old = node[path[-1]]
    others = {bool: lambda: not old, int: lambda: old + 1, float: lambda: old / 2, str: lambda: f"{old}x"}
    node[path[-1]] = others[type(old)]()
    return copy


@pytest.mark.parametrize("format_", list(CAN))
@EXACT
@given(data=st.data())
def test_the_order_of_keys_is_no_difference(format_: str, data: st.DataObject) -> None:
    """Two bodies that are the same JSON have the same key, in every format."""
    request = data.draw(requests(CAN[format_]))
    body = codec_of(format_).write_request(call_of(request, Source("other", b"")), request.model)
    other = shuffled(json.loads(body), data.draw)
    found = request_key(read(format_, body))
    assert found is not None
    assert request_key(read(format_, other)) == found


@pytest.mark.parametrize("format_", list(CAN))
@EXACT
@given(data=st.data(), tenants=st.lists(st.text(max_size=8), min_size=2, max_size=2, unique=True))
def test_tenants_never_share(format_: str, data: st.DataObject, tenants: list[str]) -> None:
    """Whatever they ask, the keys of two tenants differ; so do those of two scopes."""
    request = data.draw(requests(CAN[format_]))
    calls = [call_of(request, tenant=tenant) for tenant in tenants]
    assert request_key(calls[0]) != request_key(calls[1])
    assert request_key(calls[0], scope=tenants[0]) != request_key(calls[0], scope=tenants[1])


@pytest.mark.parametrize(("path", "format_"), [*FORMATS.items()])
def test_every_word_of_a_body_counts(path: str, format_: str) -> None:
    """Any one value of a body that says something about the answer changes the key, or is refused."""
    body = next(body for known, body in BODIES.items() if known.endswith(path))
    found = request_key(read(format_, body))
    assert found is not None
    counted = [
        place
        for place in leaves(body)
        if not LABELS & set(place) and place[-1] not in STRUCTURE and place != ("model",)
    ]
    assert len(counted) >= 15
    for place in counted:
        try:
            other = read(format_, changed(body, place))
        except FirstTokenError:
            continue
        assert request_key(other) != found, place


FULL = ChatRequest(
    model="m",
    messages=(
        Message("system", (Text("s"),)),
        Message("user", (Text("a"), Image(url="u")), "n"),
        Message("assistant", (Reasoning("r"), ToolUse("1", "f", "{}"))),
        Message("tool", (ToolResult("1", (Text("x"),)),)),
    ),
    tools=(Tool("f", "d", {"type": "object"}), Tool("g")),
)


def part(at: int, position: int, **fields: Any) -> dict[str, Any]:
    message = FULL.messages[at]
    parts = list(message.parts)
    parts[position] = replace(parts[position], **fields)
    return {"messages": (*FULL.messages[:at], replace(message, parts=tuple(parts)), *FULL.messages[at + 1 :])}


CHANGES: list[dict[str, Any]] = [
    {"model": "n"},
    {"messages": FULL.messages[:-1]},
    {"messages": FULL.messages[::-1]},
    {"messages": (replace(FULL.messages[0], role="developer"), *FULL.messages[1:])},
    {"messages": (replace(FULL.messages[0], name="n"), *FULL.messages[1:])},
    part(0, 0, text="t"),
    part(1, 1, url="v"),
    part(1, 1, detail="low"),
    part(1, 1, data="AAAA"),
    part(1, 1, media_type="image/png"),
    part(2, 0, text="q"),
    part(2, 0, signature="q"),
    part(2, 0, redacted="q"),
    part(2, 1, id="2"),
    part(2, 1, arguments="{ }"),
    part(2, 1, signature="s"),
    part(3, 0, is_error=True),
    part(3, 0, name="f"),
    part(3, 0, parts=(Text("y"),)),
    {"tools": FULL.tools[::-1]},
    {"tools": (FULL.tools[0],)},
    {"tools": (replace(FULL.tools[0], description="e"), FULL.tools[1])},
    {"tools": (replace(FULL.tools[0], schema=None), FULL.tools[1])},
    {"tools": (replace(FULL.tools[0], strict=True), FULL.tools[1])},
    *[{"tool_choice": ToolChoice(mode)} for mode in ("auto", "none", "required")],
    {"tool_choice": ToolChoice("tool", "f")},
    *[{"parallel_tool_calls": value} for value in (True, False)],
    *[{"max_tokens": value} for value in (1, 2)],
    *[{name: value} for name in ("temperature", "top_p") for value in (0.0, 0.5, 1.0)],
    *[{name: 0.5} for name in ("presence_penalty", "frequency_penalty")],
    *[{"top_k": value} for value in (0, 1)],
    *[{"stop": value} for value in (("a",), ("a", "b"), ("b", "a"))],
    *[{"seed": value} for value in (0, 1, 2**80)],
    *[{"output": value} for value in (OutputFormat(), OutputFormat({}), OutputFormat({"a": 1}, strict=True))],
    *[
        {"reasoning": value}
        for value in (ReasoningWish("low"), ReasoningWish("", 5), ReasoningWish(enabled=True))
    ],
    {"service_tier": "flex"},
]


def test_every_change_of_the_answer_changes_the_key() -> None:
    """One field of the vocabulary after the other: no two of these requests have the same key."""
    keys = [key(FULL), *[key(FULL, **change) for change in CHANGES]]
    assert None not in keys
    assert len(set(keys)) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"stream": True},
        {"include_usage": True},
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"cache_key": "k"},
        part(0, 0, cache="5m"),
        part(1, 1, cache="1h"),
        part(2, 1, cache="5m"),
        part(3, 0, cache="5m"),
        part(3, 0, parts=(Text("x", cache="1h"),)),
        {"tools": (replace(FULL.tools[0], cache="5m"), FULL.tools[1])},
        {"tools": (replace(FULL.tools[0], schema=dict(FULL.tools[0].schema or {})), FULL.tools[1])},
    ],
    ids=range(12),
)
def test_delivery_and_labels_do_not_count(change: dict[str, Any]) -> None:
    """How an answer is sent, who it is for and what a provider should cache is not part of the answer."""
    assert key(FULL, **change) == key(FULL)


@pytest.mark.parametrize("values", [(-0.0, 0, 0.0), (1, 1.0)])
@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
def test_numbers_are_equal_by_value(name: str, values: tuple[float, ...]) -> None:
    """An integer, a float and either zero are one number."""
    assert len({key(FULL, **{name: value}) for value in values}) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    """NaN equals nothing, so it has no key: the field is named."""
    with pytest.raises(RequestError, match="top_p: expected a finite number"):
        key(FULL, top_p=value)


OPENAI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_fields_without_a_word_count_with_their_values() -> None:
    """Names and values of unknown fields are part of the key, whatever the order and spelling of numbers."""
    bodies = [
        {},
        {"logit_bias": {"5": 1, "6": 2}},
        {"logit_bias": {"5": 1, "6": 3}},
        {"future": {"5": 1, "6": 2}},
        {"future": [1, 0.5]},
        {"future": 10**30},
        {"future": 10**30 + 1},
        {"future": "x"},
        {"future": True},
        {"n": 2},
    ]
    keys = [request_key(read("openai_chat", {**OPENAI, **more})) for more in bodies]
    assert None not in keys
    assert len(set(keys)) == len(bodies)
    spelled = {"future": None, "logit_bias": {"6": 2.0, "5": 1.0}}
    assert request_key(read("openai_chat", {**spelled, **OPENAI})) == keys[1]


TURN = {"role": "user", "content": "Hi"}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


@pytest.mark.parametrize(
    ("format_", "body", "more"),
    [
        ("openai_responses", {"model": "m", "input": "Hi"}, {"reasoning": {"summary": "auto"}}),
        ("openai_responses", {"model": "m", "input": "Hi"}, {"include": ["reasoning.encrypted_content"]}),
        (
            "anthropic",
            {"model": "m", "max_tokens": 5, "messages": [TURN], "thinking": {"type": "adaptive"}},
            {"thinking": {"type": "adaptive", "display": "omitted"}},
        ),
        (
            "gemini",
            {**GEMINI, "generationConfig": {"thinkingConfig": {"thinkingBudget": 5}}},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 5, "includeThoughts": True}}},
        ),
    ],
)
def test_what_the_neutral_words_leave_out_counts(format_: str, body: Any, more: Any) -> None:
    """A target of the same format gets the client's bytes, so what only they say is part of the key."""
    calls = [read(format_, body), read(format_, {**body, **more})]
    keys = [request_key(call) for call in calls]
    assert None not in keys
    assert keys[0] != keys[1]
    assert calls[0].request == calls[1].request


@pytest.mark.parametrize(
    "source",
    [
        Source("gemini", b'{"contents":[]}', ("functionResponse.parts",)),
        Source("openai-chat", b"{}", ("future",)),
        Source("openai-chat", b"", ("future",)),
        Source("openai-chat", b"[1", ("future",)),
    ],
)
def test_what_cannot_be_read_has_no_key(source: Source) -> None:
    """A field that asks for something and is not found in the body: nobody can tell what it asks."""
    assert request_key(call_of(FULL, source)) is None


@pytest.mark.parametrize("name", ["max_tokens", "top_k"])
def test_numbers_beyond_all_measure_have_no_key(name: str) -> None:
    """An integer of more than 64 bits is not shared, and does not break the call."""
    assert key(FULL, **{name: 10**30}) is None


def test_parts_that_only_the_body_shows_count_with_the_body() -> None:
    """Where a part has no neutral words the key holds all bytes of the body."""
    request = replace(FULL, messages=(Message("user", (Opaque("anthropic", "document"),)),))
    bodies = [b'{"a":1}', b'{"a":2}']
    keys = [request_key(call_of(request, Source("anthropic", body))) for body in bodies]
    assert None not in keys
    assert keys[0] != keys[1]
    assert request_key(call_of(request, Source("anthropic", b""))) is None
