"""``POST /v1/messages/count_tokens``: how many input tokens a request has.

A target that speaks Anthropic counts itself, the simulated model counts its own tokens, and for all others
the number is an estimate (see `firsttoken.policies.estimate`), marked by the header
``x-firsttoken-estimate: true``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from firsttoken.api.exchange import Exchange
from firsttoken.api.lifetime import deadline_of, until_the_client_leaves
from firsttoken.errors import NotFoundError, RequestError
from firsttoken.gateway import ANY, Gateway
from firsttoken.model import Call
from firsttoken.policies.estimate import estimate
from firsttoken.settings import SimulatedProvider
from firsttoken.wire.json_depth import deeper_than


@runtime_checkable
class Counter(Protocol):
    """A model that can count the tokens of a request."""

    async def count_tokens(self, call: Call) -> int:
        """Return how many input tokens ``call`` has. Raises UpstreamError."""
        ...


async def count_tokens(exchange: Exchange, gateway: Gateway) -> None:
    """Answer with the number of input tokens. Raises FirstTokenError for what the caller must answer."""
    from firsttoken.wire.anthropic import read_count

    server = gateway.settings.server
    body = await exchange.body(server.max_body_bytes)
    request, source = read_count(body)
    if deeper_than(body, server.max_json_depth):
        message = f"The body is nested deeper than {server.max_json_depth} levels."
        raise RequestError(message, code="nested_too_deep")
    call = Call(
        request=request,
        source=source,
        id=exchange.id,
        deadline=deadline_of(exchange, gateway),
        tenant=exchange.record.tenant,
        headers=exchange.headers,
        record=exchange.record,
    )
    await until_the_client_leaves(exchange, call.deadline, _answer(exchange, gateway, call))


async def _answer(exchange: Exchange, gateway: Gateway, call: Call) -> None:
    name = call.request.model if call.request.model in gateway.routes else ANY
    if name not in gateway.routes:
        message = f"The model {call.request.model!r} does not exist here."
        raise NotFoundError(message, param="model", code="model_not_found")
    target = gateway.settings.models[name].all_targets()[0].target
    model = gateway.providers[target]
    headers = [(b"content-type", b"application/json")]
    if isinstance(model, Counter):
        count = await model.count_tokens(call)
    elif isinstance(gateway.settings.providers[target.partition("/")[0]], SimulatedProvider):
        from firsttoken.simulator import text

        count = text.count_request(call.request)
    else:
        count = estimate(call.request)
        headers.append((b"x-firsttoken-estimate", b"true"))
    await exchange.answer(200, msgspec.json.encode({"input_tokens": count}), headers)
