"""What every queue does alike; the kinds come from the files ``kinds_*.py``."""

from __future__ import annotations

import asyncio
import time

import pytest

from firsttoken.errors import QueueError
from firsttoken.queues import Queue
from tests.queues.conftest import Subject

BODIES = [
    b"{}",
    b'{"id":"job_0","tenant":"acme"}',
    ' {"text": "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n \N{GRINNING FACE}"}\t\r\n'.encode(),
    b"<not & json> \"quoted\" 'too' %41 + \\ \\u0000",
]
BODY = b'{"id":"job_1","tenant":"acme"}'


@pytest.mark.parametrize("body", BODIES)
def test_a_message_comes_out_as_it_went_in(pulling: Subject, body: bytes) -> None:
    """A queue keeps every byte of a text, and counts the first delivery as one."""

    async def main() -> None:
        await pulling.queue.send(body)
        (delivery,) = await pulling.take(1)
        assert (delivery.body, delivery.count) == (body, 1)
        assert type(delivery.body) is bytes
        assert delivery.id

    pulling.run(main())


def test_a_body_has_a_limit(subject: Subject) -> None:
    """A body of ``max_body_bytes`` is taken; one byte more is a ValueError, and sends nothing."""

    async def main() -> None:
        queue = subject.queue
        whole = b"x" * queue.max_body_bytes
        await queue.send(whole)
        with pytest.raises(ValueError, match=str(queue.max_body_bytes)):
            await queue.send(whole + b"x")
        if queue.pulls:
            assert [delivery.body for delivery in await subject.take(1)] == [whole]
            assert await subject.receive() == []

    subject.run(main())


def test_an_empty_queue_answers_at_once(pulling: Subject) -> None:
    """Who does not want to wait gets nothing when there is nothing."""
    assert pulling.run(pulling.receive()) == []


def test_no_more_than_asked_for(pulling: Subject) -> None:
    """A receive gives up to its limit, and each message is handed out once while it is hidden."""

    async def main() -> None:
        sent = [b"%d" % number for number in range(7)]
        for body in sent:
            await pulling.queue.send(body)
        first = await pulling.receive(3)
        assert 1 <= len(first) <= 3
        rest = await pulling.take(7 - len(first))
        assert sorted(delivery.body for delivery in [*first, *rest]) == sent
        assert len({delivery.id for delivery in [*first, *rest]}) == 7
        assert await pulling.receive() == []

    pulling.run(main())


def test_two_workers_share_the_messages(pulling: Subject) -> None:
    """Receives at the same time never give one message to both."""

    async def main() -> None:
        for number in range(12):
            await pulling.queue.send(b"%d" % number)
        halves = await asyncio.gather(pulling.take(6), pulling.take(6))
        assert len({delivery.body for half in halves for delivery in half}) == 12

    pulling.run(main())


def test_a_message_that_is_not_finished_comes_again(pulling: Subject) -> None:
    """It is hidden for the time asked for and no longer; the next delivery counts one more."""

    async def main() -> None:
        await pulling.queue.send(BODY)
        (first,) = await pulling.take(1, hidden=2)
        assert await pulling.receive() == []
        await pulling.later(2)
        (second,) = await pulling.take(1)
        assert (second.body, second.id) == (BODY, first.id)
        assert (first.count, second.count) == (1, 2)

    pulling.run(main())


def test_a_finished_message_is_gone(pulling: Subject) -> None:
    """What is done does not come again; saying so twice is no error."""

    async def main() -> None:
        await pulling.queue.send(BODY)
        (delivery,) = await pulling.take(1, hidden=2)
        await pulling.queue.done(delivery)
        await pulling.queue.done(delivery)
        await pulling.later(2)
        assert await pulling.receive() == []

    pulling.run(main())


def test_a_sign_of_life_keeps_a_message_hidden(pulling: Subject) -> None:
    """The time counts from the sign of life on."""

    async def main() -> None:
        await pulling.queue.send(BODY)
        (delivery,) = await pulling.take(1, hidden=2)
        assert await pulling.queue.extend(delivery, 60)
        await pulling.later(2)
        assert await pulling.receive() == []
        await pulling.queue.done(delivery)

    pulling.run(main())


def test_a_message_that_is_gone_cannot_be_kept(pulling: Subject) -> None:
    """A sign of life for a message that was finished says that it is not ours any more."""

    async def main() -> None:
        await pulling.queue.send(BODY)
        (delivery,) = await pulling.take(1)
        await pulling.queue.done(delivery)
        assert not await pulling.queue.extend(delivery, 60)

    pulling.run(main())


def test_a_delayed_message_comes_later(pulling: Subject) -> None:
    """A delay is kept, where the queue keeps delays."""

    async def main() -> None:
        await pulling.queue.send(BODY, 2)
        assert await pulling.receive() == []
        await pulling.later(2)
        assert [delivery.body for delivery in await pulling.take(1)] == [BODY]

    pulling.run(main())


def test_too_long_a_delay_is_cut(subject: Subject) -> None:
    """A delay beyond ``max_delay`` is no error."""
    subject.run(subject.queue.send(BODY, subject.queue.max_delay + 10_000))


def test_a_waiting_worker_is_woken(pulling: Subject) -> None:
    """Who waits gets a message that is sent meanwhile, long before the wait is over."""

    async def main() -> None:
        waiting = asyncio.create_task(pulling.receive(wait=20))
        await asyncio.sleep(0)
        await pulling.queue.send(BODY)
        assert [delivery.body for delivery in await asyncio.wait_for(waiting, 10)] == [BODY]

    pulling.run(main())


def test_dead_letters_say_why(subject: Subject) -> None:
    """A buried message is kept with its reason and time, and looking does not remove it."""

    async def main() -> None:
        before = time.time()
        await subject.queue.bury(BODY, "It cannot be answered: gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n.")
        for _ in range(2):
            (dead,) = await subject.queue.dead(10)
            assert dead.body == BODY
            assert dead.reason == "It cannot be answered: gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n."
            assert dead.id
            assert dead.at == 0 or abs(dead.at - before) < 3600
        assert subject.queue.pulls is False or await subject.receive() == []

    subject.run(main())


def test_any_reason_is_taken(subject: Subject) -> None:
    """A reason may be long, and hold any character: it is cut or written otherwise, and nothing is lost."""

    async def main() -> None:
        await subject.queue.bury(BODY, "Why:\r\n\t\x00\x1f\ud800 " + "\N{GRINNING FACE}x" * 30_000)
        (dead,) = await subject.queue.dead(10)
        assert dead.body == BODY
        assert dead.reason.startswith("Why:")

    subject.run(main())


def test_a_poisoned_body_can_be_buried(subject: Subject) -> None:
    """What is no text is kept too, if need be written otherwise."""

    async def main() -> None:
        await subject.queue.bury(b"\xff\x00poison", "It is no text.")
        (dead,) = await subject.queue.dead(10)
        assert b"poison" in dead.body

    subject.run(main())


def test_dead_letters_are_sent_again(pulling: Subject) -> None:
    """A redrive sends up to its limit again, says how many, and leaves the others where they are."""

    async def main() -> None:
        bodies = [b"%d" % number for number in range(5)]
        for body in bodies:
            await pulling.queue.bury(body, "no")
        assert await pulling.queue.redrive(2) == 2
        assert len(await pulling.queue.dead(10)) == 3
        assert await pulling.queue.redrive(10) == 3
        assert await pulling.queue.dead(10) == []
        assert await pulling.queue.redrive(10) == 0
        again = await pulling.take(5)
        assert sorted(delivery.body for delivery in again) == bodies
        assert {delivery.count for delivery in again} == {1}

    pulling.run(main())


def test_dead_letters_are_deleted(subject: Subject) -> None:
    """A purge deletes up to its limit for good, and says how many."""

    async def main() -> None:
        for number in range(3):
            await subject.queue.bury(b"%d" % number, "no")
        assert len(await subject.queue.dead(2)) == 2
        assert await subject.queue.purge_dead(2) == 2
        assert len(await subject.queue.dead(10)) == 1
        assert await subject.queue.purge_dead(10) == 1
        assert await subject.queue.purge_dead(10) == 0
        assert await subject.queue.dead(10) == []

    subject.run(main())


def test_a_message_handed_out_too_often_is_given_up(limiting: Subject) -> None:
    """After ``max_deliveries`` it becomes a dead letter that says how often it was handed out."""
    most = limiting.kind.max_deliveries
    assert most is not None

    async def main() -> None:
        await limiting.queue.send(BODY)
        for count in range(1, most + 1):
            (delivery,) = await limiting.take(1, hidden=1)
            assert delivery.count == count
            await limiting.later(1)
        assert await limiting.receive() == []
        (dead,) = await limiting.queue.dead(10)
        assert (dead.body, dead.reason) == (BODY, f"handed out {most} times")

    limiting.run(main())


def test_depth_counts_messages(pulling: Subject) -> None:
    """What a queue can count, it counts right."""

    async def main() -> None:
        queue = pulling.queue
        for number in range(4):
            await queue.send(b"%d" % number)
        if queue.max_delay:
            await queue.send(BODY, min(60, queue.max_delay))
        await queue.bury(BODY, "no")
        await pulling.take(1)
        depth = await queue.depth()
        expected = (3, 1 if queue.max_delay else 0, 1, 1)
        found = (depth.waiting, depth.delayed, depth.running, depth.dead)
        if pulling.opened.exact_depth:
            assert found == expected
        else:
            assert all(is_ in (None, wanted) for is_, wanted in zip(found, expected, strict=True))

    pulling.run(main())


def test_a_closed_queue_opens_again(pulling: Subject) -> None:
    """What was sent is still there after the connections were closed, and closing twice is no error."""

    async def main() -> None:
        await pulling.queue.send(BODY)
        await pulling.queue.aclose()
        await pulling.queue.aclose()
        assert [delivery.body for delivery in await pulling.take(1)] == [BODY]

    pulling.run(main())


def test_a_queue_that_is_away_is_a_queue_error(away: Queue) -> None:
    """Where the service cannot be had every method says so by a QueueError, and by nothing else."""

    async def main() -> None:
        queue = away
        calls = [
            queue.send(BODY),
            queue.bury(BODY, "no"),
            queue.dead(1),
            queue.redrive(1),
            queue.purge_dead(1),
            *([queue.receive(1, 60, 0)] if queue.pulls else []),
        ]
        for call in calls:
            with pytest.raises(QueueError) as caught:
                await call
            assert "127.0.0.1" not in str(caught.value)
        await queue.aclose()

    asyncio.run(main())
