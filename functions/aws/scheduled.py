"""Probe the targets and move batches on, on a schedule (EventBridge), on Lambda's own runtime."""

from __future__ import annotations

import asyncio
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from firsttoken.gateway import create_gateway
from firsttoken.worker import on_schedule

loop = asyncio.new_event_loop()  # for the life of the process: the gateway's connections belong to it
logger = Logger(service="scheduled")
gateway = create_gateway()


@logger.inject_lambda_context
def handler(_event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Probe every target, move the batches on, and log what came of it."""
    report = loop.run_until_complete(on_schedule(gateway))
    logger.info("scheduled work", **report)
    return report
