"""What Bicep files would deploy, worked out without Azure: loops run, modules opened, parameters filled in.

What only Azure can know is a `Later`, a text that says what it stands for. A deployment that cannot be worked
out is a `BicepError`: a missing or wrong parameter, an unknown function, an output that no module gives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bicep_functions import FUNCTIONS
from infra.bicep_syntax import read
from infra.bicep_tree import (
    Access,
    Array,
    BicepError,
    Call,
    For,
    If,
    Lambda,
    Literal,
    Name,
    Object,
    Operation,
    Statement,
    Text,
)

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000"
_NOTHING = object()
KINDS = {"string": str, "int": int, "bool": bool, "object": dict, "array": list}

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
    "%": operator.mod,
}


class Later(str):
    """A value that only the deployment brings."""

    __slots__ = ()


@dataclass
class Resource:
    """One resource as it would be sent; ``name`` has its parents before it."""

    file: str
    symbol: str
    type: str
    api: str
    existing: bool
    id: str
    name: str
    body: dict[str, Any]
    scope: Resource | None = None

    @property
    def kind(self) -> str:
        """The type with the version of its API."""
        return f"{self.type}@{self.api}"

    @property
    def properties(self) -> dict[str, Any]:
        """What is set in its properties."""
        return self.body.get("properties") or {}


@dataclass
class Build:
    """All resources of a deployment, and which properties of them were read: ``(kind, path)``."""

    resources: list[Resource] = field(default_factory=list)
    reads: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, symbol: str = "") -> list[Resource]:
        """Return the new resources of a type (without its version), and of one symbol if that is given."""
        return [
            resource
            for resource in self.resources
            if resource.type == kind and not resource.existing and symbol in ("", resource.symbol)
        ]


def build(main: Path, parameters: dict[str, Any]) -> Build:
    """Work out what a deployment of ``main`` with these parameters makes. Raises BicepError."""
    result = Build()
    instance = _Instance(main, parameters, "", result)
    instance.deploy()
    result.outputs = {name: instance.output(name) for name in instance.outputs}
    return result


class _Properties:
    """The properties of a resource where they are read: set here, or only known later."""

    def __init__(self, resource: Resource, path: tuple[str, ...], value: Any) -> None:
        self.resource, self.path, self.value = resource, path, value


class _Instance:
    """One file with its parameters, in one resource group; a symbol is worked out when it is first needed."""

    def __init__(self, path: Path, given: dict[str, Any], group: str, result: Build) -> None:
        self.path, self.group, self.result = path, group, result
        statements = read(path)
        self.outputs = {s.name: s for s in statements if s.kind == "output"}
        self._symbols = {s.name: s for s in statements if s.kind not in ("output", "targetScope")}
        self._values: dict[str, Any] = {}
        self._working: set[str] = set()
        unknown = sorted(name for name in given if self._kind(name) != "param")
        if unknown:
            raise BicepError("module-parameters", f"{path.name}: there is no parameter {unknown[0]}")
        for name, statement in self._symbols.items():
            if statement.kind == "param":
                self._values[name] = self._parameter(statement, given)

    def deploy(self) -> None:
        """Work out all resources and modules."""
        for name in self._symbols:
            self.value(name)

    def output(self, name: str) -> Any:
        if name not in self.outputs:
            raise BicepError("undefined-symbol", f"{self.path.name}: there is no output {name}")
        statement = self.outputs[name]
        value = self._settled(self._evaluate(statement.value, {}))
        self._check_kind(statement, value)
        return value

    def value(self, name: str) -> Any:
        if name not in self._values:
            if name in self._working:
                raise BicepError("cycle", f"{self.path.name}: {name} needs itself")
            if name not in self._symbols:
                raise BicepError("undefined-symbol", f"{self.path.name}: there is no {name}")
            self._working.add(name)
            self._values[name] = self._work_out(self._symbols[name])
            self._working.discard(name)
        return self._values[name]

    def _kind(self, name: str) -> str:
        return self._symbols[name].kind if name in self._symbols else ""

    def _parameter(self, statement: Statement, given: dict[str, Any]) -> Any:
        where = f"{self.path.name}: parameter {statement.name}"
        if statement.name not in given and statement.value is None:
            raise BicepError("module-parameters", f"{where} is missing")
        value = given[statement.name] if statement.name in given else self._evaluate(statement.value, {})
        self._check_kind(statement, value)
        limits = {name: self._evaluate(node, {}) for name, node in statement.decorators.items() if node}
        size = value if isinstance(value, int) else len(value)
        for name in ("minLength", "minValue", "maxLength", "maxValue"):
            limit = limits.get(name, size)
            if (size < limit) if name.startswith("min") else (size > limit):
                raise BicepError("module-parameters", f"{where}: {name} is {limit}, got {size}")
        if value not in limits.get("allowed", [value]):
            raise BicepError("module-parameters", f"{where}: {value!r} is not in {limits['allowed']}")
        return value

    def _check_kind(self, statement: Statement, value: Any) -> None:
        expected = KINDS.get(statement.type, object)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is int):
            where = f"{self.path.name}: {statement.kind} {statement.name}"
            raise BicepError("module-parameters", f"{where}: expected {statement.type}, got {value!r}")

    def _work_out(self, statement: Statement) -> Any:
        if statement.kind == "var":
            return self._evaluate(statement.value, {})
        make = self._resource if statement.kind == "resource" else self._module
        node = statement.value
        if isinstance(node, For):
            return [make(statement, node.body, env) for env in self._loop(node, {})]
        if isinstance(node, If):
            return make(statement, node.body, {}) if self._evaluate(node.condition, {}) else None
        return make(statement, node, {})

    def _resource(self, statement: Statement, node: Any, env: dict[str, Any]) -> Resource:
        kind, _, api = statement.type.partition("@")
        body = {self._text(key, env): self._evaluate(value, env) for key, value in node.pairs}
        parent, scope = body.pop("parent", None), body.pop("scope", None)
        body = {key: self._settled(value) for key, value in body.items() if key != "dependsOn"}
        name = f"{parent.name}/{body['name']}" if parent else body["name"]
        base = scope.id if scope else f"{SUBSCRIPTION}/resourceGroups/{self.group}"
        if kind == "Microsoft.Resources/resourceGroups":
            identity = f"{SUBSCRIPTION}/resourceGroups/{name}"
        else:
            types = kind.split("/")
            pairs = zip(types[1:], name.split("/"), strict=True)
            identity = "/".join([base, "providers", types[0], *(part for pair in pairs for part in pair)])
        where = (self.path.name, statement.name)
        found = Resource(*where, kind, api, statement.existing, identity, name, body, scope)
        self.result.resources.append(found)
        return found

    def _module(self, statement: Statement, node: Any, env: dict[str, Any]) -> _Instance:
        body = {self._text(key, env): self._evaluate(value, env) for key, value in node.pairs}
        group = body["scope"].name if "scope" in body else self.group
        path = self.path.parent / statement.type
        if not path.is_file():
            raise BicepError("undefined-symbol", f"{self.path.name}: there is no file {statement.type}")
        instance = _Instance(path, self._settled(body.get("params", {})), group, self.result)
        instance.deploy()
        return instance

    def _loop(self, node: For, env: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index, item in enumerate(self._evaluate(node.source, env)):
            yield {**env, **dict(zip(node.names, (item, index), strict=False))}

    def _text(self, node: Any, env: dict[str, Any]) -> str:
        return str(self._evaluate(node, env))

    def _evaluate(self, node: Any, env: dict[str, Any]) -> Any:
        plain = self._plain(node, env)
        if plain is not _NOTHING:
            return plain
        match node:
            case For(_, _, body):
                return [self._evaluate(body, inner) for inner in self._loop(node, env)]
            case Lambda(names, body):
                return lambda *values: self._evaluate(body, {**env, **dict(zip(names, values, strict=True))})
            case Access(base, key):
                return self._access(self._evaluate(base, env), self._evaluate(key, env), node.line)
            case Operation(sign, operands):
                return self._operation(sign, operands, env)
        raise BicepError("syntax", f"{self.path.name}: {node!r} has no value")

    def _plain(self, node: Any, env: dict[str, Any]) -> Any:
        found = _NOTHING
        match node:
            case Literal(value):
                found = value
            case Text(parts):
                found = "".join(p if isinstance(p, str) else _shown(self._value(p, env)) for p in parts)
            case Name(name):
                found = env[name] if name in env else self.value(name)
            case Array(items):
                found = [self._evaluate(item, env) for item in items]
            case Object(pairs):
                found = {self._text(key, env): self._evaluate(value, env) for key, value in pairs}
            case Call(name, arguments):
                found = self._call(f"{self.path.name}:{node.line}", name, arguments, env)
        return found

    def _call(self, where: str, name: str, arguments: tuple[Any, ...], env: dict[str, Any]) -> Any:
        if name.startswith(".list"):  # keys of a resource: a rule of its own says no to them
            return Later(f"<{name}>")
        if name not in FUNCTIONS:
            raise BicepError("undefined-symbol", f"{where}: there is no function {name}()")
        return FUNCTIONS[name](*(self._value(argument, env) for argument in arguments))

    def _value(self, node: Any, env: dict[str, Any]) -> Any:
        return self._settled(self._evaluate(node, env))

    def _operation(self, sign: str, operands: tuple[Any, ...], env: dict[str, Any]) -> Any:
        first = self._value(operands[0], env)
        if sign == "?":
            return self._evaluate(operands[1 if first else 2], env)
        if len(operands) == 1:
            return not first if sign == "!" else -first
        if sign in ("&&", "||"):
            return first if bool(first) == (sign == "||") else self._value(operands[1], env)
        if sign == "??":
            return self._value(operands[1], env) if first is None else first
        return _OPERATORS[sign](first, self._value(operands[1], env))

    def _access(self, base: Any, key: Any, line: int) -> Any:
        match base:
            case _Outputs():
                return base.instance.output(key)
            case _Instance() if key == "outputs":
                return _Outputs(base)
            case Resource():
                return self._of_resource(base, key)
            case _Properties():
                known = base.value.get(key) if isinstance(base.value, dict) else None
                return _Properties(base.resource, (*base.path, key), known)
            case Later():
                return Later(f"{base}.{key}")
        try:
            return base[key]
        except (KeyError, IndexError, TypeError):
            message = f"{self.path.name}:{line}: there is no {key!r} here"
            raise BicepError("undefined-symbol", message) from None

    def _of_resource(self, resource: Resource, key: str) -> Any:
        plain = {"id": resource.id, "name": resource.body["name"], "type": resource.type}
        if key in plain:
            return plain[key]
        return _Properties(resource, (key,), resource.body.get(key))

    def _settled(self, value: Any) -> Any:
        """The value with what is read of resources filled in, at any depth."""
        if isinstance(value, _Properties):
            self.result.reads.add((value.resource.kind, value.path))
            known = value.value
            return Later(f"<{value.resource.id}: {'.'.join(value.path)}>") if known is None else known
        if isinstance(value, list):
            return [self._settled(item) for item in value]
        if isinstance(value, dict):
            return {key: self._settled(item) for key, item in value.items()}
        return value


@dataclass(frozen=True)
class _Outputs:
    instance: _Instance


def _shown(value: Any) -> str:
    """How a value looks inside a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
