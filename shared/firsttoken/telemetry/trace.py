"""W3C Trace Context (https://www.w3.org/TR/trace-context/): whose part of what a call is."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

from firsttoken.telemetry.record import Record

HEADER = "traceparent"
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def parse(header: str) -> tuple[str, str, str] | None:
    """Return trace, span and flags (hexadecimal) of a ``traceparent``, or None where it is not one."""
    found = _FORM.fullmatch(header.strip())
    if found is None or (found[1] == "00" and found[5]):
        return None
    if found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    return found[2], found[3], found[4]


def begin(record: Record, headers: MutableMapping[str, str], *, always: bool) -> None:
    """Make the call a span of its client's trace, and in ``headers`` the parent of what it calls.

    Without a client's trace it begins one where ``always`` is set. A header that is not valid is taken out.
    """
    found = parse(headers[HEADER]) if HEADER in headers else None
    if found is None:
        headers.pop(HEADER, None)
        headers.pop("tracestate", None)  # it says nothing without the other
        if not always:
            return
        found = (os.urandom(16).hex(), "", "01")
    trace, record.parent, flags = found
    # The lowest bits are all that version 00 knows: 1, sampled.
    record.trace = f"00-{trace}-{os.urandom(8).hex()}-{int(flags, 16) & 1:02x}"
    headers[HEADER] = record.trace
