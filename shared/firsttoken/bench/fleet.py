"""Everything that a scenario runs against: its targets, its store, the gateway, and how each is broken."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from firsttoken.bench.child import Redis, Server, Simulator
from firsttoken.bench.scenario import Fault, Scenario
from firsttoken.errors import ConfigError, FirstTokenError, UpstreamError
from firsttoken.providers.http import HttpClient, Timeouts

_QUICK = Timeouts(connect=0.5, first_byte=0.5, gap=0.5)
_PATHS = {"openai": "/v1", "azure": "/openai/v1", "gemini": "/v1beta"}
_REQUIRED: dict[str, dict[str, Any]] = {"vertex": {"project": "p"}, "bedrock": {"region": "any"}}


class State(msgspec.Struct):
    """What a target says of its calls, see docs/simulator.md."""

    requests: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    disconnected: int = 0


class StoreUnderTest(Protocol):
    """A store that a run can break."""

    def start(self) -> dict[str, Any]:
        """Start it and return the section ``[store]`` of the gateway's configuration."""

    def break_(self, how: str) -> None:
        """Make it unusable."""

    def mend(self) -> None:
        """Make it usable again."""

    def stop(self) -> None:
        """Stop it for good."""


class RedisStore:
    """A Redis server of the run's own."""

    def __init__(self) -> None:
        self._server = Redis("redis-server")

    def start(self) -> dict[str, Any]:
        """Start the server."""
        self._server.start()
        return {"kind": "redis", "url": f"redis://127.0.0.1:{self._server.port}/0"}

    def break_(self, _how: str) -> None:
        """Kill the server."""
        self._server.kill()

    def mend(self) -> None:
        """Start it again, on the same port, empty."""
        self._server.start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()


class SqliteStore:
    """A file of the run's own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="firsttoken-store-")
        self._path = Path(self._folder.name) / "store.db"
        self._lock: sqlite3.Connection | None = None

    def start(self) -> dict[str, Any]:
        """Name the file; the gateway makes it."""
        return {"kind": "sqlite", "path": str(self._path)}

    def break_(self, how: str) -> None:
        """Lock the file for everybody else, or remove it with its directory."""
        if how == "lock":
            self._lock = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._lock.execute("BEGIN EXCLUSIVE")
            return
        for path in self._path.parent.iterdir():
            path.unlink()
        self._path.parent.rmdir()

    def mend(self) -> None:
        """Give the lock back, or make the directory again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._path.parent.mkdir(exist_ok=True)

    def stop(self) -> None:
        """Remove the file."""
        self.mend()
        self._folder.cleanup()


class Fleet:
    """The processes of one run, as an async context manager; with ``url`` the gateway is somebody else's."""

    def __init__(self, scenario: Scenario, url: str = "", store: StoreUnderTest | None = None) -> None:
        self._scenario = scenario
        self.url = url
        self.targets = list(scenario.targets)
        self.simulators = {
            name: Simulator(name, target.profile)
            for name, target in scenario.targets.items()
            if not target.control
        }
        self._controls = {name: target.control for name, target in scenario.targets.items() if target.control}
        self._gateway: Server | None = None
        self._store = store or _store(scenario)
        self._client = HttpClient()
        self._files = ExitStack()
        if url and self.simulators:
            raise ConfigError(
                f"{scenario.name}: targets.{next(iter(self.simulators))}.control: expected the address of"
                " the simulator, since --url names a gateway that runs already"
            )

    async def __aenter__(self) -> Self:
        """Start everything."""
        try:
            await asyncio.to_thread(self._start)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self._stop()

    async def state(self, target: str) -> State | None:
        """Return what a target says of its calls, or None when it does not answer within half a second."""
        with suppress(FirstTokenError):
            answer = await self._control("GET", target, "/simulator/state")
            return msgspec.json.decode(answer, type=State)
        return None

    async def begin(self, fault: Fault) -> None:
        """Break what the fault names."""
        if self._store is not None and fault.store:
            await asyncio.to_thread(self._store.break_, fault.store)
        elif fault.kind == "kill":
            await asyncio.to_thread(self._simulator(fault).kill)
        elif fault.kind == "freeze":
            self._simulator(fault).freeze()
        else:
            await self._control("PUT", fault.target, "/simulator/profile", fault.profile)

    async def end(self, fault: Fault) -> None:
        """Mend it again."""
        if self._store is not None and fault.store:
            await asyncio.to_thread(self._store.mend)
        elif fault.kind == "kill":
            await asyncio.to_thread(self._simulator(fault).start)
        elif fault.kind == "freeze":
            self._simulator(fault).thaw()
        else:
            await self._control("PUT", fault.target, "/simulator/profile")

    def log(self) -> bytes | None:
        """Return the gateway's log, one JSON line a call; None of a gateway that is not ours."""
        return self._gateway.written() if self._gateway is not None else None

    def _simulator(self, fault: Fault) -> Simulator:
        if fault.target not in self.simulators:
            raise ConfigError(
                f"{self._scenario.name}: fault of {fault.target}: expected a profile; {fault.kind} needs a"
                " target that the run has started"
            )
        return self.simulators[fault.target]

    async def _control(self, method: str, target: str, path: str, body: str = "") -> bytes:
        url = self._controls.get(target) or self.simulators[target].url
        response = await self._client.request(method, url + path, body=body.encode(), timeouts=_QUICK)
        answer = await response.read(65536)
        if response.status != 200:
            raise UpstreamError(f"{target} answers {response.status} at {path}.")
        return answer

    def _start(self) -> None:
        for simulator in self.simulators.values():
            simulator.start()
        section = self._store.start() if self._store is not None else None
        if self.url:
            return
        urls = {name: simulator.url for name, simulator in self.simulators.items()} | self._controls
        folder = self._files.enter_context(tempfile.TemporaryDirectory(prefix="firsttoken-chaos-"))
        path = Path(folder) / "firsttoken.toml"
        path.write_text(toml(configuration(self._scenario, urls, section)), "utf-8")
        self._gateway = Server(path)
        self._gateway.start()
        self.url = self._gateway.url

    async def _stop(self) -> None:
        await self._client.aclose()
        for child in (self._gateway, *self.simulators.values(), self._store):
            if child is not None:
                child.stop()
        self._files.close()


def configuration(
    scenario: Scenario, urls: Mapping[str, str], store: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the gateway's configuration: the scenario's part of it over one route to all targets."""
    providers = scenario.gateway.get("providers", {})
    tree: dict[str, Any] = {
        "auth": {"mode": "off"},
        "providers": {name: _provider(providers.get(name, {}), url) for name, url in urls.items()},
        "models": {scenario.model: {}},
    }
    if store is not None:
        tree["store"] = store
    tree = merged(tree, scenario.gateway)
    for route in tree["models"].values():
        if not route.get("target"):
            route.setdefault("targets", [f"{name}/simulated" for name in urls])
    return tree


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with ``over`` laid over it, table by table."""
    result = dict(tree)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def toml(tree: Mapping[str, Any]) -> str:
    """Return a tree as TOML: a line for each key at its top, tables inside them inline."""
    return "".join(f"{_toml_value(key)} = {_toml_value(value)}\n" for key, value in tree.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_toml_value(key)} = {_toml_value(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return msgspec.json.encode(value).decode()  # texts, numbers and truth are written as in JSON


def _provider(given: Mapping[str, Any], url: str) -> dict[str, Any]:
    kind = given.get("kind", "openai")
    required = _REQUIRED.get(kind, {})
    return {"kind": kind, "base_url": url + _PATHS.get(kind, ""), "api_key": "any", **required}


def _store(scenario: Scenario) -> StoreUnderTest | None:
    if scenario.store is None:
        return None
    return RedisStore() if scenario.store.kind == "redis" else SqliteStore()


async def until_idle(fleet: Fleet, seconds: float) -> float | None:
    """Return after how many seconds no target has a call in progress; None when that takes too long.

    A target that does not answer counts as busy.
    """
    start = time.monotonic()
    while (waited := time.monotonic() - start) < seconds:
        states = [await fleet.state(name) for name in fleet.targets]
        if all(state is not None and state.active == 0 for state in states):
            return waited
        await asyncio.sleep(0.05)
    return None
