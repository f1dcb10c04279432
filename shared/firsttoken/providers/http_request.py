"""What a request looks like on the wire: the parts of a URL, and the bytes of head and body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from firsttoken.errors import RequestError

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?([/?][!\"$-~]*)?")
_HEADER_LINE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*")
_OURS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect", "upgrade"}
Origin = tuple[str, str, int]  # scheme, host, port


@lru_cache(maxsize=256)
def split_url(url: str) -> tuple[Origin, str, str]:
    """Return origin, Host header and path of a URL. Raises RequestError for one that cannot be asked."""
    match = _URL.fullmatch(url)
    if match is None or int(match[3] or 0) > 65535:
        raise RequestError("the upstream URL must look like https://host[:port]/path, percent-encoded")
    scheme, host, port, path = match.groups(default="")
    origin = scheme, host, int(port or (443 if scheme == "https" else 80))
    return origin, f"{host}:{port}" if port else host, path if path.startswith("/") else f"/{path}"


def encode_request(
    method: str, path: str, host: str, headers: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    """Return the bytes of a request. Raises RequestError for a method or a header that cannot be sent."""
    if not (method.isascii() and method.isalpha() and method.isupper()):
        raise RequestError("the method of an upstream request must be upper-case letters")
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "accept-encoding: identity"]
    if body or method not in {"GET", "HEAD"}:
        lines.append(f"content-length: {len(body)}")
    for name, value in headers:
        line = f"{name}: {value}"
        if _HEADER_LINE.fullmatch(line) is None or name.lower() in _OURS:
            raise RequestError(f"the header {name!r} cannot be sent upstream: not valid, or not the caller's")
        lines.append(line)
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + body
