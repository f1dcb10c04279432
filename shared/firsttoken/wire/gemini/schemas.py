"""Google's schemas (a subset of OpenAPI 3.0) as JSON schemas.

Source: the Gemini API reference, "Schema". The other direction is not needed: the API takes JSON schemas in
``parametersJsonSchema`` and ``responseJsonSchema``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.wire.gemini.names import camel

_NAMES = {"defs": "$defs", "ref": "$ref"}
_NUMBERS = frozenset(
    {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}  # int64: as strings
)
_NO_TYPE = "type_unspecified"


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema that says what ``schema`` says; the order of properties becomes their order."""
    read = {camel(name): value for name, value in schema.items() if value is not None}
    order, nullable = read.pop("propertyOrdering", None), read.pop("nullable", False)
    written: dict[str, Any] = {_NAMES.get(name, name): _value(name, value) for name, value in read.items()}
    if "example" in written:
        written["examples"] = [written.pop("example")]
    if str(written.get("type", "")) == _NO_TYPE:
        del written["type"]
    if isinstance(order, list) and isinstance(written.get("properties"), dict):
        properties = written["properties"]
        first = {name: properties[name] for name in order if name in properties}
        written["properties"] = {**first, **properties}
    return _nullable(written) if nullable is True else written


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _text(name, value)
    if name in {"properties", "defs"} and isinstance(value, dict):
        return {key: _inner(inner) for key, inner in value.items()}
    if name in {"items", "additionalProperties"}:
        return _inner(value)
    if name in {"anyOf", "prefixItems"} and isinstance(value, list):
        return [_inner(inner) for inner in value]
    return value


def _text(name: str, value: str) -> str | int:
    if name == "type":
        return value.lower()
    if name == "ref":
        return value.replace("#/defs/", "#/$defs/")
    return int(value) if name in _NUMBERS and value.isdecimal() else value


def _inner(schema: Any) -> Any:
    return json_schema(schema) if isinstance(schema, dict) else schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    else:
        return schema
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
    return schema


__all__ = ["json_schema"]
