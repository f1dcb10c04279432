"""A deployment in virtual time: one store, one queue, and processes that can be made to fail at any step."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from policies.models import END, Step, say
from virtual_time import wall

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.errors import FirstTokenError, QueueError, StoreError, UnavailableError
from firsttoken.jobs.job import Job
from firsttoken.jobs.jobs import Jobs
from firsttoken.jobs.webhook import Delivered
from firsttoken.model import Call, Chunk, Later, Source
from firsttoken.objects.store import ObjectsInStore
from firsttoken.policies.shadow import Shadow
from firsttoken.queues.memory import MemoryQueue
from firsttoken.queues.queue import Delivery
from firsttoken.settings import Jobs as JobSettings
from firsttoken.settings import MemoryQueue as QueueSettings
from firsttoken.settings import MemoryStore as StoreSettings
from firsttoken.settings import Settings, Timeouts
from firsttoken.stores.memory import MemoryStore
from firsttoken.telemetry.record import Attempt
from firsttoken.worker import answer_message

TENANT = "acme"
FROZEN = 200.0
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


class KilledError(BaseException):
    """The process is gone: nothing of it runs on."""


class Fault:
    """What happens at the ``at``-th operation of a process.

    It is killed (``kill``), the operation fails (``error``) or all do from then on (``down``), or the process
    is frozen for longer than any lease (``freeze``). ``after``: the operation is done all the same, first.
    """

    def __init__(self, at: int, what: str, *, after: bool = False) -> None:
        self.at, self.what, self.after = at, what, after
        self.seen = 0

    def __repr__(self) -> str:
        return f"Fault({self.at}, {self.what!r}, after={self.after})"

    async def around(self, work: Callable[[], Any], error: type[FirstTokenError]) -> Any:
        await asyncio.sleep(0)
        self.seen += 1
        if self.seen < self.at or (self.seen > self.at and self.what in ("error", "freeze")):
            return await work()
        if self.what == "freeze":
            return await self._frozen(work)
        if self.after and self.seen == self.at:
            await work()
        raise KilledError if self.what == "kill" else error("down")

    async def _frozen(self, work: Callable[[], Any]) -> Any:
        if not self.after:
            await asyncio.sleep(FROZEN)
        done = await work()
        if self.after:
            await asyncio.sleep(FROZEN)
        return done


class Faulty:
    """A store or a queue as one process sees it."""

    def __init__(self, inner: Any, fault: Fault, error: type[FirstTokenError]) -> None:
        self._inner, self._fault, self._error = inner, fault, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def operation(*args: Any, **named: Any) -> Any:
            return await self._fault.around(lambda: found(*args, **named), self._error)

        return operation


class Process:
    """What the worker needs of a gateway. ``script`` is what its model does."""

    def __init__(self, world: World, fault: Fault | None = None, script: Any = None) -> None:
        self.counts = fault is None
        fault = fault or Fault(10**9, "error")
        self.world = world
        self.settings = world.settings
        self.store = Faulty(world.store, fault, StoreError)
        self.queue = Faulty(world.queue, fault, QueueError)
        objects = world.objects or ObjectsInStore(self.store)  # type: ignore[arg-type]
        self.jobs = Jobs(world.settings, self.store, self.queue, objects, wall=wall)  # type: ignore[arg-type]
        self.script = script
        self.board = self.pace = self.webhooks = self
        self.shadow = Shadow()
        self.unavailable: float | None = None
        self.permits: list[float] = []
        self.calls: list[Call] = []
        self.stopped = 0

    async def deliver(self, job: Job) -> Delivered:
        """Take a webhook; those of processes that nothing befalls are counted."""
        self.world.posts[job.id] += self.counts
        await asyncio.sleep(0.5)
        return Delivered(ok=True)

    async def read(self) -> None:
        raise StoreError("not shared")

    async def wait_time(self, _model: str) -> float:
        return self.permits.pop(0) if self.permits else 0.0

    def wait_for(self, _model: str) -> float | None:
        return self.unavailable

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        self.calls.append(call)
        self.world.calls += 1
        steps = self.script or [say(f"answer {self.world.calls}"), END]
        if not isinstance(steps[0], UnavailableError):
            call.record.attempts.append(Attempt(target="p/m"))
            call.record.target = "p/m"
        whole = False
        try:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, Chunk):
                    yield step
                else:
                    await asyncio.sleep(step)
            whole = True
        finally:
            self.stopped += not whole

    async def answer(self, delivery: Delivery | bytes, **named: Any) -> dict[str, Any]:
        """Handle a delivery and acknowledge it, as a platform does where no error is raised."""
        body = delivery if isinstance(delivery, bytes) else delivery.body
        row = await answer_message(self, body, **named)  # type: ignore[arg-type]
        if not isinstance(delivery, bytes):
            await self.queue.done(delivery)
        return row


class World:
    """One store and one queue, in virtual time."""

    def __init__(self, objects: Any = None, **jobs: Any) -> None:
        self.posts: Counter[str] = Counter()
        self.settings = Settings(
            providers={},
            models={},
            queue=QueueSettings(),
            jobs=JobSettings(**{"lease": 30.0, "expires": 3600.0, **jobs}),
            timeouts=Timeouts(total=300.0),
        )
        self.store = MemoryStore(StoreSettings())
        self.queue = MemoryQueue(QueueSettings())
        self.objects = objects
        self.calls = 0
        """Of the model, by all processes."""

    def process(self, fault: Fault | None = None, script: Sequence[Step] | None = None) -> Process:
        return Process(self, fault, script)

    async def submit(self, fault: Fault | None = None, **later: Any) -> Job:
        request = ChatRequest(model="m", messages=(Message("user", (Text("hi"),)),), stream=True)
        call = Call(request, Source("openai-chat", json.dumps(BODY).encode()), "req", 1e9, tenant=TENANT)
        return await self.process(fault).jobs.submit(call, Later(asked=True, **later))

    async def receive(self, limit: int = 1, hidden: float = 60.0, wait: float = 0.0) -> list[Delivery]:
        return list(await self.queue.receive(limit, hidden, wait))

    async def find(self, name: str) -> Job | None:
        return await self.process().jobs.find(TENANT, name)

    async def text(self, job: Job) -> str | None:
        chunks = await self.process().jobs.answer(job)
        return None if chunks is None else "".join([chunk.text for chunk in chunks])

    def messages(self, name: str) -> list[dict[str, Any]]:
        """Return the messages about a job, handed out or not."""
        bodies = [json.loads(message.body) for message in self.queue._messages.values()]
        return [body for body in bodies if body["id"] == name]
