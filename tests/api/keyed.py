"""Instances that share a store, and clients that send idempotency keys."""

from __future__ import annotations

from typing import Any

from policies.models import END, Scripted, say
from support import Answer, ask, chat, make_app

from firsttoken.app import App
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import MemoryStore as StoreSettings
from firsttoken.stores.memory import MemoryStore
from firsttoken.telemetry.record import Record

SLOW = (*[step for number in range(8) for step in (1.0, say(f"{number} "))], END)
"""An answer of eight seconds."""
WHOLE = "0 1 2 3 4 5 6 7 "


class DownStore(MemoryStore):
    """A store whose operations named in ``down`` fail; the others work."""

    def __init__(self, *down: str) -> None:
        super().__init__(StoreSettings())
        self.down = set(down)

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "get_many", "put", "swap", "delete") and name in self.down:
            return self._fail
        return super().__getattribute__(name)

    async def _fail(self, *_: Any) -> Any:
        raise StoreError("The store cannot be had.")


def store() -> MemoryStore:
    return MemoryStore(StoreSettings())


def instance(
    model: Scripted, store: MemoryStore, records: list[Record] | None = None, **sections: Any
) -> App:
    """Build an instance whose model is ``model`` and that shares ``store`` with others."""
    app = make_app(records, **sections)
    app.gateway.routes["m"] = model
    app.gateway.store = store
    app.gateway.shadow = Shadow()
    return app


async def send(app: App, body: Any = None, key: str = "k", **options: Any) -> Answer:
    """Send a streamed request with a key, and wait as a runtime does until the answer is kept."""
    headers = {**options.pop("headers", {}), "idempotency-key": key}
    answer = await ask(app, chat(stream=True) if body is None else body, headers=headers, **options)
    await app.gateway.shadow.settle(1)
    return answer


def same(*answers: Answer) -> bool:
    """Return whether answers are the same byte by byte, and whole."""
    told = {
        (answer.status, answer.headers["content-type"], answer.body, answer.complete) for answer in answers
    }
    return len(told) == 1 and answers[0].complete
