"""A simulated provider on a socket, and endpoints whose targets it is, each in a wire format."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn
from support import Answer, ask, make_app, simulate
from wire.pairs import INBOUND, Case

from firsttoken.runtimes.local import DroppableProtocol
from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import (
    AnthropicProvider,
    BedrockProvider,
    GeminiProvider,
    OpenAIProvider,
    Route,
    SimulatedProvider,
    Timeouts,
)
from firsttoken.settings import Target as Known
from firsttoken.telemetry.record import Record

HEADER = ["x-firsttoken-simulate"]


@contextmanager
def serve(profile: str = "ttft_ms=0,itl_ms=0") -> Iterator[tuple[str, SimulatorApp]]:
    """Serve one simulated provider in a thread of its own."""
    app = SimulatorApp(SimulatedProvider(profile=profile))
    config = uvicorn.Config(app, port=0, http=DroppableProtocol, ws="none", log_level="error", lifespan="off")
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
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(10)


def provider(url: str, wire: str) -> Any:
    """A provider that speaks ``wire``."""
    match wire:
        case "openai_chat":
            return OpenAIProvider(base_url=f"{url}/v1")
        case "openai_responses":
            return OpenAIProvider(base_url=f"{url}/v1", api="responses")
        case "anthropic":
            return AnthropicProvider(base_url=url, api_key="k")
        case "gemini":
            return GeminiProvider(base_url=f"{url}/v1beta", api_key="k")
    return BedrockProvider(region="eu-central-1", base_url=url, api_key="k")


def endpoint(
    url: str, wires: Sequence[str], records: list[Record] | None = None, *, broken: int = 1, **options: Any
) -> Any:
    """An application with a route over targets that speak ``wires``; a header breaks the first ``broken``."""
    made = {f"p{place}": provider(url, wire) for place, wire in enumerate(wires)}
    for name in list(made)[:broken]:
        made[name] = msgspec.structs.replace(made[name], forward_headers=HEADER)
    names = [f"{name}/m" for name in made]
    continues = options.pop("continues", "auto")
    return make_app(
        records,
        providers=made,
        models={"m": Route(targets=names)},
        targets={name: Known(continues=continues) for name in names},
        timeouts=Timeouts(gap=options.pop("gap", 10.0)),
        **options,
    )


def converse(app: Any, inbound: str, case: Case, fault: str = "", **changes: Any) -> Answer:
    """Hold a streamed conversation with ``app`` in the format ``inbound``, and close it."""
    client = INBOUND[inbound]

    async def run() -> Answer:
        try:
            body = {**client.body(case, stream=True), **changes}
            return await ask(app, body, path=client.path(stream=True), headers=simulate(fault))
        finally:
            await app.gateway.aclose()

    return asyncio.run(run())
