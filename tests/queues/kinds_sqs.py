"""A queue in SQS, by moto, whose clock the test sets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from firsttoken.queues import Queue
from firsttoken.queues.sqs import SqsQueue
from firsttoken.settings import SqsQueue as Settings
from tests.queues import moto_server
from tests.queues.kinds import Kind, Opened

MOST = 3


@asynccontextmanager
async def opened(_: Path) -> AsyncIterator[Opened]:
    urls = moto_server.new_queues(MOST)
    with patch.dict(os.environ, moto_server.AWS):
        queue = SqsQueue(Settings(url=urls.queue, dead_url=urls.dead))
        try:
            yield Opened(queue, moto_server.CLOCK.forward)
        finally:
            await queue.aclose()


def unreachable(_: Path) -> Queue:
    place = "http://127.0.0.1:1/123456789012/jobs"
    return SqsQueue(Settings(url=place, dead_url=place, region=moto_server.REGION))


KINDS = [Kind("sqs", opened, unreachable, max_deliveries=MOST)]
