"""An SQS standard queue, and a second one beside it for the dead letters.

SQS itself moves a message to the dead letters that was received more often than the queue's redrive policy
allows; those that a worker gave up are sent there with the reason as a message attribute.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from firsttoken.errors import QueueError
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.settings import SqsQueue as Settings
from firsttoken.stores.aws_clients import AwsClients, RefusedError

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

REASON = "firsttoken.reason"
"""The message attribute of a dead letter that says why it was given up."""
MAX_MESSAGE_BYTES = 1024 * 1024
"""What SQS takes: the body, and names, types and values of the attributes."""
MAX_REASON = 1000
"""Characters of a reason that are kept, fewer beside a body that fills the message."""
PAGE = 10
"""Messages that one request can receive, send or delete."""
MAX_WAIT = 20
MAX_HIDDEN = 43_200
SECONDS = 10.0
"""What an operation may take, besides the time that it waits for messages."""
LOOK_SECONDS = 30
"""Dead letters are hidden so long while they are looked at, moved or deleted, if that is interrupted."""
MOVE_FROM = 1000
"""So many dead letters are left to SQS's own message move task, if all of them are to be sent again."""

_RECEIPT_GONE = ("ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight")
_ATTRIBUTE_BYTES = len(REASON) + len("String")
# What XML 1.0 can hold: SQS refuses or replaces everything else.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class SqsQueue:
    """Messages of up to 1 MiB less 4 KiB, which are for the reason of a dead letter; delays up to 15 minutes.

    Sending and finishing cost one request each, receiving one for each 10 messages. Up to 32 connections for
    each event loop, which `aclose` closes in that loop.
    """

    pulls = True
    max_body_bytes = MAX_MESSAGE_BYTES - 4096
    max_delay = 900.0

    def __init__(self, settings: Settings) -> None:
        self._url = settings.url
        self._dead_url = settings.dead_url
        self._clients = clients_of(settings)

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message; see `Queue`. A body that is no text that SQS takes is a ValueError."""
        if len(body) > self.max_body_bytes:
            raise ValueError(f"The message has {len(body)} bytes; expected at most {self.max_body_bytes}.")
        text = body.decode()
        if _UNFIT.search(text):
            raise ValueError("The message holds characters that SQS does not take; expected XML's.")
        seconds = ceil(min(max(delay, 0.0), self.max_delay))
        async with self._clients.operation(SECONDS) as client:
            await client.send_message(QueueUrl=self._url, MessageBody=text, DelaySeconds=seconds)

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:
        """Take up to 10 messages, by long polls of up to 20 s; see `Queue`. Whole seconds, rounded up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        while True:
            left = min(max(ceil(end - loop.time()), 0), MAX_WAIT)
            messages = await self._receive(self._url, limit, _seconds(hidden), left)
            if messages or loop.time() >= end:
                return [delivery_of(message) for message in messages]

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        """Hide a message; see `Queue`. SQS keeps none hidden for more than 12 hours after it was received."""
        try:
            async with self._clients.operation(SECONDS, _RECEIPT_GONE) as client:
                await client.change_message_visibility(
                    QueueUrl=self._url, ReceiptHandle=delivery.receipt, VisibilityTimeout=_seconds(hidden)
                )
        except RefusedError:
            return False
        return True

    async def done(self, delivery: Delivery) -> None:
        """Delete a message; see `Queue`."""
        try:
            async with self._clients.operation(SECONDS, _RECEIPT_GONE) as client:
                await client.delete_message(QueueUrl=self._url, ReceiptHandle=delivery.receipt)
        except RefusedError:
            return  # it is another's by now, or gone

    async def bury(self, body: bytes, reason: str) -> None:
        """Add a dead letter; see `Queue`. Characters that SQS does not take are written as their number."""
        text = _fit(body.decode(errors="backslashreplace"))
        room = MAX_MESSAGE_BYTES - len(text.encode()) - _ATTRIBUTE_BYTES
        value = _fit(reason[:MAX_REASON]).encode()[: max(room, 0)].decode(errors="ignore")
        attributes = {REASON: {"DataType": "String", "StringValue": value}} if value else {}
        url = self._need_dead()
        async with self._clients.operation(SECONDS) as client:
            await client.send_message(QueueUrl=url, MessageBody=text, MessageAttributes=attributes)

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return dead letters; see `Queue`.

        SQS has no way to look without receiving: each is hidden for the time of the look, and its receive
        count goes up. A look at the end of the queue takes a second.
        """
        url = self._need_dead()
        there = (await self._counts(url))[0]
        messages: list[dict[str, Any]] = []
        try:
            while len(messages) < limit:
                page = await self._receive(url, limit - len(messages), LOOK_SECONDS, 1)
                messages += page
                if not page or len(messages) == there:
                    break
            too_often = await self._too_often(messages)
        finally:
            await self._show(url, messages)
        return [_dead_of(message, too_often) for message in messages]

    async def redrive(self, limit: int) -> int:
        """Send dead letters again; see `Queue`. A letter may come twice if this is interrupted.

        From `MOVE_FROM` on, where the limit covers all of them, SQS moves them by itself in the background,
        if its policies say that the one is the other's dead-letter queue; the count is approximate then.
        """
        url = self._need_dead()
        there = sum(await self._counts(url))
        if MOVE_FROM <= there <= limit and await self._move(url):
            return there
        count = 0
        while count < limit:
            page = await self._receive(url, limit - count, LOOK_SECONDS, 1 if count < there else 0)
            if not page:
                break
            async with self._clients.operation(SECONDS) as client:
                sends = [client.send_message(QueueUrl=self._url, MessageBody=each["Body"]) for each in page]
                results = await asyncio.gather(*sends, return_exceptions=True)
            failed = [result for result in results if isinstance(result, BaseException)]
            sent = [each for each, result in zip(page, results, strict=True) if result not in failed]
            count += len(sent)
            await self._delete(url, sent)
            if failed:
                raise QueueError(f"SQS took {count} dead letters back, and then no more.") from failed[0]
        return count

    async def purge_dead(self, limit: int) -> int:
        """Delete dead letters; see `Queue`."""
        url = self._need_dead()
        there = sum(await self._counts(url))
        count = 0
        while count < limit:
            page = await self._receive(url, limit - count, LOOK_SECONDS, 1 if count < there else 0)
            if not page:
                break
            count += await self._delete(url, page)
        return count

    async def depth(self) -> Depth:
        """Return SQS's own numbers, which are up to a minute old."""
        waiting, running, delayed = await self._counts(self._url)
        dead = sum(await self._counts(self._dead_url)) if self._dead_url else None
        return Depth(waiting, delayed, running, dead)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    def _need_dead(self) -> str:
        if not self._dead_url:
            raise QueueError("The queue (sqs) has no place for dead letters; set queue.dead_url.")
        return self._dead_url

    async def _receive(self, url: str, limit: int, hidden: int, wait: int) -> list[dict[str, Any]]:
        async with self._clients.operation(SECONDS + wait) as client:
            answer = await client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(limit, PAGE),
                VisibilityTimeout=hidden,
                WaitTimeSeconds=wait,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=[REASON],
            )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    async def _show(self, url: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Let messages be received again at once."""
        for start in range(0, len(messages), PAGE):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
                for number, message in enumerate(messages[start : start + PAGE])
            ]
            async with self._clients.operation(SECONDS) as client:
                await client.change_message_visibility_batch(QueueUrl=url, Entries=entries)

    async def _delete(self, url: str, messages: Sequence[Mapping[str, Any]]) -> int:
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(messages)
        ]
        if not entries:
            return 0
        async with self._clients.operation(SECONDS) as client:
            answer = await client.delete_message_batch(QueueUrl=url, Entries=entries)
        return len(answer.get("Successful", ()))

    async def _counts(self, url: str) -> tuple[int, int, int]:
        """Return how many messages are waiting, hidden and delayed."""
        names = ["", "NotVisible", "Delayed"]
        found = await self._attributes(url, *[f"ApproximateNumberOfMessages{name}" for name in names])
        waiting, hidden, delayed = [int(found[f"ApproximateNumberOfMessages{name}"]) for name in names]
        return waiting, hidden, delayed

    async def _attributes(self, url: str, *names: str) -> Mapping[str, str]:
        async with self._clients.operation(SECONDS) as client:
            answer = await client.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))
        found: Mapping[str, str] = answer.get("Attributes", {})
        return found

    async def _too_often(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return why SQS itself gave messages up, where it did with one of these."""
        if all(REASON in message.get("MessageAttributes", {}) for message in messages):
            return ""
        policy = (await self._attributes(self._url, "RedrivePolicy")).get("RedrivePolicy", "{}")
        count = msgspec.json.decode(policy).get("maxReceiveCount")
        return f"handed out {count} times" if count else "handed out too often"

    async def _move(self, url: str) -> bool:
        """Have SQS move all dead letters back; say whether it will."""
        source, target = [(await self._attributes(each, "QueueArn"))["QueueArn"] for each in (url, self._url)]
        try:
            async with self._clients.operation(SECONDS) as client:
                await client.start_message_move_task(SourceArn=source, DestinationArn=target)
        except QueueError:
            return False  # it is no dead-letter queue by policy, we may not, or a task is under way
        return True


def create(settings: Settings, _client: HttpClient, _name: str) -> SqsQueue:
    """Return the queue at the configured URL."""
    return SqsQueue(settings)


def clients_of(settings: Settings) -> AwsClients:
    """Return the clients of a queue, whose URL names region and address where nothing else does."""
    return AwsClients(
        "sqs",
        region=settings.region or _region(settings.url),
        endpoint=settings.endpoint or _place(settings.url),
        error=QueueError,
        read_timeout=MAX_WAIT + SECONDS,
    )


def delivery_of(record: Mapping[str, Any]) -> Delivery:
    """Return a message as SQS describes it, or as an event of Lambda does, which writes names otherwise."""
    named = {name[0].lower() + name[1:]: value for name, value in record.items()}
    count = int(named.get("attributes", {}).get("ApproximateReceiveCount", 1))
    return Delivery(named["body"].encode(), named["messageId"], count, named["receiptHandle"])


def _region(url: str) -> str:
    """Return the region that a queue's URL names, or an empty text: then the SDK looks for one."""
    labels = (urlsplit(url).hostname or "").split(".")
    return labels[1] if len(labels) > 2 and labels[0] == "sqs" else ""


def _place(url: str) -> str:
    """Return the address of a server that is not AWS's own, such as a local one."""
    parts = urlsplit(url)
    ours = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return "" if ours else f"{parts.scheme}://{parts.netloc}"


def _dead_of(message: Mapping[str, Any], too_often: str) -> Dead:
    reason = message.get("MessageAttributes", {}).get(REASON, {}).get("StringValue")
    # SQS leaves the time as it was when it moves a message: that one says when it was sent first.
    at = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000 if reason else 0.0
    return Dead(message["Body"].encode(), message["MessageId"], reason or too_often, at)


def _seconds(hidden: float) -> int:
    return min(max(ceil(hidden), 0), MAX_HIDDEN)


def _fit(text: str) -> str:
    return _UNFIT.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
