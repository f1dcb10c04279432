"""What only the objects in Azure Blob storage have: signatures, a container that is made, names of blobs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import azure.identity
import pytest

from firsttoken.errors import ConfigError, StoreError
from firsttoken.objects.blob import BlobObjects
from firsttoken.objects.blob_account import account_of
from firsttoken.providers.http import HttpClient
from firsttoken.settings import BlobObjects as Settings
from tests.stores import cloud

KEY = "AccountName=acme;AccountKey=a2V5"


@asynccontextmanager
async def opened(**given: Any) -> AsyncIterator[BlobObjects]:
    client = HttpClient()
    default = {"container": f"test-{uuid.uuid4().hex}", "connection": cloud.tables_connection()}
    try:
        yield BlobObjects(Settings(**{**default, **given}), client)
    finally:
        await client.aclose()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


def test_a_missing_container_is_an_empty_one_until_something_is_written() -> None:
    """Reading makes no container; the first object does, once for those that come at the same time."""

    async def main() -> None:
        async with opened() as objects:
            assert await objects.get("name", 10) is None
            await objects.delete("name")
            await asyncio.gather(*(objects.put(f"{n}", b"data", 60) for n in range(5)))
            assert await objects.get("4", 10) == b"data"

    run(main())


def test_the_prefix_keeps_its_folders() -> None:
    """A lifecycle rule can name the prefix; a name itself has neither folders nor dots."""

    async def main() -> None:
        async with opened(prefix="team a/firsttoken/") as objects:
            path = objects._path("job:a/../b?c.")
            assert path.endswith("/team%20a/firsttoken/job:a_2F_2E_2E_2Fb_3Fc_2E")
            await objects.put("job:a/../b?c.", b"data", 60)
            assert await objects.get("job:a/../b?c.", 10) == b"data"

    run(main())


def test_a_long_name_is_its_beginning_and_a_hash() -> None:
    """The service takes 1,024 characters; what differs beyond them stays apart."""
    objects = BlobObjects(Settings(connection=KEY), HttpClient())
    paths = {objects._path("é" * 600 + end) for end in ("a", "b", "")}
    assert len(paths) == 3
    assert all(len(path) < 1024 for path in paths)


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (KEY, "https://acme.blob.core.windows.net"),
        (f"{KEY};EndpointSuffix=core.chinacloudapi.cn", "https://acme.blob.core.chinacloudapi.cn"),
        (f"DefaultEndpointsProtocol=http;{KEY};", "http://acme.blob.core.windows.net"),
        (f"{KEY};BlobEndpoint=https://blobs.acme.example/", "https://blobs.acme.example"),
        ("BlobEndpoint=https://b.example/;SharedAccessSignature=?sv=1&sig=x%3D", "https://b.example"),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
    ],
)
def test_a_connection_string_names_the_account(connection: str, url: str) -> None:
    """Azure's ways to write one are understood, the emulator's too."""
    assert account_of(connection, "", "objects").url == url


@pytest.mark.parametrize(
    "connection", ["nonsense", "AccountName=x", "AccountName=x;AccountKey=?", "BlobEndpoint=x"]
)
def test_a_connection_string_that_is_none(connection: str) -> None:
    """It stops the start, and is not repeated: it may be a secret in the wrong place."""
    with pytest.raises(ConfigError, match=r"objects\.connection") as caught:
        BlobObjects(Settings(connection=connection), HttpClient())
    assert connection not in str(caught.value)


@pytest.mark.parametrize("url", ["", "http://account.blob.core.windows.net"])
def test_an_account_is_needed(url: str) -> None:
    """Without a connection string there must be a URL to which a token may be sent."""
    with pytest.raises(ConfigError, match="account_url with https"):
        BlobObjects(Settings(account_url=url), HttpClient())


def test_a_shared_access_signature_goes_into_the_url() -> None:
    """Nothing else proves who sends the request."""

    async def main() -> None:
        connection = "BlobEndpoint=https://b.example/;SharedAccessSignature=sv=1&sig=x%3D"
        account = account_of(connection, "", "objects")
        url, headers = await account.prepare("GET", "/c/name", [], 0, lambda: 0.0)
        assert url == "https://b.example/c/name?sv=1&sig=x%3D"
        assert [name for name, _ in headers] == ["x-ms-date", "x-ms-version"]
        url, _ = await account.prepare("PUT", "/c?restype=container", [], 0, lambda: 0.0)
        assert url == "https://b.example/c?restype=container&sv=1&sig=x%3D"

    run(main())


def test_an_identity_gives_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an account URL alone an Entra token for storage is sent."""
    token = SimpleNamespace(token="t0ken", expires_on=4_000_000_000)
    monkeypatch.setattr(azure.identity.DefaultAzureCredential, "get_token", lambda _self, _scope: token)

    async def main() -> None:
        account = account_of("", "https://acme.blob.core.windows.net/", "objects")
        _, headers = await account.prepare("GET", "/c/name", [], 0, lambda: 0.0)
        assert ("authorization", "Bearer t0ken") in headers

    run(main())


def test_a_refusal_is_named() -> None:
    """A wrong key is a StoreError with the service's word for it, and without the key."""

    async def main() -> None:
        connection = cloud.tables_connection()
        key = connection.partition("AccountKey=")[2].partition(";")[0]
        wrong = "bm90IHRoZSBrZXk="
        async with opened(connection=connection.replace(key, wrong), container="refused") as objects:
            for call in (objects.put("name", b"", 60), objects.get("name", 10), objects.delete("name")):
                with pytest.raises(StoreError, match=r"'refused' \(Auth") as caught:
                    await call
                assert wrong not in str(caught.value)

    run(main())
