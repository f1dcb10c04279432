"""What ``Prefer`` headers are understood to say (RFC 7240)."""

from __future__ import annotations

import asyncio

import pytest
from api.deferred import queued_app
from hypothesis import given
from hypothesis import strategies as st
from support import ask, chat

from firsttoken.api.prefer import Preference, preference_of
from firsttoken.model import Later


@pytest.mark.parametrize(
    ("values", "asked", "wait"),
    [
        ([], False, None),
        (["respond-async"], True, None),
        (["Respond-Async, WAIT=10"], True, 10),
        (["respond-async", "wait=10"], True, 10),
        (["wait=10"], False, 10),
        (["respond-async; foo=1; bar, wait=5"], True, 5),
        (["respond-async;wait=5"], True, None),
        (['foo="a, wait=1", respond-async, wait="7"'], True, 7),
        (["respond-async=", "wait=0"], False, 0),
        (['respond-async=""'], True, None),
        (["wait=1, wait=2, respond-async"], True, 1),
        (["return=minimal ,\trespond-async ,, wait = 3 ;x"], True, 3),
        (["respond-async, wait=-1"], True, None),
        (["respond-async, wait=1.5"], True, None),
        (["respond-async, wait=9999999999"], True, None),
        (["respond-async, wait=²"], True, None),
        (["respond asyn"], False, None),
        (['"respond-async"'], False, None),
        (['foo="open, respond-async'], False, None),
    ],
)
def test_preferences(values: list[str], asked: bool, wait: float | None) -> None:
    """Several headers are one list; what is unknown, or no preference, is read over; the first one counts."""
    assert preference_of(values) == Preference(asked, wait)


@given(st.lists(st.text(alphabet='respond-async=;," \\wait0\t', max_size=300), max_size=3))
def test_any_text_is_read(values: list[str]) -> None:
    """No header makes the reader fail or take long."""
    assert preference_of(values) in (preference_of(values), None)


@pytest.mark.parametrize(
    ("headers", "later"),
    [
        ({}, Later()),
        ({"prefer": "wait=3"}, Later()),
        ({"prefer": "respond-async"}, Later(asked=True)),
        ({"prefer": "respond-async, wait=3"}, Later(asked=True, wait=3.0)),
    ],
)
def test_a_call_says_how_it_may_be_answered_later(headers: dict[str, str], later: Later) -> None:
    """Every chat call of a gateway with a queue says so, also one that did not ask."""
    seen = []

    class Watching:
        def stream(self, call):
            seen.append(call.later)
            return app_model.stream(call)

    app = queued_app()
    app_model = app.gateway.routes["m"]
    app.gateway.routes["m"] = Watching()
    asyncio.run(ask(app, chat(), headers=headers))
    assert seen == [later]
