"""``/v1/batches``: many requests at once, answered within a day, as OpenAI's API has them."""

from __future__ import annotations

from re import Match
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from firsttoken.api.exchange import Exchange
from firsttoken.api.files import keep_of, page
from firsttoken.api.query import number, query_of
from firsttoken.batch.batch import ENDPOINT, shown
from firsttoken.batch.batches import batches_of
from firsttoken.errors import RequestError
from firsttoken.gateway import Gateway
from firsttoken.wire import json_body

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
_Key = Annotated[str, Meta(max_length=64)]
_Value = Annotated[str, Meta(max_length=512)]


class _Expiry(Struct):
    anchor: str
    seconds: int


class _Wanted(Struct, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Annotated[dict[_Key, _Value], Meta(max_length=16)] | None = None
    output_expires_after: _Expiry | None = None


_wanted = msgspec.json.Decoder(_Wanted)


async def batches(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    """Answer one request: create, list, show or cancel, as path and method say."""
    known, tenant = batches_of(gateway), exchange.record.tenant
    name, method = found["id"] or "", exchange.scope["method"]
    if method == "POST" and name:
        answer = shown(await known.cancel(tenant, name))
    elif method == "POST":
        wanted = _read(await exchange.body(gateway.settings.server.max_body_bytes))
        expiry = wanted.output_expires_after
        keep = keep_of(expiry.anchor, str(expiry.seconds)) if expiry else 0.0
        answer = shown(await known.create(tenant, wanted.input_file_id, wanted.metadata, keep))
    elif name:
        answer = shown(await known.get(tenant, name))
    else:
        query = query_of(exchange)
        limit = number(query, "limit", 1, MAX_LIMIT, DEFAULT_LIMIT)
        listed, more = await known.listed(tenant, query.get("after", ""), limit)
        answer = page([shown(batch) for batch in listed], more=more)
    await exchange.answer(200, msgspec.json.encode(answer))


def _read(body: bytes) -> _Wanted:
    wanted = json_body.decode(_wanted, body)
    for field, said, expected in (
        ("endpoint", wanted.endpoint, ENDPOINT),
        ("completion_window", wanted.completion_window, "24h"),
    ):
        if said != expected:
            message = f'{field}: expected "{expected}", got {said[:80]!r}.'
            raise RequestError(message, param=field, code="invalid_value")
    return wanted
