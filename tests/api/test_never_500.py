"""No request of a client is answered with a 500: bodies of every format, with values out of joint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ask, make_app

from firsttoken.config import load
from firsttoken.settings import Embedding

BODIES = json.loads((Path(__file__).parents[1] / "data" / "bodies.json").read_text("utf-8"))
"""A valid body for each path, with most of what its format can say."""
PLAIN = (None, True, -1, 0, 10**30, 1.5, "", "x", "\x00", "🙂", "\ud800")
ODD = st.sampled_from([*PLAIN, [], {}, [None], [[]], {"type": "text"}, {"a": {"b": []}}, [{"type": []}]])
HOW = st.sampled_from(["replace", "remove", "add"])


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where every value of a JSON tree stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([here] if here else []), *(path for key, child in inner for path in paths(child, (*here, key)))]


def changed(value: Any, path: tuple[Any, ...], odd: Any, how: str) -> Any:
    """Return a copy of a tree with one value replaced, taken away, or another one beside it."""
    copy = json.loads(json.dumps(value))
    node = copy
    try:
        for key in path[:-1]:
            node = node[key]
        if how == "replace":
            node[path[-1]] = odd
        elif how == "remove":
            del node[path[-1]]
        else:
            node["odd"] = odd
    except (KeyError, IndexError, TypeError):
        pass  # an earlier change took that place away
    return copy


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", list(BODIES))
def test_no_request_is_answered_with_a_500(path: str, stream: bool) -> None:
    """Whatever stands where, the answer is an answer or says what is wrong, in the format of the client."""
    body = BODIES[path]
    places = paths(body)
    embeddings = {"m": Embedding(target="simulated/m")}
    app = make_app(embeddings=embeddings)
    address = path
    if stream:
        address = path.replace(":generate", ":streamGenerate").replace("/converse", "/converse-stream")
        body = {**body, "stream": True} if path.startswith("/v1/") and "count" not in path else body
    headers = {"x-firsttoken-timeout": "5"}

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.tuples(st.sampled_from(places), ODD, HOW), min_size=1, max_size=3))
    def check(changes: list[tuple[tuple[Any, ...], Any, str]]) -> None:
        sent = body
        for place, odd, how in changes:
            sent = changed(sent, place, odd, how)
        answer = asyncio.run(ask(app, json.dumps(sent).encode(), path=address, headers=headers))
        assert answer.status != 500, (sent, answer.body)
        assert answer.status == 200 or answer.json(), sent
        assert b"internal_error" not in answer.body, (sent, answer.body)

    check()


def test_the_bodies_are_valid() -> None:
    """What is put out of joint was answered before; an endpoint without a configuration embeds, too."""
    assert load(environ={}).embeddings
    app = make_app(embeddings={"m": Embedding(target="simulated/m")})
    for path, body in BODIES.items():
        answer = asyncio.run(ask(app, body, path=path))
        assert answer.status == 200, (path, answer.body)
