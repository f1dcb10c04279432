"""How a client says that it can wait: ``Prefer: respond-async``, a webhook, a background response.

A preference is not a demand (RFC 7240): what is not known, or not as the RFC writes it, is read over. The
webhook and ``background`` are demands, and refused where they cannot be met.
"""

from __future__ import annotations

import re

from msgspec import Struct

from firsttoken.api.exchange import Exchange
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.gateway import ANY, Gateway
from firsttoken.model import Call, Later, Source
from firsttoken.wire import json_body
from firsttoken.wire.openai_responses.request import WIRE, in_background

RESPOND_ASYNC = "respond-async"
WEBHOOK = "x-firsttoken-webhook"
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PREFERENCE = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:[ \t]*=[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\"))?[ \t]*(?:;|$)"
)
_SECONDS = re.compile("[0-9]{1,9}")


class Preference(Struct, frozen=True):
    """What of ``Prefer`` is understood here."""

    respond_async: bool = False
    wait: float | None = None
    """Seconds; None where nothing was said."""


def preference_of(values: list[str]) -> Preference:
    """Return what ``Prefer`` headers say, however many they are; of what is said twice the first counts."""
    said: dict[str, str] = {}
    for element in _ELEMENT.findall(",".join(values)):
        if found := _PREFERENCE.match(element):
            said.setdefault(found[1].lower(), (found[2] or "").strip('"'))
    wait = said.get("wait", "")
    seconds = float(wait) if _SECONDS.fullmatch(wait) else None
    return Preference(said.get(RESPOND_ASYNC) == "", seconds)


def later_of(exchange: Exchange, gateway: Gateway, call: Call) -> Later | None:
    """Return how a call may be answered later; None where there is no queue.

    Raises RequestError for a webhook that cannot be called and for a background response that cannot be had.
    """
    background = _background(call.source)
    settings = gateway.settings
    route = settings.models.get(call.request.model) or settings.models.get(ANY)
    if settings.queue is None or (route is not None and route.defer == "off"):
        if background:
            message = "background: there is no queue here to put this response in; expected false."
            raise UnsupportedFieldError(message, param="background")
        return None
    webhook = exchange.headers.get(WEBHOOK, "")
    if webhook:
        gateway.webhooks.check(webhook)
    if background:
        return Later(asked=True, webhook=webhook, background=True)
    sent = [value.decode("latin-1") for name, value in exchange.scope["headers"] if name.lower() == b"prefer"]
    preference = preference_of(sent) if sent else Preference()
    wait = preference.wait if preference.respond_async else None
    return Later(asked=preference.respond_async, wait=wait, webhook=webhook)


def _background(source: Source) -> bool:
    """Return whether an OpenAI background response is asked for.

    Raises RequestError where that contradicts ``store``.
    """
    if source.wire != WIRE or not in_background(source.body):
        return False
    if bytes(json_body.fields(source.body).get("store", b"")) == b"false":
        message = "store: a background response is kept until it is fetched; expected true, or no store."
        raise RequestError(message, param="store", code="invalid_value")
    return True
