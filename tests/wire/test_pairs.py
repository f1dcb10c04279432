"""All pairs: a client of one format, an endpoint, a provider of another format; and codec after codec.

The provider is our own simulator on a socket, since it speaks every format. What the client sees is read by
hand-written readers (`pairs`), not by our codecs, and compared with what the simulated model itself says.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import uvicorn
from support import Answer, ask, make_app
from wire.pairs import CASES, FORMATS, INBOUND, Case, Seen

from firsttoken.model import Call
from firsttoken.providers.simulated import Simulated
from firsttoken.runtimes.local import DroppableProtocol
from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import (
    AnthropicProvider,
    AzureProvider,
    BedrockProvider,
    GeminiProvider,
    OpenAIProvider,
    Route,
    SimulatedProvider,
    VertexProvider,
)
from firsttoken.wire import chunks as joining
from firsttoken.wire import codec_of

QUICK = SimulatedProvider(profile="ttft_ms=0,itl_ms=0")
REFUSED = {("openai_responses", "stop sequence"): "stop"}
"""What an upstream's format has no word for: the field that the client is told."""


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """Serve one simulated provider on a socket, in a thread of its own."""
    config = uvicorn.Config(
        SimulatorApp(QUICK), port=0, http=DroppableProtocol, ws="none", log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def providers(url: str) -> dict[str, Any]:
    return {
        "openai_chat": OpenAIProvider(base_url=f"{url}/v1"),
        "openai_responses": OpenAIProvider(base_url=f"{url}/v1", api="responses"),
        "anthropic": AnthropicProvider(base_url=url, api_key="k"),
        "gemini": GeminiProvider(base_url=f"{url}/v1beta", api_key="k"),
        "bedrock": BedrockProvider(region="eu-central-1", base_url=url, api_key="k"),
        "azure": AzureProvider(base_url=f"{url}/openai/v1", api_key="k"),
        "azure responses": AzureProvider(base_url=f"{url}/openai/v1", api_key="k", api="responses"),
        "bedrock openai": BedrockProvider(region="r", base_url=url, api_key="k", api="openai"),
        "vertex": VertexProvider(project="p", base_url=url, api_key="k"),
        "vertex claude": VertexProvider(project="p", base_url=url, api_key="k"),
    }


def call(url: str, inbound: str, upstream: str, case: Case, *, stream: bool) -> Answer:
    """Ask an endpoint in the format ``inbound`` whose provider speaks ``upstream``."""

    async def run() -> Answer:
        provider = {"up": providers(url)[upstream]}
        target = "up/claude-m" if upstream == "vertex claude" else "up/m"
        app = make_app(providers=provider, models={"m": Route(target=target)})
        try:
            client = INBOUND[inbound]
            return await ask(app, client.body(case, stream=stream), path=client.path(stream=stream))
        finally:
            await app.gateway.aclose()

    return asyncio.run(run())


def said(inbound: str, case: Case) -> Seen:
    """Return what the simulated model itself answers."""
    codec, client = codec_of(inbound), INBOUND[inbound]
    body = json.dumps(client.body(case, stream=True)).encode()
    request, source = codec.read_request(body, "m", stream=True)
    asked = Call(request=request, source=source, id="1", deadline=0.0)

    async def run() -> Seen:
        answer = joining.whole([chunk async for chunk in Simulated(QUICK).stream(asked)])
        assert answer.usage
        return Seen(
            text=answer.text,
            reasoning=answer.reasoning,
            tools=[(tool.name, json.loads(tool.arguments)) for tool in answer.tool_calls],
            finish=str(answer.finish),
            usage=(answer.usage.input, answer.usage.output),
        )

    return asyncio.run(run())


def possible(inbound: str) -> list[Case]:
    """Return the cases that a client of this format can ask for."""
    return [case for case in CASES if not (inbound == "openai_responses" and case.stop)]


PAIRS = [
    pytest.param(inbound, upstream, case, id=f"{inbound}-{upstream}-{case.name}")
    for inbound in INBOUND
    for upstream in FORMATS
    for case in possible(inbound)
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("inbound", "upstream", "case"), PAIRS)
def test_every_pair_says_what_the_model_says(
    simulator: str, inbound: str, upstream: str, case: Case, stream: bool
) -> None:
    """Text, reasoning, tool calls, finish and usage reach every client from every provider unchanged."""
    answer = call(simulator, inbound, upstream, case, stream=stream)
    if field := REFUSED.get((upstream, case.name)):
        if inbound.partition(".")[0] != upstream:
            assert answer.status == 400
            assert field in answer.body.decode()
        return
    assert answer.status == 200, answer.body
    client = INBOUND[inbound]
    seen = (client.stream if stream else client.whole)(answer.body)
    expected = said(inbound, case)
    if seen.finish == "stop":  # formats without a word for a stop sequence say that the answer ended
        expected.finish = expected.finish.replace("stop_sequence", "stop")
    assert msgspec.to_builtins(seen) == msgspec.to_builtins(expected)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3]], ids=lambda case: case.name)
@pytest.mark.parametrize(
    "upstream", ["azure", "azure responses", "bedrock openai", "vertex", "vertex claude"]
)
@pytest.mark.parametrize("inbound", INBOUND)
def test_clouds_that_serve_a_format_at_their_own_address(
    simulator: str, inbound: str, upstream: str, case: Case, stream: bool
) -> None:
    """The other providers speak one of these formats: text, a tool call and its result say the same."""
    answer = call(simulator, inbound, upstream, case, stream=stream)
    assert answer.status == 200, answer.body
    client = INBOUND[inbound]
    seen = (client.stream if stream else client.whole)(answer.body)
    assert msgspec.to_builtins(seen) == msgspec.to_builtins(said(inbound, case))
