"""The parts of a Bicep file: statements, and the expressions in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


class BicepError(Exception):
    """A file that is not understood, or an expression that has no value; ``rule`` names the kind of fault."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass(frozen=True)
class Name:
    id: str
    line: int


@dataclass(frozen=True)
class Text:
    """Texts and expressions in turn, as in ``'a-${b}'``."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Array:
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Object:
    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class For:
    names: tuple[str, ...]
    source: Any
    body: Any


@dataclass(frozen=True)
class If:
    condition: Any
    body: Any


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Any, ...]
    line: int


@dataclass(frozen=True)
class Access:
    base: Any
    key: Any
    line: int


@dataclass(frozen=True)
class Operation:
    sign: str
    operands: tuple[Any, ...]


@dataclass(frozen=True)
class Lambda:
    names: tuple[str, ...]
    body: Any


@dataclass(frozen=True)
class Statement:
    """``kind`` is param, var, resource, module, output or targetScope; ``type`` what follows the name."""

    kind: str
    name: str
    type: str
    value: Any
    line: int
    existing: bool = False
    decorators: dict[str, Any] = field(default_factory=dict)


NODES = (Literal, Name, Text, Array, Object, For, If, Call, Access, Operation, Lambda)


def walk(node: Any) -> Iterator[Any]:
    """Yield an expression and all that it is made of."""
    if isinstance(node, NODES):
        yield node
    for part in fields_of(node):
        yield from walk(part)


def fields_of(node: Any) -> Iterator[Any]:
    """Yield what an expression is directly made of."""
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, NODES):
        yield from (getattr(node, part.name) for part in fields(node))
