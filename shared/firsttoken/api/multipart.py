"""The body of a form with files (``multipart/form-data``, RFC 7578), read strictly.

A library would be one more dependency of every function, for one endpoint. What is read here is small: parts
between boundaries, each with a name, none of them encoded or nested.
"""

from __future__ import annotations

import re

from msgspec import Struct

from firsttoken.errors import RequestError

MAX_PARTS = 32
MAX_HEAD = 8 * 1024
_BOUNDARY = re.compile(
    r'multipart/form-data\s*;.*\bboundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_DISPOSITION = re.compile(
    r'form-data((?:\s*;\s*[a-z*]+=(?:"(?:[^"\\\r\n]|\\.)*"|[^\s;"]+))*)\s*', re.IGNORECASE
)
_PARAMETER = re.compile(r';\s*([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


class Part(Struct, frozen=True):
    """A field of the form: ``content`` is a view of the body, ``filename`` None where it is no file."""

    name: str
    content: memoryview
    filename: str | None = None


def read_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields of a form, by name. Nothing of the body is copied. Raises RequestError."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        expected = "expected multipart/form-data with a boundary"
        raise RequestError(f"content-type: {expected}, got {content_type[:100]!r}.")
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    if not body.startswith(delimiter):
        raise _malformed("expected the boundary at its beginning")
    parts: dict[str, Part] = {}
    view, start = memoryview(body), len(delimiter)
    while body[start : start + 2] == b"\r\n":
        end = body.find(b"\r\n" + delimiter, start)
        if end < 0:
            raise _malformed("expected a boundary behind each part")
        part = _read_part(body, view, start + 2, end)
        if part.name in parts:
            raise _malformed(f"expected the field {part.name[:40]!r} once")
        parts[part.name] = part
        if len(parts) > MAX_PARTS:
            raise _malformed(f"expected at most {MAX_PARTS} fields")
        start = end + 2 + len(delimiter)
    if body[start : start + 2] != b"--":
        raise _malformed("expected the last boundary at its end")
    return parts


def _read_part(body: bytes, view: memoryview, start: int, end: int) -> Part:
    # The empty line that ends the head may be the one that the part begins with.
    head_end = body.find(b"\r\n\r\n", start, min(end + 2, start + MAX_HEAD))
    if head_end < 0 or head_end + 4 > end + 2:
        raise _malformed("expected headers and an empty line in each part")
    try:
        head = body[start:head_end].decode()
    except UnicodeDecodeError as error:
        raise _malformed("expected headers in UTF-8") from error
    headers: dict[str, str] = {}
    for line in head.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or name.lower() in headers:
            raise _malformed("expected each header of a part once, as NAME: VALUE")
        headers[name.lower()] = value.strip()
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise _malformed("expected parts that are not encoded")
    named = _DISPOSITION.fullmatch(headers.get("content-disposition", ""))
    values = {
        key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(named[1] if named else "")
    }
    if not values.get("name"):
        raise _malformed('expected content-disposition: form-data; name="..." in each part')
    filename = values.get("filename")
    shown = None if filename is None else re.sub(r"\\(.)", r"\1", filename)
    return Part(values["name"], view[min(head_end + 4, end) : end], shown)


def _malformed(what: str) -> RequestError:
    return RequestError(f"The form cannot be read: {what}.", code="invalid_form")
