"""Whatever fails, and whenever: each job ends once, and none is lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from jobs.world import TENANT, Fault, KilledError, World
from msgspec.structs import replace
from policies.models import END, say
from virtual_time import VirtualLoop

from firsttoken.errors import FirstTokenError, UnavailableError, UpstreamConnectError, UpstreamRefusedError
from firsttoken.jobs.job import Job

FAULTS = st.none() | st.builds(
    Fault,
    st.integers(1, 16),
    st.sampled_from(["kill", "freeze", "freeze", "error", "down"]),
    after=st.booleans(),
)
OUTCOMES = ["answer", "answer", "slow", "cut", "failed", "unavailable", "refused"]
NEXT = {
    "queued": {"queued", "running", "done", "failed", "cancelled", "expired"},
    "running": {"queued", "running", "done", "failed", "cancelled", "expired"},
}
MAX_JOBS = 3


class Deployment(RuleBasedStateMachine):
    """Submits, deliveries of the same message to several workers, crashes, outages, time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.world: Any = World(max_attempts=3, keep=1e6)
        self.known: dict[str, Job] = {}
        self.answers: dict[str, str] = {}
        self.workers: set[asyncio.Task[Any]] = set()

    def teardown(self) -> None:
        """In the end every job has an end, once nothing fails any more."""
        for _ in range(40):
            self.pass_time(700)
            self.deliver(limit=10, copies=1, fault=None, outcome="answer")
            self.every_step_is_allowed()
        assert all(job.is_final for job in self.known.values())
        assert all(job.notified for job in self.known.values() if job.webhook)
        self.runner.close()

    @rule(fault=FAULTS, webhook=st.booleans())
    def submit(self, fault: Fault | None, webhook: bool) -> None:
        if len(self.known) >= MAX_JOBS:
            return
        address = "https://example.com/hook" if webhook else ""
        try:
            job = self.runner.run(self.world.submit(fault, webhook=address))
        except (FirstTokenError, KilledError):
            return
        self.known[job.id] = job

    @rule(limit=st.integers(1, 3), copies=st.integers(1, 5), fault=FAULTS, outcome=st.sampled_from(OUTCOMES))
    def deliver(self, limit: int, copies: int, fault: Fault | None, outcome: str) -> None:
        async def begin() -> None:
            for number, delivery in enumerate((await self.world.receive(limit)) * copies):
                process = self.world.process(fault if number == 0 else None, self.script(outcome))
                self.workers.add(asyncio.ensure_future(process.answer(delivery)))
            await asyncio.sleep(0.1)

        self.runner.run(begin())
        self.reap()

    def reap(self) -> None:
        """Look at the workers that have ended: nothing but a fault may be raised."""
        ended = {worker for worker in self.workers if worker.done()}
        self.workers -= ended
        for worker in ended:
            error = worker.exception()
            assert error is None or isinstance(error, KilledError | FirstTokenError), error

    def script(self, outcome: str) -> list[Any]:
        self.world.texts = getattr(self.world, "texts", 0) + 1
        text = f"<{self.world.texts}>"
        return {
            "answer": [say(text), 1.0, say(text), END],
            "slow": [say(text), 100.0, say(text), END],
            "cut": [say(text), 1.0, UpstreamConnectError("cut")],
            "failed": [UpstreamConnectError("no")],
            "unavailable": [UnavailableError("open", retry_after=5.0)],
            "refused": [UpstreamRefusedError("no")],
        }[outcome]

    @rule(which=st.integers(0, MAX_JOBS - 1), fault=FAULTS)
    def cancel(self, which: int, fault: Fault | None) -> None:
        for name in list(self.known)[which : which + 1]:
            jobs = self.world.process(fault).jobs
            self.attempt(jobs.cancel(TENANT, name))

    @rule(which=st.integers(0, MAX_JOBS - 1), fault=FAULTS)
    def look(self, which: int, fault: Fault | None) -> None:
        """Whoever asks for a job whose time is over ends it."""
        for name in list(self.known)[which : which + 1]:
            self.attempt(self.world.process(fault).jobs.get(TENANT, name))

    @rule(seconds=st.sampled_from([1, 10, 31, 61, 61, 110, 300, 1800]))
    def pass_time(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))
        self.reap()

    @rule()
    def redrive(self) -> None:
        self.runner.run(self.world.queue.redrive(10))

    def attempt(self, work: Any) -> None:
        with suppress(FirstTokenError, KilledError):
            self.runner.run(work)

    @invariant()
    def every_step_is_allowed(self) -> None:
        for name, before in self.known.items():
            job = self.runner.run(self.world.find(name))
            assert job is not None
            assert job.state in NEXT.get(before.state, {before.state})
            assert job.epoch >= before.epoch
            if before.is_final:
                assert replace(job, notified="", notices=0) == replace(before, notified="", notices=0)
            self.known[name] = job

    @invariant()
    def an_answer_is_one_answer_for_ever(self) -> None:
        for job in self.known.values():
            if job.state == "done":
                text = self.runner.run(self.world.text(job))
                assert text is not None
                half = text[: len(text) // 2]
                assert text == 2 * half
                assert self.answers.setdefault(job.id, text) == text

    @invariant()
    def nothing_is_lost(self) -> None:
        for job in self.known.values():
            if not job.is_final:
                assert any("kind" not in m or m["kind"] == "answer" for m in self.world.messages(job.id))
            elif job.webhook and not job.notified:
                assert self.world.messages(job.id)
            # Who dies between the call and the note of it leaves a second call to another one.
            assert self.world.posts[job.id] <= 1


def test_whatever_fails_each_job_ends_once_and_none_is_lost() -> None:
    """Any order of submits, copies of messages, crashes between two steps, outages, and time that passes."""
    run_state_machine_as_test(
        Deployment, settings=budget(max_examples=300, stateful_step_count=25, deadline=None)
    )
