"""SQS and S3 on this machine, by moto, with a clock of its own for the messages."""

from __future__ import annotations

import atexit
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple
from unittest.mock import patch

import boto3
from moto.server import ThreadedMotoServer
from moto.sqs import models

REGION = "eu-central-1"
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
"""The environment that a process needs for a client of `endpoint`."""


class Urls(NamedTuple):
    """A queue and its dead-letter queue."""

    queue: str
    dead: str


class Clock:
    """The time of day of moto's queues, which tests set forward. One for the process."""

    ahead = 0.0

    async def forward(self, seconds: float) -> None:
        self.ahead += seconds


CLOCK = Clock()


def _one_at_a_time(name: str, turn: Lock) -> None:
    """Have threads of moto take turns in a method of its queues.

    It deletes a message by writing the list of all others anew, and so loses what another thread adds
    meanwhile. SQS loses none.
    """
    work = getattr(models.Queue, name)

    def alone(queue: models.Queue, argument: Any) -> None:
        with turn:
            work(queue, argument)

    patch.object(models.Queue, name, alone).start()


@cache
def endpoint() -> str:
    """Return the URL of the server of this process; it is started once and stopped at exit."""
    turn = Lock()
    for name in ("add_message", "delete_message"):
        _one_at_a_time(name, turn)
    patch.object(models, "unix_time_millis", lambda *_: (time.time() + CLOCK.ahead) * 1000).start()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@contextmanager
def client(service: str) -> Iterator[Any]:
    """Give a client of the server that is none of ours."""
    with (
        patch.dict(os.environ, AWS),
        closing(boto3.client(service, endpoint_url=endpoint(), region_name=REGION)) as opened,
    ):
        yield opened


def new_queues(most: int = 3, **attributes: str) -> Urls:
    """Make a queue with a dead-letter queue, as serverless.yml does."""
    name = uuid.uuid4().hex
    with client("sqs") as sqs:
        dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": most})
        made = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy, **attributes})
        return Urls(made["QueueUrl"], dead)
