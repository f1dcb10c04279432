"""The functions of Bicep that deployments here use, and what a subscription looks like in tests.

What Azure hashes (``uniqueString``, ``guid``) is hashed in another way here: as stable, and as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import chain
from typing import Any
from uuid import NAMESPACE_URL, uuid5

ZERO = "00000000-0000-0000-0000-000000000000"


def _unique(*parts: str) -> str:
    digits = sha256("|".join(parts).encode()).digest()
    return "".join("abcdefghijklmnopqrstuvwxyz234567"[byte % 32] for byte in digits[:13])


def _union(*values: Any) -> Any:
    if isinstance(values[0], dict):
        return {key: value for part in values for key, value in part.items()}
    return list(dict.fromkeys(chain.from_iterable(values)))


def _items(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value[key]} for key in sorted(value)]


def _to_object(
    items: Iterable[Any], key: Callable[[Any], str], value: Callable[[Any], Any] = lambda item: item
) -> dict[str, Any]:
    return {key(item): value(item) for item in items}


def _role(kind: str, *names: str) -> str:
    return f"/subscriptions/{ZERO}/providers/{kind}/{'/'.join(names)}"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": lambda *parts: "".join(parts) if isinstance(parts[0], str) else list(chain(*parts)),
    "contains": lambda where, what: what in where,
    "empty": lambda value: not value,
    "environment": lambda: {"suffixes": {"storage": "core.windows.net"}},
    "filter": lambda items, keep: [item for item in items if keep(item)],
    "first": lambda items: items[0],
    "flatten": lambda items: list(chain.from_iterable(items)),
    "guid": lambda *parts: str(uuid5(NAMESPACE_URL, "|".join(parts))),
    "items": _items,
    "join": lambda items, sign: sign.join(items),
    "json": json.loads,
    "last": lambda items: items[-1],
    "length": len,
    "map": lambda items, change: [change(item) for item in items],
    "max": max,
    "min": min,
    "range": lambda start, count: list(range(start, start + count)),
    "replace": lambda text, old, new: text.replace(old, new),
    "skip": lambda items, count: items[count:],
    "split": lambda text, sign: text.split(sign),
    "string": lambda value: value if isinstance(value, str) else json.dumps(value),
    "subscription": lambda: {"id": f"/subscriptions/{ZERO}", "subscriptionId": ZERO, "tenantId": ZERO},
    "subscriptionResourceId": _role,
    "take": lambda items, count: items[:count],
    "tenant": lambda: {"tenantId": ZERO},
    "toLower": str.lower,
    "toObject": _to_object,
    "toUpper": str.upper,
    "union": _union,
    "uniqueString": _unique,
}
