"""Limits learned over HTTP from our own simulated provider, in each format that tells them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from firsttoken.errors import UpstreamRateLimitError
from firsttoken.model import Call
from firsttoken.policies.limit import Limited, Limiter
from firsttoken.policies.stats import Stats
from firsttoken.policies.target import Measured
from firsttoken.providers import anthropic, openai
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import Connection
from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import AnthropicProvider, OpenAIProvider, SimulatedProvider
from tests.policies.limits import crowd, make_limiter
from tests.policies.models import make_call


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the simulator on a free port of this machine; each model has limits of its own."""
    app = SimulatorApp(SimulatedProvider(profile="ttft_ms=0,itl_ms=0,tokens=8,rpm=20,tpm=3000"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def provider(kind: str, url: str, model: str, client: HttpClient) -> Any:
    """A model of the simulator, spoken to as to this provider."""
    link = Connection(client, Timeouts())
    if kind == "anthropic":
        return anthropic.chat("up", AnthropicProvider(base_url=url), model, link)
    return openai.chat("up", OpenAIProvider(base_url=f"{url}/v1"), model, link)


async def learned(kind: str, url: str, model: str, client: HttpClient) -> tuple[Limiter, Limited]:
    """A limiter without configuration, after one call."""
    limiter = make_limiter("" if kind == "openai" else kind, name=f"up/{model}", max_wait=0)
    outer = Limited(Measured(provider(kind, url, model, client), Stats()), limiter)
    assert limiter.headroom() == 1.0
    assert len((await crowd(outer, 1, max_tokens=20))[0]) > 2
    return limiter, outer


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(("max_tokens", "most"), [(20, 20), (400, 7)])
def test_one_answer_teaches_the_limits(url: str, kind: str, max_tokens: int, most: int) -> None:
    """After one answer a crowd is let through as far as the provider allows, and it refuses nobody."""

    async def work() -> None:
        client = HttpClient()
        model = f"{kind}-{most}"
        limiter, outer = await learned(kind, url, model, client)
        view = limiter.view()
        assert view.requests is not None
        assert view.tokens is not None
        assert (view.requests.limit, view.tokens.limit) == (20, 3000)
        seen = await crowd(outer, 40, max_tokens=max_tokens)
        sent = [text for text in seen if "rate limit" not in text]
        assert most - 2 <= len(sent) <= most
        assert all(text.startswith("You said") for text in sent)
        assert all("used up for" in text for text in seen if text not in sent)
        await client.aclose()

    asyncio.run(work())


async def until_refused(model: Any) -> tuple[Call, UpstreamRateLimitError]:
    """Call until the limit is reached; return the call that was refused, and how."""
    for _ in range(30):
        call = make_call(max_tokens=5)
        try:
            assert [chunk async for chunk in model.stream(call)]
        except UpstreamRateLimitError as error:
            return call, error
    raise AssertionError("nothing was refused")


def test_what_another_client_uses_is_noticed(url: str) -> None:
    """The headers of the next answer, a refusal included, lower what is left."""

    async def work() -> None:
        client = HttpClient()
        limiter, outer = await learned("openai", url, "shared", client)
        other = provider("openai", url, "shared", client)
        for _ in range(12):
            assert [chunk async for chunk in other.stream(make_call(max_tokens=5))]
        assert limiter.view().requests.left >= 19
        await crowd(outer, 1, max_tokens=5)
        assert 6 <= limiter.view().requests.left <= 8
        call, error = await until_refused(other)
        assert error.retry_after
        assert call.attempt.requests_quota.remaining == 0
        await client.aclose()

    asyncio.run(work())
