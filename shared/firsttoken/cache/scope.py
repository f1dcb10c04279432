"""The scope of a call: everything of it but its last question, as one hash.

A question is compared to others of the same scope only. So an answer never crosses from one tenant, model,
system prompt, conversation, set of tools or version to another, however near two questions are.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.key import request_key
from firsttoken.chat import Message, Text
from firsttoken.errors import RequestError
from firsttoken.model import Call

MAX_QUESTION = 2000
"""Characters: what is longer is a text to work on rather than a question."""
LENGTH = 32
"""Hex digits of a scope: 128 bits."""


class Place(Struct, frozen=True):
    """What of a scope is the route's."""

    route: str
    version: str = ""
    """Of the prompt, the corpus, the targets: whatever stands behind the route's name."""
    embedder: str = ""
    """The embedding model and its dimensions: vectors of two of them must never be compared."""
    headers: tuple[str, ...] = ()
    """The client's headers that change the answer: those that targets get to see."""


def question_of(call: Call) -> str | None:
    """Return the last question of a call, or None where it is not one plain text of a user.

    None as well where the model may call tools: their arguments have to fit the question to the letter.
    """
    request = call.request
    if not request.messages or (
        request.tools and (request.tool_choice is None or request.tool_choice.mode != "none")
    ):
        return None
    last = request.messages[-1]
    if last.role != "user" or len(last.parts) != 1:
        return None
    part = last.parts[0]
    if not isinstance(part, Text) or len(part.text) > MAX_QUESTION or not part.text.strip():
        return None
    try:
        part.text.encode()
    except UnicodeEncodeError:  # half a character
        return None
    return part.text


def scope_of(call: Call, place: Place) -> str | None:
    """Return the scope of a call, or None where it has no plain last question, or cannot be compared.

    In it are the tenant, all earlier turns, system prompt, tools, output format, sampling parameters and
    whatever else `request_key` knows of. Time: that of `request_key`.
    """
    if question_of(call) is None:
        return None
    request = call.request
    blank = Message("user", (Text(""),), request.messages[-1].name)
    rest = replace(request, messages=(*request.messages[:-1], blank))
    sent = [f"{name}: {call.headers[name]}" for name in sorted(place.headers) if name in call.headers]
    parts = ("similar", place.route, place.version, place.embedder, *sent)
    label = "".join([f"{len(part)}:{part}" for part in parts])  # no two lists of parts look the same
    try:
        key = request_key(replace(call, request=rest), scope=label)
    except RequestError:
        return None
    return None if key is None else key[:LENGTH]
