"""What becomes of messages, on a virtual clock: backoff, deadlines, dead letters, duplicates, flow."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from typing import Any

import pytest

from firsttoken.emulators.pubsub_push import FIRST_WINDOW, Headers, Post, Target, push
from firsttoken.emulators.pubsub_subscription import Faults, Message, Rules, Subscription
from tests.virtual_time import run

TARGET = Target("projects/p/subscriptions/sub", "projects/p/topics/top", "http://there")


def message(number: int = 0) -> Message:
    return Message(str(number), b"data", {}, "", 1_800_000_000.0)


def now() -> float:
    return asyncio.get_running_loop().time()


class Pushed:
    """A subscription that pushes to `post`, which notes the times and fails as often as told."""

    def __init__(self, rules: Rules, faults: Faults | None = None, *, failures: int = 0) -> None:
        self.dead: list[tuple[str, int]] = []
        self.state = Subscription(rules, faults or Faults(), self._bury)
        self.times: list[float] = []
        self.seen: Counter[bytes] = Counter()
        self.running = self.most = 0
        self._failures = failures

    def _bury(self, message: Message, attempts: int) -> bool:
        self.dead.append((message.id, attempts))
        return True

    async def post(self, _url: str, _headers: Headers, body: bytes, _seconds: float) -> int:
        self.times.append(now())
        self.seen[body] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.1)
        self.running -= 1
        return 500 if self.seen[body] <= self._failures else 204

    async def for_seconds(self, seconds: float, post: Post | None = None) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await push(self.state, TARGET, post or self.post)


def test_a_push_is_tried_again_with_exponential_backoff() -> None:
    """The delay doubles from the least to the longest, and success ends it."""

    async def main() -> Pushed:
        pushed = Pushed(Rules(backoff=(1, 5)), failures=5)
        pushed.state.add(message())
        await pushed.for_seconds(100)
        return pushed

    pushed = run(main())
    gaps = [later - sooner - 0.1 for sooner, later in zip(pushed.times, pushed.times[1:], strict=False)]
    assert gaps == pytest.approx([1, 2, 4, 5, 5])
    assert (pushed.state.backlog, pushed.state.outstanding) == (0, 0)


@pytest.mark.parametrize(("failures", "dead"), [(4, []), (5, [("0", 5)]), (99, [("0", 5)])])
def test_a_message_is_dead_after_its_last_attempt(failures: int, dead: list[tuple[str, int]]) -> None:
    """A dead letter leaves the subscription, with the number of its attempts."""

    async def main() -> Pushed:
        pushed = Pushed(Rules(backoff=(1, 5), max_attempts=5), failures=failures)
        pushed.state.add(message())
        await pushed.for_seconds(100)
        return pushed

    pushed = run(main())
    assert (pushed.dead, pushed.state.backlog) == (dead, 0)


def test_a_message_stays_while_dead_letters_cannot_be_kept() -> None:
    """Without the dead-letter topic delivery goes on: nothing is lost."""

    async def main() -> int:
        state = Subscription(Rules(max_attempts=5), Faults(), lambda _message, _attempts: False)
        state.add(message())
        for _ in range(20):
            (lease,) = state.take(1)
            state.fail(lease.ack_id)
        return lease.attempt

    assert run(main()) == 20


def test_a_pulled_message_comes_again_after_its_deadline() -> None:
    """Neither sooner, nor when it was acknowledged; more time may be asked for."""

    async def main() -> None:
        state = Subscription(Rules(ack_deadline=10), Faults(), lambda _message, _attempts: False)
        state.add(message())
        (first,) = state.take(9)
        await asyncio.sleep(9)
        state.extend(first.ack_id, 10)
        await asyncio.sleep(9)
        assert state.take(9) == []
        await state.wait()
        (second,) = state.take(9)
        assert (now(), second.attempt) == (19, 2)
        state.acknowledge(first.ack_id)
        assert state.backlog == 1, "the first receipt was void"
        state.acknowledge(second.ack_id)
        await asyncio.sleep(100)
        assert (state.take(9), state.backlog) == ([], 0)

    run(main())


def test_duplicates_come_once_more_even_after_their_acknowledgement() -> None:
    """Every message arrives; about the share arrives twice, the same ones for the same seed."""

    async def main(seed: int) -> Counter[bytes]:
        pushed = Pushed(Rules(), Faults(duplicates=0.3, reorder=0.3, seed=seed))
        order: list[str] = []

        async def post(_url: str, headers: Headers, body: bytes, _seconds: float) -> int:
            order.append(headers[0][1] + body.decode())
            pushed.seen[body] += 1
            return 200

        for number in range(200):
            pushed.state.add(Message(str(number), b"%03d" % number, {}, "", 1.0))
        await pushed.for_seconds(60, post)
        assert order != sorted(order)
        return pushed.seen

    first = run(main(1))
    assert len(first) == 200
    assert set(first.values()) == {1, 2}
    assert 30 <= sum(count == 2 for count in first.values()) <= 90
    assert first == run(main(1)) != run(main(2))


def test_a_failed_duplicate_counts_for_nothing() -> None:
    """A message that was acknowledged neither comes again nor dies by what became of its duplicate."""

    async def main() -> None:
        state = Subscription(Rules(max_attempts=5), Faults(duplicates=1.0), lambda _message, _attempts: True)
        state.add(message())
        (first,) = state.take(9)
        state.acknowledge(first.ack_id)
        await state.wait()
        (second,) = state.take(9)
        assert second.is_extra
        state.fail(second.ack_id)
        await asyncio.sleep(100)
        assert (state.take(9), state.backlog) == ([], 0)

    run(main())


def test_pushes_start_slowly_and_shrink_with_failures() -> None:
    """Few pushes are under way at first; successes widen the window, failures narrow it to one."""

    async def main(failures: int) -> list[int]:
        pushed = Pushed(Rules(backoff=(0, 0)), failures=failures)
        widths: Counter[float] = Counter()

        async def post(url: str, headers: Headers, body: bytes, seconds: float) -> int:
            widths[round(now(), 3)] += 1
            return await pushed.post(url, headers, body, seconds)

        for number in range(100):
            pushed.state.add(Message(str(number), b"%d" % number, {}, "", 1.0))
        await pushed.for_seconds(1 if failures == 0 else 0.55, post)
        return [widths[time] for time in sorted(widths)]

    widening = run(main(0))
    assert widening[0] == FIRST_WINDOW
    assert widening[1] > FIRST_WINDOW
    assert sum(widening) == 100
    assert run(main(99)) == [4, 1, 1, 1, 1, 1]


def test_a_push_that_is_stopped_gives_its_message_back() -> None:
    """What was under way when pushing ends is due again."""

    async def main() -> None:
        pushed = Pushed(Rules())

        async def post(*_: Any) -> int:
            await asyncio.sleep(inf)
            return 200

        pushed.state.add(message())
        await pushed.for_seconds(5, post)
        assert (pushed.state.outstanding, pushed.state.backlog) == (0, 1)
        assert len(pushed.state.take(9)) == 1

    run(main())
