"""Liveness, readiness and the status report, as a load balancer, a program and a person see them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from support import Answer, ask, chat, make_app

from firsttoken.settings import Alerts, Auth, Breaker, Route, Rung, SimulatedProvider

BREAKER = Breaker(consecutive=2)
GOOD = SimulatedProvider(profile="ttft_ms=0,itl_ms=0,tokens=2")
BAD = SimulatedProvider(profile="ttft_ms=0,fault=status,status=503")


def two_regions(east: SimulatedProvider, west: SimulatedProvider, **sections: Any) -> Any:
    """An application whose model has a target in each of two regions, and the ladder below them."""
    route = Route(targets=["east/m", "west/m"], degrade=[Rung(text="Busy.", name="busy")])
    models = {"m": route, "other": Route(target="west/x")}
    providers = {"east": east, "west": west}
    return make_app(**{"providers": providers, "models": models, "breaker": BREAKER, **sections})


async def seen(app: Any, path: str, calls: int = 0, **options: Any) -> Answer:
    """Make some calls and then ask ``path``."""
    for _ in range(calls):
        for model in ("m", "other"):
            await ask(app, {**chat(), "model": model})
    return await ask(app, method="GET", path=path, **options)


@pytest.mark.parametrize(
    ("east", "west", "status", "word"),
    [
        (GOOD, GOOD, 200, "ready"),
        (BAD, GOOD, 200, "ready"),
        (GOOD, BAD, 200, "degraded"),
        (BAD, BAD, 503, "unavailable"),
    ],
)
def test_readiness_follows_the_breakers(
    east: SimulatedProvider, west: SimulatedProvider, status: int, word: str
) -> None:
    """A model is there while one of its targets is called; without any model traffic goes elsewhere."""
    answer = asyncio.run(seen(two_regions(east, west), "/readyz", calls=3))
    assert (answer.status, answer.json()) == (status, {"status": word})


def test_liveness_depends_on_nothing() -> None:
    """A process whose targets are all down lives: to start it anew would not help."""
    assert asyncio.run(seen(two_regions(BAD, BAD), "/healthz", calls=3)).json() == {"status": "ok"}


def test_the_report_names_what_is_down() -> None:
    """Routes, targets, breakers, limits, the store, and which thresholds are passed."""
    report = asyncio.run(seen(two_regions(BAD, GOOD), "/v1/status", calls=3)).json()
    assert report["routes"]["m"] == {
        "available": ["west/m"],
        "targets": ["east/m", "west/m"],
        "rungs": ["busy"],
    }
    east, west = report["targets"]["east/m"], report["targets"]["west/m"]
    assert (east["breaker"]["state"], east["breaker"]["error"]) == ("open", "upstream_error")
    assert (east["calls"], east["failures"], east["error_rate"]) == (2, 2, 1.0)
    assert (west["breaker"]["state"], west["calls"], west["failures"]) == ("closed", 3, 0)
    assert report["store"] == {"kind": "memory", "shared": False, "down": False, "failures": 0, "error": ""}
    assert [(row["alert"], row["what"]) for row in report["alerts"]] == [("open_breakers", "east/m")]


def test_alert_thresholds_are_configured() -> None:
    """Each has its setting; what is below it is no alert."""

    async def alerts(**limits: Any) -> list[str]:
        app = two_regions(BAD, GOOD, alerts=Alerts(**limits), breaker=Breaker(consecutive=1000))
        app.gateway.targets["west/m"].stats.began(2.0)
        return [row["alert"] for row in (await seen(app, "/v1/status", calls=20)).json()["alerts"]]

    assert asyncio.run(alerts()) == ["error_rate"]
    assert asyncio.run(alerts(error_rate=1)) == []
    assert asyncio.run(alerts(error_rate=1, ttft_p95=1)) == ["ttft_p95"]


def test_a_store_that_is_down_is_an_alert() -> None:
    """It harms no call, and is told."""

    async def report() -> Any:
        app = two_regions(GOOD, GOOD)
        app.gateway.store.down = True
        return (await seen(app, "/v1/status")).json()

    told = asyncio.run(report())
    assert told["store"]["down"] is True
    assert [row["alert"] for row in told["alerts"]] == ["store_down"]


def test_the_report_asks_for_a_key_where_the_api_does() -> None:
    """Load balancers ask without one."""
    app = make_app(deployed=True, auth=Auth(keys={"acme": ["0" * 64]}))
    assert asyncio.run(seen(app, "/v1/status")).status == 401
    assert asyncio.run(seen(app, "/readyz")).status == 200


@asynccontextmanager
async def served(app: Any) -> Any:
    """Serve ``app`` on a free port, beside the test."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task


def test_the_page_in_a_browser(tmp_path: Any) -> None:
    """A browser shows the same report as a page; names from the configuration are text, never markup."""
    chromium = shutil.which("chromium")
    assert chromium, "install it with: sudo apt-get install chromium"
    evil = "<img src=x onerror=document.title='bad'>"

    async def shown() -> str:
        app = two_regions(BAD, GOOD)
        app.gateway.settings.models[evil] = Route(target="west/m")
        await seen(app, "/v1/status", calls=3)
        async with served(app) as url:
            browser = await asyncio.create_subprocess_exec(
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
                *("--dump-dom", f"{url}/v1/status"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            async with asyncio.timeout(60):
                return (await browser.communicate())[0].decode()

    page = asyncio.run(shown())
    assert "<title>firsttoken status</title>" in page
    assert '<span class="bad">open for ' in page
    assert '<span class="warn">degraded</span>' in page
    assert "&lt;img src=x" in page
    assert "<img" not in page
