"""Simulated providers with batch APIs, on a free port of loopback, and gateways that use them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import uvicorn

from firsttoken.batch.batches import Batches
from firsttoken.gateway import Gateway
from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import (
    AzureProvider,
    Batch,
    BedrockBatch,
    BedrockProvider,
    GeminiProvider,
    OpenAIProvider,
    Route,
    SimulatedProvider,
)
from tests.batch.batching import batches_with, settings_of
from tests.queues import moto_server

KINDS = ("openai", "azure", "gemini", "bedrock")
ROLE = "arn:aws:iam::123456789012:role/batch"
BUCKET = "firsttoken-batch-test"
FAST = "ttft_ms=0,itl_ms=0,tokens=3"


class S3:
    """A real client of the S3 server, for the provider's side."""

    async def get(self, bucket: str, key: str) -> bytes | None:
        def read() -> bytes | None:
            with moto_server.client("s3") as s3:
                try:
                    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                except s3.exceptions.NoSuchKey:
                    return None

        return await asyncio.to_thread(read)

    async def put(self, bucket: str, key: str, data: bytes) -> None:
        def write() -> None:
            with moto_server.client("s3") as s3:
                s3.put_object(Bucket=bucket, Key=key, Body=data)

        await asyncio.to_thread(write)


@contextmanager
def simulator(profile: str = "", *, s3: bool = False) -> Iterator[tuple[SimulatorApp, str]]:
    """Serve a simulated provider; gives it and its address."""
    spec = f"{FAST},{profile}" if profile else FAST
    app = SimulatorApp(SimulatedProvider(profile=spec), bucket=S3() if s3 else None)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = start
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(10)
        yield app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


class Wall:
    """A time of day that a test sets forward."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def batches_at(kind: str, url: str, **own: Any) -> AsyncIterator[Batches]:
    """The batches of a gateway whose model ``m`` is at the simulated provider, by its own batch API."""
    providers = {
        "openai": OpenAIProvider(base_url=f"{url}/v1"),
        "azure": AzureProvider(base_url=f"{url}/openai/v1", api_key="any"),
        "gemini": GeminiProvider(base_url=f"{url}/v1beta", api_key="any"),
        "bedrock": BedrockProvider(base_url=url, region=moto_server.REGION),
    }
    bedrock = {}
    if kind == "bedrock":
        section = {"bucket": BUCKET, "role": ROLE, "minimum": 2, "endpoint": url}
        bedrock = {"p": BedrockBatch(**section, s3_endpoint=moto_server.endpoint())}
        with moto_server.client("s3") as s3:
            s3.create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": moto_server.REGION}
            ) if BUCKET not in [one["Name"] for one in s3.list_buckets()["Buckets"]] else None
    settings = settings_of(
        providers={"p": providers[kind]},
        models={"m": Route(target="p/upstream.model-v1")},
        batch=Batch(providers=["p"], bedrock=bedrock, **own),
    )
    with patch.dict(os.environ, moto_server.AWS):
        gateway = Gateway(settings)
        try:
            yield batches_with(gateway, Wall())
        finally:
            await gateway.aclose()
