"""Answer the calls that a queue holds (SQS, partial batch responses), on Lambda's own runtime."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    EventType,
    async_process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from firsttoken.gateway import create_gateway
from firsttoken.worker import answer_message

# One event loop, which Powertools finds as the current one, for life: the gateway's connections belong to it.
asyncio.set_event_loop(asyncio.new_event_loop())
logger = Logger(service="recover")
gateway = create_gateway()
processor = AsyncBatchProcessor(
    EventType.SQS, raise_on_entire_batch_failure=False, logger=logging.getLogger("recover")
)


async def answer(record: SQSRecord) -> dict[str, Any]:
    """Answer one queued call; an error puts its message back on the queue."""
    row = await answer_message(gateway, record.body)
    logger.info("queued call", id=row["id"], status=row["status"])
    return row


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    """Answer a batch; the messages that must come again are named in ``batchItemFailures``."""
    return async_process_partial_response(event, answer, processor, context)
