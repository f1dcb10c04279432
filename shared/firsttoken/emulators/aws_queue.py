"""Feed a function from an SQS queue: an emulation of Lambda's event source mapping.

The queue may be any that speaks SQS (a local server in the tests). A batch is one event; the messages that
the function names in ``batchItemFailures``, or all of them when it fails, stay hidden until their
visibility timeout ends and come again; all others are deleted. After ``maxReceiveCount`` receives the queue
itself moves a message to its dead-letter queue. Not covered: concurrency, filters, batching windows, FIFO
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from firsttoken.emulators.aws_environment import FunctionError

if TYPE_CHECKING:
    from firsttoken.emulators.aws import AwsEmulator

BATCH_SIZE = 10


class _Response(msgspec.Struct, frozen=True):
    failures: list[dict[str, str]] = msgspec.field(name="batchItemFailures", default_factory=list)


class SqsPump:
    """One mapping. ``sqs`` is an aioboto3 client, ``queue_url`` and ``arn`` name the queue."""

    def __init__(self, emulator: AwsEmulator, sqs: Any, queue_url: str, arn: str) -> None:
        self._emulator = emulator
        self._sqs = sqs
        self._url = queue_url
        self._arn = arn

    async def pump(self, wait_seconds: int = 0) -> int:
        """Receive one batch, have it answered, delete what succeeded; return how many messages there were."""
        received = await self._sqs.receive_message(
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
            await self._sqs.delete_message_batch(QueueUrl=self._url, Entries=done)
        return len(messages)

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
