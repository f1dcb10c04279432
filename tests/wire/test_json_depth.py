"""The depth of a JSON text, against a plain walk over its values."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from firsttoken.wire.json_depth import deeper_than


def depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max((depth(child) for child in children), default=0)


def value(rng: random.Random, room: int) -> Any:
    kind = rng.randrange(4) if room else 3
    if kind == 0:
        return [value(rng, room - 1) for _ in range(rng.randrange(4))]
    if kind == 1:
        return {f'k{i}\\"[': value(rng, room - 1) for i in range(rng.randrange(4))}
    return rng.choice(["[[{", '\\"[', "\\\\", "}]", '"', 1, None, "日本["])


@pytest.mark.parametrize("seed", range(50))
def test_agrees_with_a_walk(seed: int) -> None:
    """Brackets inside strings, escapes and any mix of arrays and objects are told apart."""
    tree = value(random.Random(seed), 9)
    text = json.dumps(tree, ensure_ascii=bool(seed % 2)).encode()
    for limit in range(1, 12):
        assert deeper_than(text, limit) == (depth(tree) > limit)


def test_a_huge_flat_text_is_not_deep() -> None:
    """Many brackets side by side are fine."""
    assert not deeper_than(b"[" + b"[]," * 100_000 + b"[]]", 3)
    assert deeper_than(b"[" * 100_000 + b"]" * 100_000, 64)
