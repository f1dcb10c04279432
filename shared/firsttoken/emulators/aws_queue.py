"""Feed a function from an SQS queue: an emulation of Lambda's event source mapping.

The queue is the configured one, on any server that speaks SQS. A batch is one event; the messages that the
function names in ``batchItemFailures``, or all of them when it fails, stay hidden until their visibility
timeout ends and come again; all others are deleted. After ``maxReceiveCount`` receives the queue itself moves
a message to its dead-letter queue. Not covered: scaling, filters, batching windows, FIFO order.
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from firsttoken.emulators.aws_environment import FunctionError
from firsttoken.errors import QueueError
from firsttoken.queues.sqs import SECONDS, clients_of
from firsttoken.settings import SqsQueue

if TYPE_CHECKING:
    from firsttoken.emulators.aws import AwsEmulator

BATCH_SIZE = 10
WAIT_SECONDS = 20
AGAIN_SECONDS = 1.0
"""Between attempts while the queue cannot be had."""


class _Response(msgspec.Struct, frozen=True):
    failures: list[dict[str, str]] = msgspec.field(name="batchItemFailures", default_factory=list)


class SqsPump:
    """The mapping of one queue to one function: `pump` moves a batch, an ``async with`` block all of them."""

    def __init__(self, emulator: AwsEmulator, queue: SqsQueue) -> None:
        self._emulator = emulator
        self._url = queue.url
        self._clients = clients_of(queue)
        self._arn = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to move batches, one after the other, as messages come."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, in the middle of a batch if need be: its messages come again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.aclose()

    async def pump(self, wait_seconds: int = 0) -> int:
        """Receive one batch, have it answered, delete what succeeded; return how many messages there were.

        Raises QueueError when the queue cannot be had.
        """
        async with self._clients.operation(SECONDS + wait_seconds) as sqs:
            if not self._arn:
                named = await sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
                self._arn = named["Attributes"]["QueueArn"]
            received = await sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=BATCH_SIZE,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        messages: list[dict[str, Any]] = received.get("Messages", [])
        if not messages:
            return 0
        failed = await self._failed(messages)
        done = [
            {"Id": str(position), "ReceiptHandle": message["ReceiptHandle"]}
            for position, message in enumerate(messages)
            if message["MessageId"] not in failed
        ]
        if done:
            async with self._clients.operation(SECONDS) as sqs:
                await sqs.delete_message_batch(QueueUrl=self._url, Entries=done)
        return len(messages)

    async def aclose(self) -> None:
        """Close the connections to the queue."""
        await self._clients.aclose()

    async def _run(self) -> None:
        down = False
        while True:
            try:
                await self.pump(WAIT_SECONDS)
                down = False
            except QueueError as error:
                if not down:
                    sys.stderr.write(f"firsttoken: {error}\n")
                    sys.stderr.flush()
                down = True
                await asyncio.sleep(AGAIN_SECONDS)

    async def _failed(self, messages: list[dict[str, Any]]) -> set[str]:
        everything = {message["MessageId"] for message in messages}
        try:
            answer = await self._emulator.invoke({"Records": [self._record(message) for message in messages]})
            body = b"".join([piece async for piece in answer.body])
            failures = msgspec.json.decode(body, type=_Response).failures
        except (FunctionError, msgspec.DecodeError):
            return everything
        named = {failure.get("itemIdentifier", "") for failure in failures}
        # As AWS documents it: an identifier that is not of this batch fails all of it.
        return min(named, everything)

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": message.get("MessageAttributes", {}),
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": self._arn.split(":")[3],
        }
