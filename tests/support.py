"""What several tests need: an in-process ASGI caller and a way to make settings."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.settings import (
    Auth,
    Breaker,
    Retry,
    Route,
    Server,
    Settings,
    SimulatedProvider,
    Throttle,
    Timeouts,
)
from firsttoken.telemetry.record import Record

CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """What an ASGI application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of the server-sent events: JSON values, and ``"[DONE]"``."""
        data = [e.removeprefix("data: ") for e in self.body.decode().split("\n\n") if e.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]

    def text(self) -> str:
        """The text of a streamed answer."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events()
            if event != "[DONE]"
            for choice in event.get("choices", ())
        )


def make_app(records: list[Record] | None = None, *, deployed: bool = False, **sections: Any) -> App:
    """Build an application with one fast simulated model named ``m`` whose faults a header may choose."""
    provider = SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0")
    defaults: dict[str, Any] = {
        "server": Server(log=False),
        "providers": {"simulated": provider},
        "models": {"m": Route(target="simulated/m")},
        # Faults come from a header here, call by call: none of them says anything of the target.
        "breaker": Breaker(enabled=False),
        "throttle": Throttle(enabled=False),
        "retry": Retry(attempts=1),
    }
    settings = Settings(**{**defaults, **sections})
    return App(Gateway(settings), deployed=deployed, log=records.append if records is not None else None)


async def ask(  # noqa: PLR0913 - each is one thing that a test varies
    app: Any,
    body: Any = None,
    *,
    method: str = "POST",
    path: str = CHAT,
    headers: dict[str, str] | None = None,
    leave: asyncio.Event | None = None,
    extensions: dict[str, Any] | None = None,
) -> Answer:
    """Send one request and collect the answer; ``leave`` makes the client go away when it is set."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    answer = Answer()
    inbox: list[dict[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if inbox:
            return inbox.pop()
        await (leave or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            answer.pieces.append(message.get("body", b""))
            answer.complete = not message.get("more_body", False)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "query_string": query.encode(),
        "extensions": extensions or {},
    }
    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return answer


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """Return the body of a chat completion for the model ``m``."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def simulate(spec: str) -> dict[str, str]:
    """Return the header that chooses a simulated fault."""
    return {"x-firsttoken-simulate": spec}


__all__ = ["CHAT", "Answer", "Auth", "Server", "Timeouts", "ask", "chat", "make_app", "simulate"]
