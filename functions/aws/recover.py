"""Answer the calls that a queue holds (SQS, partial batch responses), on Lambda's own runtime."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities import batch
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from firsttoken.gateway import create_gateway
from firsttoken.queues.sqs import SqsQueue, delivery_of
from firsttoken.worker import answer_message

# One event loop, which Powertools finds as the current one, for life: the gateway's connections belong to it.
asyncio.set_event_loop(asyncio.new_event_loop())
logger, log = Logger(service="recover"), logging.getLogger("recover")
gateway = create_gateway()
processor = batch.AsyncBatchProcessor(batch.EventType.SQS, raise_on_entire_batch_failure=False, logger=log)


async def answer(record: SQSRecord, lambda_context: LambdaContext) -> dict[str, Any]:
    """Handle one message; an error (no store, no queue) leaves it in the queue."""
    queue, delivery = gateway.queue, delivery_of(record.raw_event)
    extend = partial(queue.extend, delivery) if isinstance(queue, SqsQueue) else None
    end = asyncio.get_running_loop().time() + lambda_context.get_remaining_time_in_millis() / 1000
    row = await answer_message(gateway, delivery.body, delivered=delivery.count, extend=extend, deadline=end)
    logger.info("queued call", **row)
    return row


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    """Handle a batch; the messages that must come again are named in ``batchItemFailures``."""
    return batch.async_process_partial_response(event, answer, processor, context)
