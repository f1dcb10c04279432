"""The query of a request: what stands behind the path."""

from __future__ import annotations

from urllib.parse import parse_qs

from firsttoken.api.exchange import Exchange
from firsttoken.errors import RequestError

_MAX_DIGITS = 15


def query_of(exchange: Exchange) -> dict[str, str]:
    """Return the query of a request; of a name that comes more than once the last value."""
    query: bytes = exchange.scope.get("query_string", b"")
    said = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in said.items()}


def number(query: dict[str, str], name: str, least: int, most: int, default: int) -> int:
    """Return a number of the query. Raises RequestError for what is none, or out of bounds."""
    said = query.get(name)
    if said is None:
        return default
    value = int(said) if said.isascii() and said.isdigit() and len(said) <= _MAX_DIGITS else least - 1
    if not least <= value <= most:
        message = f"{name}: expected a number from {least} to {most}, got {said[:40]!r}."
        raise RequestError(message, param=name, code="invalid_value")
    return value
