"""Cloud Storage: names, failures and what is sent, against the fake of its API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from firsttoken.errors import StoreError
from firsttoken.objects import Objects
from firsttoken.providers.http import HttpClient
from tests.objects.fake_gcs import FakeGcs
from tests.objects.kinds_gcs import objects_at


def with_bucket(test: Callable[[Objects, FakeGcs], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        client = HttpClient()
        async with asyncio.timeout(20), FakeGcs("bucket").running() as server:
            try:
                await test(objects_at(server.url, client, **settings), server)
            finally:
                await client.aclose()

    asyncio.run(main())


def test_names_have_the_prefix() -> None:
    """An object is named as the store's keys are, behind the prefix; line breaks are escaped."""

    async def test(objects: Objects, server: FakeGcs) -> None:
        for name in ("acme/job_1", "a\r\nb", "a%0D%0Ab"):
            await objects.put(name, name.encode(), 60)
            assert await objects.get(name, 100) == name.encode()
        assert sorted(server.objects) == ["p/a%0D%0Ab", "p/a%250D%250Ab", "p/acme/job_1"]
        await objects.put("n" * 5000, b"long", 60)
        assert max(len(name) for name in server.objects) <= 1024

    with_bucket(test, prefix="p/")


def test_no_token_goes_over_plain_http() -> None:
    """A local endpoint is asked without credentials."""

    async def test(objects: Objects, server: FakeGcs) -> None:
        await objects.put("name", b"data", 60)
        (_, target, headers), *_ = server.seen
        assert target == "/upload/storage/v1/b/bucket/o?uploadType=media&name=firsttoken%2Fname"
        assert "authorization" not in headers
        assert headers["content-type"] == "application/octet-stream"

    with_bucket(test)


@pytest.mark.parametrize("failures", [[503], [429, 500], [408]])
def test_a_passing_failure_is_not_noticed(failures: list[int]) -> None:
    """What another try may mend is tried again."""

    async def test(objects: Objects, server: FakeGcs) -> None:
        server.failures = [*failures]
        await objects.put("name", b"data", 60)
        server.failures = [*failures]
        assert await objects.get("name", 100) == b"data"
        assert len(server.seen) == 2 * len(failures) + 2

    with_bucket(test)


def test_a_refusal_is_a_store_error() -> None:
    """What no other try mends is said at once, with Google's words in the log only."""

    async def test(objects: Objects, server: FakeGcs) -> None:
        server.failures = [403]
        with pytest.raises(StoreError, match="answered 403") as caught:
            await objects.get("name", 100)
        assert str(caught.value) == "Cloud Storage answered 403."
        assert "failed as told" in caught.value.__notes__[0]
        assert len(server.seen) == 1

    with_bucket(test)


def test_a_missing_bucket_is_noticed_by_writing() -> None:
    """A 404 for an upload is an error, unlike one for an object."""

    async def test(objects: Objects, server: FakeGcs) -> None:
        server.bucket = "another"
        with pytest.raises(StoreError, match="404"):
            await objects.put("name", b"data", 60)

    with_bucket(test)
