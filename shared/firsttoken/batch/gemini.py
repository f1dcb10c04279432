"""The batch API of Gemini: a file of requests in, a file of answers out.

Sources: Google AI for Developers, "Batch API" (guide and reference), "Files API"; the SDK google-genai 3.4.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from firsttoken.batch.batch import Batch
from firsttoken.batch.lines import Line
from firsttoken.batch.link import Link
from firsttoken.batch.openai import MAX_PAGES, is_said, read, read_row, signs
from firsttoken.batch.provider import Ended, Lines, Progress, Result
from firsttoken.batch.translate import UNKNOWN, Translator, key_of, number_of
from firsttoken.config import key_of as secret_of
from firsttoken.errors import UpstreamProtocolError, UpstreamRefusedError
from firsttoken.providers.upstream import bearer
from firsttoken.settings import GeminiProvider
from firsttoken.wire import codec_of

if TYPE_CHECKING:
    from firsttoken.batch.batches import Batches

_JSON = [("content-type", "application/json")]
_ENDED: dict[str, Ended] = {
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_STATUS = {"INVALID_ARGUMENT": 400, "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
_BY_CODE = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503}
"""HTTP statuses of the codes of ``google.rpc.Status``."""


class _Output(Struct, frozen=True, rename="camel"):
    responses_file: str = ""


class _About(Struct, frozen=True, rename="camel"):
    state: str = ""
    display_name: str = ""
    output: _Output = _Output()


class _Status(Struct, frozen=True):
    code: int | None = None
    message: str = ""
    status: str = ""


class _Operation(Struct, frozen=True):
    name: str
    metadata: _About = _About()
    done: bool = False
    response: _Output = _Output()
    error: _Status | None = None


class _Page(Struct, frozen=True, rename="camel"):
    operations: list[_Operation] = []
    next_page_token: str = ""


class _File(Struct, frozen=True):
    name: str


class _Uploaded(Struct, frozen=True):
    file: _File


class _Row(Struct, frozen=True):
    key: str | None = None
    response: Raw = Raw(b"")
    error: _Status | None = None
    status: _Status | None = None


class GeminiBatch:
    """One batch there. ``base`` is the address of the API with its version."""

    partial = False

    def __init__(self, batch: Batch, link: Link, base: str, translator: Translator) -> None:
        self._batch = batch
        self._link = link
        self._base = base
        self._translator = translator

    def check(self, line: Line) -> None:
        """Raise UnsupportedFieldError for what Gemini has no word for."""
        self._translator.request(line)

    async def submit(self, lines: Lines) -> str:
        """Upload the requests and make a batch of them. Memory: all requests."""
        rows = [self._row(line) async for line in lines(0)]
        name = await self._upload(b"".join(rows))
        wanted = {"batch": {"displayName": self._batch.id, "inputConfig": {"fileName": name}}}
        model = self._translator.model
        resource = quote(model if "/" in model else f"models/{model}")
        url = f"{self._base}/{resource}:batchGenerateContent"
        answer = await self._link.ask("POST", url, msgspec.json.encode(wanted), _JSON)
        return str(read(answer.body, _Operation).name)

    async def find(self) -> str:
        """Return the handle of the batch that has our name, among the latest ones."""
        token = ""
        for _ in range(MAX_PAGES):
            query = {"pageSize": "100", **({"pageToken": token} if token else {})}
            answer = await self._link.ask("GET", f"{self._base}/batches?{urlencode(query)}")
            page = read(answer.body, _Page)
            for one in page.operations:
                if one.metadata.display_name == self._batch.id:
                    return str(one.name)
            token = page.next_page_token
            if not token:
                break
        return ""

    async def poll(self, handle: str) -> Progress:
        """Return how far it is."""
        remote = await self._get(handle)
        ended = _ENDED.get(remote.metadata.state.rpartition("_")[2], "")
        if not ended and remote.done:
            ended = "failed" if remote.error else "done"
        return Progress(ended, remote.error.message if remote.error else "The provider says no more.")

    async def results(self, handle: str, start: int) -> AsyncGenerator[Result]:
        """Yield what the file of answers says, if there is one."""
        remote = await self._get(handle)
        name = remote.response.responses_file or remote.metadata.output.responses_file
        if not name:
            return
        place = count()
        async with aclosing(self._link.lines(f"{self._base}/{quote(name)}:download?alt=media")) as lines:
            async for line in lines:
                if next(place) >= start:
                    yield self._result(line)

    async def cancel(self, handle: str) -> None:
        """Ask to stop it; one that has ended already is left as it is."""
        try:
            await self._link.ask("POST", f"{self._base}/{quote(handle)}:cancel", b"{}", _JSON)
        except UpstreamRefusedError:
            if not (await self.poll(handle)).ended:
                raise

    async def _get(self, handle: str) -> _Operation:
        answer = await self._link.ask("GET", f"{self._base}/{quote(handle)}")
        return read(answer.body, _Operation)

    async def _upload(self, content: bytes) -> str:
        """Upload a file, in the two requests of Google's resumable uploads, and return its name."""
        root, _, version = self._base.rpartition("/")
        about = {"file": {"displayName": self._batch.id}}
        begin = [
            *_JSON,
            ("x-goog-upload-protocol", "resumable"),
            ("x-goog-upload-command", "start"),
            ("x-goog-upload-header-content-length", str(len(content))),
            ("x-goog-upload-header-content-type", "application/jsonl"),
        ]
        url = f"{root}/upload/{version}/files"
        answer = await self._link.ask("POST", url, msgspec.json.encode(about), begin)
        place = answer.headers.get("x-goog-upload-url", "")
        if not place.startswith(("https://", "http://")):
            raise UpstreamProtocolError("The target named no address for the upload.")
        rest = [("x-goog-upload-command", "upload, finalize"), ("x-goog-upload-offset", "0")]
        answer = await self._link.ask("POST", place, content, rest)
        return str(read(answer.body, _Uploaded).file.name)

    def _row(self, line: Line) -> bytes:
        request = Raw(self._translator.request(line))
        return msgspec.json.encode({"key": key_of(line.number), "request": request}) + b"\n"

    def _result(self, line: bytes) -> Result:
        row = read_row(line, _Row)
        number = number_of(row.key) if row else UNKNOWN
        if row is None or number == UNKNOWN:
            return Result(UNKNOWN)
        if is_said(row.response):
            return self._translator.answer(number, bytes(row.response))
        error = row.error or row.status or _Status(message="The provider says no more.")
        status = _STATUS.get(error.status) or _BY_CODE.get(error.code or 0) or error.code or 500
        status = status if 400 <= status < 600 else 500
        said: dict[str, Any] = {"code": status, "message": error.message, "status": error.status}
        return self._translator.error(number, status, msgspec.json.encode({"error": said}))


def create(batches: Batches, batch: Batch) -> GeminiBatch:
    """Return a batch at a Gemini provider. Raises ConfigError when its key cannot be had."""
    name, _, model = batch.target.partition("/")
    settings = cast("GeminiProvider", batches.settings.providers[name])
    key = secret_of(settings.api_key, f"providers.{name}.api_key")
    codec = codec_of("gemini")
    authorize = bearer(key, "x-goog-api-key") if key else None
    link = Link(batches.client, codec, signs(authorize), list(settings.headers.items()))
    return GeminiBatch(batch, link, settings.base_url.rstrip("/"), Translator(batch, codec, model))
