"""From a queue to a function on AWS: a local SQS server, the real handler in AWS's own runtime client."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioboto3
import boto3
import pytest
from moto.server import ThreadedMotoServer

from firsttoken.emulators.aws import AwsEmulator
from firsttoken.emulators.aws_queue import SqsPump

ROOT = Path(__file__).resolve().parents[2]
HANDLER = "functions.aws.recover.handler"
REGION = "eu-central-1"
CALL = {
    "id": "job-1",
    "tenant": "acme",
    "request": {"model": "simulated", "messages": [{"role": "user", "content": "hi"}]},
}
LIMIT = 60


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A local SQS server: the arguments of a client of it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {"endpoint_url": f"http://{host}:{port}", "region_name": REGION}
    finally:
        server.stop()


def queues(client: Any) -> tuple[str, str, str]:
    """Make a queue with a dead-letter queue, as serverless.yml does; return both URLs and the ARN."""

    def arn_of(url: str) -> str:
        return client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]

    dead = client.create_queue(QueueName="dead")["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": arn_of(dead), "maxReceiveCount": 2})
    attributes = {"RedrivePolicy": policy, "VisibilityTimeout": "0"}
    url = client.create_queue(QueueName="jobs", Attributes=attributes)["QueueUrl"]
    return url, arn_of(url), dead


def test_good_messages_are_deleted_and_a_poisoned_one_ends_in_the_dead_letter_queue(
    sqs: dict[str, str],
) -> None:
    """One bad message does not repeat its neighbours, and it is kept where somebody will find it."""
    client = boto3.client("sqs", **sqs)
    url, arn, dead = queues(client)
    for body in (json.dumps(CALL), "poison", json.dumps({**CALL, "id": "job-2"})):
        client.send_message(QueueUrl=url, MessageBody=body)

    async def run() -> list[int]:
        command = [sys.executable, "-m", "awslambdaric", HANDLER]
        async with (
            asyncio.timeout(LIMIT),
            AwsEmulator(root=ROOT, handler=HANDLER, command=command) as emulator,
            aioboto3.Session().client("sqs", **sqs) as queue,
        ):
            pump = SqsPump(emulator, queue, url, arn)
            return [await pump.pump() for _ in range(4)]

    assert asyncio.run(run()) == [3, 1, 0, 0]
    kept = client.receive_message(QueueUrl=dead)["Messages"]
    assert [message["Body"] for message in kept] == ["poison"]


def test_a_function_that_breaks_leaves_its_whole_batch(sqs: dict[str, str], tmp_path: Path) -> None:
    """Nothing is deleted that was not answered."""
    client = boto3.client("sqs", **sqs)
    url, arn, _ = queues(client)
    client.send_message(QueueUrl=url, MessageBody="x")
    (tmp_path / "broken.py").write_text("def handler(event, context):\n    raise ValueError('no')\n", "utf-8")

    async def run() -> list[int]:
        command = [sys.executable, "-m", "awslambdaric", "broken.handler"]
        async with (
            asyncio.timeout(LIMIT),
            AwsEmulator(root=tmp_path, handler="broken.handler", command=command) as emulator,
            aioboto3.Session().client("sqs", **sqs) as queue,
        ):
            pump = SqsPump(emulator, queue, url, arn)
            return [await pump.pump() for _ in range(2)]

    assert asyncio.run(run()) == [1, 1]
