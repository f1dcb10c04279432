"""The two spellings of Google's JSON: ``camelCase`` and ``snake_case`` are the same field.

Clients mix them within one request (Google's own SDK does), so a request is read in one spelling.
"""

from __future__ import annotations

from typing import Any

_VERBATIM = frozenset(
    {
        *("args", "response", "labels", "partMetadata", "schema"),
        *("parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"),
    }
)
"""Fields whose content is the user's: names in there are data."""
_SINGLE = frozenset({"contents", "parts", "tools", "functionDeclarations"})
"""Lists that the API also takes as their one element."""


def camel(name: str) -> str:
    """Return the ``camelCase`` spelling of a field's name."""
    if "_" not in name:
        return name
    head, *tail = name.split("_")
    return head + "".join([part[:1].upper() + part[1:] for part in tail])


def camelised(value: Any) -> Any:
    """Return JSON with its field names in ``camelCase``; user data stays as it is."""
    if isinstance(value, list):
        return [camelised(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {}
    for name, inner in value.items():
        if inner is None:
            continue  # the same as not being there
        field = camel(name)
        kept = inner if field in _VERBATIM else camelised(inner)
        fields[field] = [kept] if field in _SINGLE and isinstance(kept, dict) else kept
    return fields


__all__ = ["camel", "camelised"]
