"""Objects in one S3 bucket, or in what speaks S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsttoken.errors import StoreError
from firsttoken.settings import S3Objects as Settings
from firsttoken.stores.aws_clients import AwsClients, RefusedError
from firsttoken.stores.keys import fit_key

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient
    from firsttoken.stores.store import Store

SECONDS = 30.0
"""What an operation may take, with all of an object's bytes."""
READ_TIMEOUT = 10.0

_ESCAPED = {code: f"%{code:02X}" for code in (*range(32), 127, ord("%"))}
"""What S3 asks to avoid in keys."""


class S3Objects:
    """An object is one of the bucket, put and read in one request.

    The time to live is left to a lifecycle rule of the bucket, and so is its encryption: S3 encrypts every
    object with the bucket's key, or one of its own where the bucket names none. Reading what is not there
    needs ``s3:ListBucket``: without it S3 says that it is forbidden, and that is a StoreError.
    Up to 32 connections for each event loop, which `aclose` closes in that loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._clients = AwsClients(
            "s3",
            region=settings.region,
            endpoint=settings.endpoint,
            error=StoreError,
            read_timeout=READ_TIMEOUT,
        )

    async def put(self, name: str, data: bytes, ttl: float) -> None:  # noqa: ARG002 - the protocol's
        """Write an object, whatever was there; see `Objects`."""
        async with self._clients.operation(SECONDS) as client:
            await client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object of at most ``limit`` bytes, or None; see `Objects`. No more is read."""
        try:
            async with self._clients.operation(SECONDS, ("NoSuchKey",)) as client:
                answer = await client.get_object(Bucket=self._bucket, Key=self._key(name))
                async with answer["Body"] as body:
                    size = int(answer["ContentLength"])
                    if size > limit:
                        raise StoreError(f"The object has {size} bytes; expected at most {limit}.")
                    return bytes(await body.read())
        except RefusedError:
            return None

    async def delete(self, name: str) -> None:
        """Delete an object, if there is one; see `Objects`."""
        async with self._clients.operation(SECONDS) as client:
            await client.delete_object(Bucket=self._bucket, Key=self._key(name))

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    def _key(self, name: str) -> str:
        """Return the key: different for different names, and without segments that mean another directory."""
        segments = name.translate(_ESCAPED).split("/")
        dots = (".", "..")
        return fit_key(
            "/".join("%2E" * len(each) if each in dots else each for each in segments), self._prefix
        )


def create(settings: Settings, _client: HttpClient, _store: Store) -> S3Objects:
    """Return the objects in the configured bucket."""
    return S3Objects(settings)
