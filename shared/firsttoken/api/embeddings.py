"""``POST /v1/embeddings``: the vectors of some texts, as OpenAI's API answers them."""

from __future__ import annotations

import asyncio

from firsttoken.api.exchange import Exchange
from firsttoken.api.lifetime import deadline_of, until_the_client_leaves
from firsttoken.embedding import EmbedCall
from firsttoken.errors import RequestError
from firsttoken.gateway import Gateway
from firsttoken.wire import openai_embeddings
from firsttoken.wire.json_depth import deeper_than


async def embeddings(exchange: Exchange, gateway: Gateway) -> None:
    """Answer one request. Raises FirstTokenError for what the caller must answer."""
    server = gateway.settings.server
    record = exchange.record
    body = await exchange.body(server.max_body_bytes)
    request, source = openai_embeddings.read_request(body)
    if deeper_than(body, server.max_json_depth):
        message = f"The body is nested deeper than {server.max_json_depth} levels."
        raise RequestError(message, code="nested_too_deep")
    record.model = request.model
    call = EmbedCall(
        request=request,
        deadline=deadline_of(exchange, gateway),
        source=source,
        id=exchange.id,
        tenant=record.tenant,
        headers=exchange.headers,
        record=record,
    )
    await until_the_client_leaves(exchange, call.deadline, _answer(exchange, gateway, call))


async def _answer(exchange: Exchange, gateway: Gateway, call: EmbedCall) -> None:
    answer = await gateway.embed(call)
    call.record.first_chunk = asyncio.get_running_loop().time()
    call.record.input_tokens = answer.tokens
    await exchange.answer(200, openai_embeddings.write_answer(call, answer))
