"""Probe the targets on a schedule (EventBridge), on Lambda's own runtime."""

from __future__ import annotations

import asyncio
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from firsttoken.gateway import create_gateway
from firsttoken.worker import probe_targets

loop = asyncio.new_event_loop()  # for the life of the process: the gateway's connections belong to it
logger = Logger(service="scheduled")
gateway = create_gateway()


@logger.inject_lambda_context
def handler(_event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Probe every target and log what it found."""
    report = loop.run_until_complete(probe_targets(gateway))
    logger.info("targets probed", **report)
    return report
