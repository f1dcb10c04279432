"""What only objects in S3 have: their keys, their bucket, and what the service refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from firsttoken.errors import StoreError
from tests.objects.kinds_s3 import at, new_bucket
from tests.queues import moto_server


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are what a test says, not those of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in moto_server.AWS.items():
        monkeypatch.setenv(name, value)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def listed(bucket: str) -> list[str]:
    with moto_server.client("s3") as s3:
        found = s3.list_objects_v2(Bucket=bucket)
        return sorted(each["Key"] for each in found.get("Contents", []))


def test_keys_begin_with_the_prefix_and_go_nowhere_else() -> None:
    """A name cannot leave its tenant's part of the bucket, and holds nothing that S3 asks to avoid."""
    bucket = new_bucket()

    async def main() -> None:
        objects = at(bucket, prefix="jobs/")
        for name in ("acme/../beta/./job_1", "acme/a%b\nc", "acme/job_1"):
            await objects.put(name, b"data", 60)
        await objects.aclose()

    run(main())
    assert listed(bucket) == ["jobs/acme/%2E%2E/beta/%2E/job_1", "jobs/acme/a%25b%0Ac", "jobs/acme/job_1"]


def test_prefixes_are_kept_apart() -> None:
    """Several deployments can share a bucket."""
    bucket = new_bucket()

    async def main() -> None:
        one, other = at(bucket, prefix="one/"), at(bucket, prefix="other/")
        await one.put("name", b"1", 60)
        assert await other.get("name", 100) is None
        await other.delete("name")
        assert await one.get("name", 100) == b"1"
        await one.aclose()
        await other.aclose()

    run(main())


def test_the_bucket_says_how_objects_are_encrypted() -> None:
    """No request names a key: the bucket's own default holds, whichever that is."""
    bucket = new_bucket()
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/own"}}

    async def main() -> None:
        objects = at(bucket)
        await objects.put("name", b"data", 60)
        await objects.aclose()

    with moto_server.client("s3") as s3:
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
        run(main())
        head = s3.head_object(Bucket=bucket, Key=listed(bucket)[0])
    assert head["ServerSideEncryption"] == "aws:kms"


def test_a_bucket_that_is_not_there() -> None:
    """S3's own code is in the message."""

    async def main() -> None:
        objects = at("no-such-bucket")
        for call in (objects.put("name", b"data", 60), objects.get("name", 100)):
            with pytest.raises(StoreError, match="NoSuchBucket"):
                await call
        await objects.aclose()

    run(main())


def test_a_larger_object_leaves_its_connections_usable() -> None:
    """An object that is refused for its size is not read, and costs the next request nothing."""

    async def main() -> None:
        objects = at(new_bucket())
        await objects.put("large", b"x" * 5_000_000, 60)
        await objects.put("small", b"x", 60)
        for _ in range(40):  # more than there are connections
            with pytest.raises(StoreError, match="5000000"):
                await objects.get("large", 1000)
        assert await objects.get("small", 1000) == b"x"
        await objects.aclose()

    run(main())
