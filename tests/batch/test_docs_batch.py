"""The example of docs/batch.md, run as it stands against an endpoint that ticks."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import uvicorn

from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.settings import Batch, Route, SimulatedProvider
from firsttoken.worker.batches import tick_until
from tests.batch.batching import settings_of

PAGE = Path(__file__).parents[2] / "docs" / "batch.md"


class _TickingApp(App):
    """An application that ticks while it is served, as `firsttoken serve` does."""

    async def _lifespan(self, receive: Any, send: Any) -> None:
        stop = asyncio.Event()
        ticks = asyncio.get_running_loop().create_task(tick_until(self.gateway, stop))
        try:
            await super()._lifespan(receive, send)
        finally:
            stop.set()
            await ticks


def test_the_example() -> None:
    """The official SDK gets all answers of the documented example."""
    settings = settings_of(
        providers={"simulated": SimulatedProvider(profile="ttft_ms=0,itl_ms=0")},
        models={"simulated": Route(target="simulated/m")},
        batch=Batch(poll_seconds=0.05),
    )
    app = _TickingApp(Gateway(settings), deployed=False)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    ready = threading.Event()
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = start
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(10)
        port = server.servers[0].sockets[0].getsockname()[1]
        code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
        code = code.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace(
            "time.sleep(1)", "time.sleep(0.02)"
        )
        names: dict[str, Any] = {}
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - it is our own page
        names["client"].close()
        assert names["batch"].status == "completed"
        assert "sky" in names["answers"]["question-0"]
        assert "sea" in names["answers"]["question-1"]
    finally:
        server.should_exit = True
        thread.join(10)


def test_every_setting_is_documented() -> None:
    """The page names each setting with its default."""
    text = PAGE.read_text()
    for name, default in zip(Batch.__struct_fields__, Batch.__struct_defaults__, strict=True):
        if name not in ("providers", "bedrock"):
            shown = f"{default:g}" if default < 1e6 else f"{default:.0f}"
            assert re.search(rf"^{name} = {shown}\b", text, re.MULTILINE), name
