"""What a Bicep compiler would say: symbols that do not exist, properties that a resource type does not have.

The types come from a table that is made of Microsoft's packages (scripts/azure_schema.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from infra.bicep_build import KINDS, Build, Later
from infra.bicep_functions import FUNCTIONS
from infra.bicep_syntax import read
from infra.bicep_tree import Access, Call, For, Lambda, Literal, Name, Statement, fields_of, walk

BUILT_IN = ("name", "parent", "scope", "dependsOn")
"""Properties that every resource has in Bicep; the models leave them out."""
PLAIN = {"string": str, "int": int, "float": (int, float), "bool": bool}


class Fault(NamedTuple):
    """A rule that is broken, and where."""

    rule: str
    message: str


def check_symbols(folder: Path) -> Iterator[Fault]:
    """Yield names, functions, outputs and parameters that are used and not there, or there and not used."""
    files = {path.name: read(path) for path in sorted(folder.glob("*.bicep"))}
    for file, statements in files.items():
        names = {
            statement.name: statement
            for statement in statements
            if statement.kind not in ("output", "targetScope")
        }
        used: set[str] = set()
        for statement in statements:
            where = f"{file}:{statement.line}"
            if statement.kind in ("param", "output") and statement.type not in KINDS:
                yield Fault("undefined-symbol", f"{where}: there is no type {statement.type}")
            for name, line in _names(statement.value, frozenset()):
                used.add(name)
                if name not in names:
                    yield Fault("undefined-symbol", f"{file}:{line}: there is no {name}")
            yield from _check_calls(statement, file)
            yield from _check_outputs(statement, names, files, file)
            if statement.kind == "module":
                yield from _check_parameters(statement, files, where)
        for name, statement in names.items():
            if statement.kind in ("param", "var") and name not in used:
                yield Fault("unused", f"{file}:{statement.line}: {statement.kind} {name} is not used")


def check_types(build: Build, schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what of the resources does not fit the models in ``schema``."""
    for resource in build.resources:
        where = f"{resource.file}: {resource.symbol}"
        if resource.kind not in schema["resources"]:
            yield Fault("unknown-type", f"{where}: {resource.kind} is not in the table")
        elif not resource.existing:
            body = {key: value for key, value in resource.body.items() if key not in BUILT_IN}
            model = "ref:" + schema["resources"][resource.kind]
            yield from _check_value(body, model, where, schema["models"])
    for kind, path in sorted(build.reads):
        model = schema["resources"].get(kind, "")
        for part in path:
            entry = schema["models"].get(model, {}).get(part)
            if entry is None and model in schema["models"]:
                yield Fault("unknown-property", f"{kind}: {'.'.join(path)}: there is no {part} to read")
            model = (entry or "").rstrip("!-").removeprefix("ref:")


def _names(node: Any, inner: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield the names that an expression takes from its file, not from a loop or lambda around them."""
    if isinstance(node, Name):
        if node.id not in inner:
            yield node.id, node.line
    elif isinstance(node, For):
        yield from _names(node.source, inner)
        yield from _names(node.body, inner | set(node.names))
    elif isinstance(node, Lambda):
        yield from _names(node.body, inner | set(node.names))
    else:
        for part in fields_of(node):
            yield from _names(part, inner)


def _check_calls(statement: Statement, file: str) -> Iterator[Fault]:
    for node in walk((statement.value, tuple(statement.decorators.values()))):
        if isinstance(node, Call) and node.name not in FUNCTIONS and not node.name.startswith(".list"):
            yield Fault("undefined-symbol", f"{file}:{node.line}: there is no function {node.name}()")


def _check_outputs(
    statement: Statement, names: Mapping[str, Statement], files: Mapping[str, list[Statement]], file: str
) -> Iterator[Fault]:
    """Yield ``module.outputs.name`` whose module does not give that."""
    for node in walk(statement.value):
        match node:
            case Access(Access(base, Literal("outputs")), Literal(wanted)):
                source = base.base if isinstance(base, Access) else base
                module = names.get(source.id) if isinstance(source, Name) else None
                given = [s.name for s in files.get(module.type, []) if s.kind == "output"] if module else []
                if module and wanted not in given:
                    yield Fault(
                        "undefined-symbol", f"{file}:{node.line}: {module.type} has no output {wanted}"
                    )


def _check_parameters(
    statement: Statement, files: Mapping[str, list[Statement]], where: str
) -> Iterator[Fault]:
    if statement.type not in files:
        yield Fault("undefined-symbol", f"{where}: there is no file {statement.type}")
        return
    body = statement.value
    while not hasattr(body, "pairs"):
        body = body.body
    pairs = next((value.pairs for key, value in body.pairs if key == Literal("params")), ())
    given = {key.value for key, _ in pairs}
    known = {s.name: s.value is None for s in files[statement.type] if s.kind == "param"}
    for name in sorted(given - known.keys()):
        yield Fault("module-parameters", f"{where}: {statement.type} has no parameter {name}")
    for name in sorted(name for name, needed in known.items() if needed and name not in given):
        yield Fault("module-parameters", f"{where}: {statement.type} needs the parameter {name}")


def _check_value(value: Any, kind: str, where: str, models: Mapping[str, Any]) -> Iterator[Fault]:
    kind, _, inner = kind.rstrip("!").partition(":")
    if kind == "any" or value is None or isinstance(value, Later):
        return
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield Fault("wrong-type", f"{where}: expected {kind}, got {value!r}")
    elif kind == "enum":
        if str(value) not in inner.split("|"):
            yield Fault("wrong-type", f"{where}: expected one of {inner}, got {value!r}")
    elif not isinstance(value, list if kind == "list" else dict):
        yield Fault("wrong-type", f"{where}: expected {kind}:{inner}, got {value!r}")
    elif kind == "ref":
        yield from _check_object(value, inner, where, models)
    else:
        for key, item in enumerate(value) if kind == "list" else value.items():
            yield from _check_value(item, inner, f"{where}.{key}", models)


def _check_object(value: dict[str, Any], name: str, where: str, models: Mapping[str, Any]) -> Iterator[Fault]:
    model = models[name]
    for key, kinds in model.get("?", {}).items():  # which model it is stands in one of its properties
        chosen = kinds.get(value.get(key))
        if chosen is None:
            yield Fault(
                "wrong-type", f"{where}.{key}: expected one of {', '.join(kinds)}, got {value.get(key)!r}"
            )
        elif chosen != f"ref:{name}":
            yield from _check_object(value, chosen.removeprefix("ref:"), where, models)
            return
    known = {key: kind for key, kind in model.items() if key != "?"}
    for key, item in value.items():
        kind = known.get(key)
        if kind is None:
            yield Fault("unknown-property", f"{where}: there is no {key} in {name}")
        elif kind.endswith("-"):
            yield Fault("read-only", f"{where}.{key}: only the service sets it")
        else:
            yield from _check_value(item, kind, f"{where}.{key}", models)
    for key in (key for key, kind in known.items() if kind.endswith("!") and key not in value):
        yield Fault("missing-property", f"{where}: {key} is required")
