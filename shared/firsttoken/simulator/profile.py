"""How a simulated model behaves: its speed, its limits, and the fault that it shows.

A profile is set by configuration and, where faults are allowed, changed for one request by a header such as
``x-firsttoken-simulate: fault=cut, after=5, itl_ms=20``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from firsttoken.errors import RequestError

HEADER = "x-firsttoken-simulate"

Fault = Literal["", "status", "hang", "slow", "stall", "cut", "reset", "malformed", "error_event"]
"""What goes wrong.  ``status`` answers with ``status`` (and ``retry_after``); ``hang`` never answers;
``slow`` waits ``slow_factor`` times ``ttft_ms``; the others happen behind ``after`` tokens: ``stall`` falls
silent, ``cut`` closes the connection without the end of the body, ``reset`` resets it, ``malformed`` sends a
broken frame, ``error_event`` an error event.
"""


class Profile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times are milliseconds; counts are tokens."""

    seed: int = 0
    ttft_ms: Annotated[float, Meta(ge=0)] = 150.0
    itl_ms: Annotated[float, Meta(ge=0)] = 20.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.0
    tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    context_window: Annotated[int, Meta(ge=16)] = 8192
    fault: Fault = ""
    slow_factor: Annotated[float, Meta(ge=1)] = 10.0
    after: Annotated[int, Meta(ge=0)] = 3
    status: Annotated[int, Meta(ge=400, le=599)] = 500
    retry_after: Annotated[float, Meta(ge=0)] | None = None
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the calls that show the fault."""
    rpm: Annotated[int, Meta(ge=0)] = 0
    """Requests a minute and model, 0 for as many as come."""
    tpm: Annotated[int, Meta(ge=0)] = 0
    """Tokens a minute and model, 0 for as many as come."""
    cache_minimum: Annotated[int, Meta(ge=0)] = 1024
    """Tokens that a prompt's prefix must have to be cached."""
    cache_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """How long a prefix stays cached after its last use, 0 for as long as the format's provider keeps it."""
    embed_call_ms: Annotated[float, Meta(ge=0)] = 0.0
    """What an accelerator takes for a call for vectors; it works on one call after the other ..."""
    embed_text_ms: Annotated[float, Meta(ge=0)] = 0.0
    """... and for each text in it."""
    batch_polls: Annotated[int, Meta(ge=0)] = 1
    """How often a batch must be looked at until it has ended; in between it advances evenly."""
    batch_errors: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the requests of a batch that fail."""
    batch_done: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the requests of a batch that are done when its time is over; below 1 it expires then."""
    slice: Annotated[int, Meta(ge=0)] = 0
    """Bytes per write on the wire, to split characters and events; 0 writes whole events."""

    def changed(self, spec: str) -> Profile:
        """Return this profile with the ``key=value`` pairs of ``spec``.

        Raises RequestError naming what is wrong.
        """
        pairs = dict(_pair(item) for item in spec.split(",") if item.strip())
        try:
            return msgspec.convert({**msgspec.to_builtins(self), **pairs}, Profile, strict=False)
        except msgspec.ValidationError as error:
            raise RequestError(f"{HEADER}: {error}; expected {', '.join(_FIELDS)}", param=HEADER) from error


_FIELDS = Profile.__struct_fields__


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise RequestError(f"{HEADER}: expected key=value, got {item.strip()!r}", param=HEADER)
    return key.strip(), value.strip()
