"""``/v1/files``: files with the requests and the answers of batches, as OpenAI's API has them."""

from __future__ import annotations

from contextlib import aclosing
from re import Match

import msgspec

from firsttoken.api.exchange import Exchange
from firsttoken.api.multipart import Part, read_form
from firsttoken.api.query import number, query_of
from firsttoken.batch.batches import batches_of
from firsttoken.batch.files import File, Files, shown
from firsttoken.errors import NotFoundError, RequestError
from firsttoken.gateway import Gateway

OVERHEAD = 64 * 1024
"""Bytes that a form may have besides its file."""
MAX_LIMIT = 10_000
_MIN_KEEP, _MAX_KEEP = 3600.0, 2_592_000.0
_encode = msgspec.json.encode


async def files(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    """Answer one request: upload, list, show, download or delete, as path and method say."""
    batches = batches_of(gateway)
    known = batches.files
    name, method = found["id"] or "", exchange.scope["method"]
    if method == "POST":
        answer = shown(await _upload(exchange, gateway, known))
    elif not name:
        answer = await _listed(exchange, known)
    elif method == "DELETE":
        if not await batches.delete_file(exchange.record.tenant, name):
            raise _missing(name)
        answer = {"id": name, "object": "file", "deleted": True}
    else:
        file = await known.get(exchange.record.tenant, name)
        if file is None:
            raise _missing(name)
        if found["content"]:
            await _download(exchange, known, file)
            return
        answer = shown(file)
    await exchange.answer(200, _encode(answer))


async def _upload(exchange: Exchange, gateway: Gateway, known: Files) -> File:
    limit = gateway.settings.batch.max_file_bytes
    body = await exchange.body(limit + OVERHEAD)
    form = read_form(exchange.headers.get("content-type", ""), body)
    part = form.get("file")
    if part is None or part.filename is None:
        raise RequestError("file: expected a file in the form.", param="file", code="invalid_value")
    if not 0 < len(part.content) <= limit:
        message = f"file: expected 1 to {limit} bytes, got {len(part.content)}."
        raise RequestError(message, param="file", code="invalid_file_size")
    purpose = _text(form.get("purpose"))
    if purpose != "batch":
        message = f'purpose: expected "batch", got {purpose[:40]!r}.'
        raise RequestError(message, param="purpose", code="invalid_value")
    keep = keep_of(_text(form.get("expires_after[anchor]")), _text(form.get("expires_after[seconds]")))
    name = part.filename.replace("\\", "/").rpartition("/")[2][:255] or "file"
    return await known.create(exchange.record.tenant, name, purpose, part.content, keep)


async def _listed(exchange: Exchange, known: Files) -> dict[str, object]:
    query = query_of(exchange)
    limit = number(query, "limit", 1, MAX_LIMIT, MAX_LIMIT)
    listed = await known.listed(exchange.record.tenant)
    if query.get("order", "desc") == "desc":
        listed.reverse()
    if purpose := query.get("purpose"):
        listed = [file for file in listed if file.purpose == purpose]
    if after := query.get("after"):
        places = [place for place, file in enumerate(listed) if file.id == after]
        if not places:
            raise RequestError(
                f"after: there is no file {after[:80]!r}.", param="after", code="invalid_value"
            )
        listed = listed[places[0] + 1 :]
    return page([shown(file) for file in listed[:limit]], more=len(listed) > limit)


async def _download(exchange: Exchange, known: Files, file: File) -> None:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(file.size).encode()),
    ]
    if exchange.scope["method"] == "HEAD":
        await exchange.start(200, headers)
        await exchange.end()
        return
    async with aclosing(known.content(file.tenant, file.parts)) as pieces:
        async for piece in pieces:
            if not exchange.started:  # a part that is missing is an error, not an answer that breaks off
                await exchange.start(200, headers)
            await exchange.write(piece)
    await exchange.end()


def keep_of(anchor: str, seconds: str) -> float:
    """Return how long a file is to be kept; 0 where nothing is said. Raises RequestError."""
    if not anchor and not seconds:
        return 0.0
    number = float(seconds) if seconds.isdecimal() and len(seconds) < 10 else 0.0
    if anchor != "created_at" or not _MIN_KEEP <= number <= _MAX_KEEP:
        expected = f'expected {{"anchor": "created_at", "seconds": {_MIN_KEEP:.0f} to {_MAX_KEEP:.0f}}}'
        raise RequestError(f"expires_after: {expected}.", param="expires_after", code="invalid_value")
    return number


def page(rows: list[dict[str, object]], *, more: bool) -> dict[str, object]:
    """Return a list as OpenAI's API shows a part of it."""
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more}


def _text(part: Part | None) -> str:
    return "" if part is None else bytes(part.content[:1024]).decode("utf-8", "replace").strip()


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"There is no file {name[:80]!r}.", code="file_not_found")
