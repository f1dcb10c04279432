"""Decode the JSON body of a request, and say of a wrong one which field is wrong and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw

from firsttoken.chat import ChatRequest
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.model import Source

T = TypeVar("T")

_fields = msgspec.json.Decoder(dict[str, Raw])


def decode(decoder: msgspec.json.Decoder[T], body: bytes, enums: Mapping[str, str] | None = None) -> T:
    """Decode ``body``. ``enums`` maps the last name of a path to the values that are possible there.

    Raises RequestError.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        name = path.rstrip("`").removeprefix(".") or _missing(what)
        if what.startswith("Invalid enum value") and (known := (enums or {}).get(name.rpartition(".")[2])):
            what += f"; expected one of {known}"
        message = f"{name}: {what}" if name else what
        raise RequestError(message, param=name or None, code="invalid_value") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The body is not valid JSON: {error}. Expected a JSON object."
        raise RequestError(message, code="invalid_json") from error
    except RecursionError as error:
        raise RequestError("The body is nested too deep.", code="nested_too_deep") from error


def fields(body: bytes) -> dict[str, Raw]:
    """Return the top-level fields of a JSON object that `decode` has accepted, each still as bytes."""
    return _fields.decode(body)


def with_model(body: bytes, model: str) -> bytes:
    """Return ``body`` with nothing but its top-level ``model`` replaced."""
    all_fields = fields(body)
    all_fields["model"] = Raw(msgspec.json.encode(model))
    return msgspec.json.encode(all_fields)


def refuse_unknown(source: Source, wire: str) -> None:
    """Refuse to translate fields that only the client's format has. Raises UnsupportedFieldError."""
    if source.unknown:
        raise unsupported(source.unknown[0], wire)


def refuse(request: ChatRequest, wire: str, *names: str) -> None:
    """Refuse those of the neutral fields ``names`` that the request uses. Raises UnsupportedFieldError."""
    for name in names:
        if getattr(request, name) not in (None, "", ()):
            raise unsupported(name, wire)


def unsupported(name: str, wire: str) -> UnsupportedFieldError:
    """Return the error for a field that a format has no word for."""
    message = f"{name}: a target that speaks {wire} cannot honour this; leave it out or use another model."
    return UnsupportedFieldError(message, param=name)


def _missing(what: str) -> str:
    parts = what.split("`")
    return parts[1] if what.startswith("Object missing required field") and len(parts) > 2 else ""
