"""Embeddings of Azure deployments, through the whole endpoint, against a scripted server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsttoken.embedding import EmbedCall, EmbedRequest
from firsttoken.errors import UpstreamAuthError
from firsttoken.providers.embed_azure import AzurePoster
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import Connection, Headers
from firsttoken.settings import AzureProvider
from tests.providers.embed_server import Server, embed

SAID = {"data": [{"index": 0, "embedding": [0.5]}], "model": "ada", "usage": {"prompt_tokens": 1}}


def test_a_deployment_with_a_key() -> None:
    """The deployment is the model, and the key stands in Azure's header."""

    def provider(url: str) -> AzureProvider:
        return AzureProvider(base_url=f"{url}/openai/v1/", api_key="ours")

    body = {"model": "m", "input": "x"}
    answer, upstream = embed(lambda *_: (200, {}, SAID), body, provider, target="up/my-deployment")
    (request,) = upstream.requests
    assert request.path == "/openai/v1/embeddings"
    assert request.body == {"model": "my-deployment", "input": "x"}
    assert request.headers["api-key"] == "ours"
    assert "authorization" not in request.headers
    assert answer.json() == SAID


@pytest.mark.parametrize(("status", "forgotten"), [(200, 0), (401, 1)])
def test_a_refused_token(status: int, forgotten: int) -> None:
    """A token that is refused is dropped, so that the next call takes a new one."""

    async def run() -> None:
        server = Server(lambda *_: (status, {}, SAID))
        listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/embeddings"
        client, dropped = HttpClient(), []

        async def authorize(_url: str, headers: Headers, _body: bytes) -> Headers:
            return [*headers, ("authorization", "Bearer entra")]

        poster = AzurePoster(Connection(client, Timeouts()), authorize, lambda: dropped.append(1))
        deadline = asyncio.get_running_loop().time() + 5
        call = EmbedCall(request=EmbedRequest(model="m", inputs=("x",)), deadline=deadline)
        try:
            outcome: Any = await asyncio.gather(poster.post(url, b"{}", call), return_exceptions=True)
        finally:
            await client.aclose()
            listener.close()
        assert isinstance(outcome[0], UpstreamAuthError) is (status == 401)
        assert len(dropped) == forgotten
        assert server.requests[0].headers["authorization"] == "Bearer entra"

    asyncio.run(run())
