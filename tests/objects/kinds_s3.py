"""Objects in S3, by moto."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from firsttoken.objects import Objects
from firsttoken.objects.s3 import S3Objects
from firsttoken.settings import S3Objects as Settings
from tests.objects.kinds import Kind
from tests.queues import moto_server


def new_bucket() -> str:
    name = uuid.uuid4().hex
    with moto_server.client("s3") as s3:
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
    return name


def at(bucket: str, **given: str) -> S3Objects:
    place = {"endpoint": moto_server.endpoint(), "region": moto_server.REGION}
    return S3Objects(Settings(**{"bucket": bucket, **place, **given}))


@asynccontextmanager
async def opened(_: Path) -> AsyncIterator[Objects]:
    with patch.dict(os.environ, moto_server.AWS):
        objects = at(new_bucket())
        try:
            yield objects
        finally:
            await objects.aclose()


def unreachable(_: Path) -> Objects:
    return at("firsttoken", endpoint="http://127.0.0.1:1")


KINDS = [Kind("s3", opened, unreachable)]
