"""The Batch API of OpenAI, of Azure, and of servers that speak it: a file in, a file of answers out.

Sources: OpenAI API reference, "Batch" and "Files"; Microsoft Learn, "Azure OpenAI batch".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from firsttoken.batch.batch import Batch, derived
from firsttoken.batch.lines import Line
from firsttoken.batch.link import Headers, Link, Sign
from firsttoken.batch.provider import Ended, Lines, Progress, Result
from firsttoken.batch.translate import UNKNOWN, Translator, key_of, number_of
from firsttoken.config import key_of as secret_of
from firsttoken.errors import UpstreamProtocolError, UpstreamRefusedError
from firsttoken.providers.openai import CODECS
from firsttoken.providers.upstream import Authorize, bearer
from firsttoken.settings import AzureProvider, OpenAIProvider

if TYPE_CHECKING:
    from firsttoken.batch.batches import Batches

T = TypeVar("T")
MARK = "firsttoken_batch"
"""The entry of the metadata that says which of our batches it is."""
MAX_PAGES = 5
"""Of a hundred batches, that are searched for one of ours."""
_ENDED: dict[str, Ended] = {
    "completed": "done",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}


class _Error(Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Errors(Struct, frozen=True):
    data: list[_Error] | None = None


class _Remote(Struct, frozen=True):
    id: str
    status: str = ""
    errors: _Errors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: dict[str, Any] | None = None


class _Page(Struct, frozen=True):
    data: list[_Remote]
    has_more: bool = False


class _Named(Struct, frozen=True):
    id: str


class _Response(Struct, frozen=True):
    status_code: int
    body: Raw


class _Row(Struct, frozen=True):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class OpenAIBatch:
    """One batch there. ``base`` is the address of the API, ``path`` that of the requests' endpoint."""

    partial = False

    def __init__(self, batch: Batch, link: Link, base: str, path: str, translator: Translator) -> None:
        self._batch = batch
        self._link = link
        self._base = base
        self._path = path
        self._translator = translator

    def check(self, line: Line) -> None:
        """Raise UnsupportedFieldError for what the endpoint has no word for."""
        self._translator.request(line)

    async def submit(self, lines: Lines) -> str:
        """Upload the requests and make a batch of them. Memory: all requests."""
        rows = [self._row(line) async for line in lines(0)]
        boundary = f"firsttoken{derived(self._batch, 'form')}"
        body = _form(boundary, f"{self._batch.id}.jsonl", b"".join(rows))
        headers = [("content-type", f"multipart/form-data; boundary={boundary}")]
        answer = await self._link.ask("POST", f"{self._base}/files", body, headers)
        wanted = {
            "input_file_id": read(answer.body, _Named).id,
            "endpoint": self._path,
            "completion_window": "24h",
            "metadata": {MARK: self._batch.id},
        }
        json = [("content-type", "application/json")]
        answer = await self._link.ask("POST", f"{self._base}/batches", msgspec.json.encode(wanted), json)
        return read(answer.body, _Remote).id

    async def find(self) -> str:
        """Return the handle of the batch that has our mark, among the latest ones."""
        after = ""
        for _ in range(MAX_PAGES):
            query = {"limit": "100", **({"after": after} if after else {})}
            answer = await self._link.ask("GET", f"{self._base}/batches?{urlencode(query)}")
            page = read(answer.body, _Page)
            for one in page.data:
                if (one.metadata or {}).get(MARK) == self._batch.id:
                    return one.id
            if not page.has_more or not page.data:
                break
            after = page.data[-1].id
        return ""

    async def poll(self, handle: str) -> Progress:
        """Return how far it is."""
        remote = await self._get(handle)
        said = [error.message or error.code or "" for error in (remote.errors or _Errors()).data or ()]
        message = said[0][:500] if said else "The provider says no more."
        return Progress(_ENDED.get(remote.status, ""), message)

    async def results(self, handle: str, start: int) -> AsyncGenerator[Result]:
        """Yield what both files say, the file of answers first."""
        remote = await self._get(handle)
        place = count()
        for name in filter(None, (remote.output_file_id, remote.error_file_id)):
            url = f"{self._base}/files/{quote(name, safe='')}/content"
            async with aclosing(self._link.lines(url)) as lines:
                async for line in lines:
                    if next(place) >= start:
                        yield self._result(line)

    async def cancel(self, handle: str) -> None:
        """Ask to stop it; one that has ended already is left as it is."""
        try:
            await self._link.ask("POST", f"{self._base}/batches/{quote(handle, safe='')}/cancel")
        except UpstreamRefusedError:
            if not (await self.poll(handle)).ended:
                raise

    async def _get(self, handle: str) -> _Remote:
        answer = await self._link.ask("GET", f"{self._base}/batches/{quote(handle, safe='')}")
        return read(answer.body, _Remote)

    def _row(self, line: Line) -> bytes:
        request = Raw(self._translator.request(line))
        row = {"custom_id": key_of(line.number), "method": "POST", "url": self._path, "body": request}
        return msgspec.json.encode(row) + b"\n"

    def _result(self, line: bytes) -> Result:
        row = read_row(line, _Row)
        number = number_of(row.custom_id) if row else UNKNOWN
        if row is None or number == UNKNOWN:
            return Result(UNKNOWN)
        if row.response is None:
            error = row.error or _Error()
            return Result(number, code=error.code or "provider_error", message=error.message or "")
        if row.response.status_code == 200:
            return self._translator.answer(number, bytes(row.response.body))
        return self._translator.error(number, row.response.status_code, bytes(row.response.body))


def create(batches: Batches, batch: Batch) -> OpenAIBatch:
    """Return a batch at an OpenAI or Azure provider. Raises ConfigError when its key cannot be had."""
    name, _, model = batch.target.partition("/")
    settings = cast("OpenAIProvider | AzureProvider", batches.settings.providers[name])
    make_codec, path = CODECS[settings.api]
    codec = make_codec()
    headers = list(settings.headers.items())
    link = Link(batches.client, codec, signs(_authorize(name, settings)), headers)
    base = settings.base_url.rstrip("/")
    # Microsoft's pages name the endpoint without the version.
    path = path if isinstance(settings, AzureProvider) else f"/v1{path}"
    return OpenAIBatch(batch, link, base, path, Translator(batch, codec, model))


def signs(authorize: Authorize | None) -> Sign:
    """Return what adds a key to any request, made of what adds it to those for answers."""

    async def sign(_method: str, url: str, headers: Headers, body: bytes) -> Headers:
        return await authorize(url, headers, body) if authorize else headers

    return sign


def read(body: bytes, kind: type[T]) -> T:
    """Return what a provider said. Raises UpstreamProtocolError for what is not of ``kind``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise UpstreamProtocolError(f"The target's answer is not what was expected: {error}") from error


def read_row(line: bytes, kind: type[T]) -> T | None:
    """Return what a line of a provider's file says; None where it says nothing of ``kind``.

    One wrong line must not keep all others from their clients.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_said(value: Raw) -> bool:
    """Return whether a field that was left as it came is there, and not null."""
    return bytes(value) not in (b"", b"null")


def _authorize(name: str, settings: OpenAIProvider | AzureProvider) -> Authorize | None:
    where = f"providers.{name}.api_key"
    key = secret_of(settings.api_key, where)
    if isinstance(settings, OpenAIProvider):
        return bearer(key) if key else None
    if key:
        return bearer(key, "api-key")
    from firsttoken.providers.azure_auth import entra, identity

    return entra(identity(settings.scope, where))


def _form(boundary: str, filename: str, content: bytes) -> bytes:
    """Return a form with a file for batches."""
    field = 'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch'
    file = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
    head = f"--{boundary}\r\n{field}\r\n--{boundary}\r\n{file}\r\nContent-Type: application/jsonl\r\n\r\n"
    return b"".join([head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])
