"""Checks of Google's deployment files against what Terraform's provider and Cloud Run accept.

The schema is tests/data/google_schema.json, which scripts/google_schema.py writes.
"""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
from infra.gcp_deployment import Deployment

META = {"for_each", "count", "depends_on", "lifecycle", "provider", "dynamic", "__is_block__"}
ROOTS = {"var", "local", "data", "each", "path", "count", "self"}
BUILT_IN = {"path": {"module", "root", "cwd"}, "each": {"key", "value"}, "count": {"index"}}
STRING = re.compile(r'"(?:\\.|[^"\\])*"')
CHAIN = re.compile(r"(?<![\w.])([a-z_]\w*)((?:\.[a-z_]\w*)+)")
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
BOUND = re.compile(r"\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b")


def findings(deployment: Deployment, schema: dict[str, Any]) -> dict[str, list[str]]:
    """Every unknown or missing name, wrong type or value, and reference that leads nowhere."""
    found = {
        "schema": list(_resources(deployment, schema)),
        "references": list(_references(deployment, schema)),
        "service": list(_services(deployment, schema["service"])),
    }
    return {name: said for name, said in found.items() if said}


def _resources(deployment: Deployment, schema: dict[str, Any]) -> Iterator[str]:
    for kind, found in (("resource", deployment.resources), ("data", deployment.data)):
        for (type_name, name), body in found.items():
            known = schema[kind].get(type_name)
            if known is None:
                yield f"{type_name}.{name}: unknown resource (scripts/google_schema.py learns new ones)"
            else:
                yield from _body(f"{type_name}.{name}", body, known)


def _body(where: str, body: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """Check one block against its schema, and the blocks in it."""
    blocks = {name: list(rows) for name, rows in body.items() if name in known["blocks"] and _rows(rows)}
    for row in body.get("dynamic", ()):
        for name, dynamic in row.items():
            blocks.setdefault(name, []).extend(dynamic.get("content", ()))
    yield from _names(where, body, blocks, known)
    for name, value in body.items():
        if name in known["attributes"]:
            yield from _value(f"{where}.{name}", value, known["attributes"][name])
    for name, rows in blocks.items():
        for row in rows if name in known["blocks"] else ():
            yield from _body(f"{where}.{name}", row, known["blocks"][name])


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _names(where: str, body: dict[str, Any], blocks: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """Check which names stand in a block, and how often."""
    for name in body.keys() & known["blocks"].keys() - blocks.keys():
        yield f"{where}.{name}: expected a block, found {body[name]!r}"
    for name in (body.keys() | blocks.keys()) - known["attributes"].keys() - known["blocks"].keys() - META:
        yield f"{where}.{name}: unknown name"
    for name, (_, mode, *_) in known["attributes"].items():
        if mode == "required" and name not in body:
            yield f"{where}.{name}: missing"
    for name, inner in known["blocks"].items():
        found = len(blocks.get(name, ()))
        if (inner["required"] and not found) or (found > 1 and not inner["many"]):
            yield f"{where}.{name}: expected {'one block' if found else 'a block'}, found {found}"


def _value(where: str, value: Any, known: list[Any]) -> Iterator[str]:
    """Check a value that stands there as such; what an expression gives is not known."""
    shape, mode, *choice = known
    if mode == "computed":
        yield f"{where}: told by the provider, it cannot be given"
    if isinstance(value, str) and "${" in value:
        return
    kind = shape if isinstance(shape, str) else shape[0]
    fits = {
        "string": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "list": isinstance(value, list),
        "map": isinstance(value, dict),
    }
    if not fits.get(kind, True):
        yield f"{where}: expected {kind}, found {value!r}"
    elif choice and value not in choice[0]:
        yield f"{where}: expected one of {', '.join(choice[0])}, found {value!r}"


def _references(deployment: Deployment, schema: dict[str, Any]) -> Iterator[str]:
    """Check that what expressions name exists, and that every variable and local is named somewhere."""
    used: set[str] = set()
    for file, parsed in deployment.parsed.items():
        dynamic = set(re.findall(r'\bdynamic "(\w+)"', deployment.files[file]))
        for expression in _expressions(parsed):
            bound = {name for pair in BOUND.findall(expression) for name in pair if name} | dynamic
            for root, rest in _chains(expression):
                names = rest.split(".")[1:]
                used.add(f"{root}.{names[0]}")
                yield from (
                    f"{file}: {root}{rest}: {problem}"
                    for problem in _unresolved(deployment, schema, root, names, bound)
                )
    for kind, known in (("var", deployment.variables), ("local", deployment.locals)):
        for name in known:
            if f"{kind}.{name}" not in used:
                yield f"{kind}.{name}: used nowhere"


def _expressions(value: Any) -> Iterator[str]:
    """Yield the texts that hold expressions."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _expressions(key)
            yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)
    elif isinstance(value, str) and "${" in value:
        yield value


def _chains(text: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted names of the expressions in a text, those in the texts within them too."""
    for hole in _holes(text):
        for inner in STRING.findall(hole):
            yield from _chains(inner)
        bare = STRING.sub('""', hole)
        while (index := BRACKETS.search(bare)) is not None:
            yield from CHAIN.findall(index[1])
            bare = bare[: index.start()] + bare[index.end() :]
        yield from CHAIN.findall(bare)


def _holes(text: str) -> Iterator[str]:
    """Yield what stands between ``${`` and its brace."""
    start = text.find("${")
    while start >= 0:
        depth, end = 1, start + 2
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        yield text[start + 2 : end - 1]
        start = text.find("${", end)


def _unresolved(
    deployment: Deployment, schema: dict[str, Any], root: str, names: list[str], bound: set[str]
) -> Iterator[str]:
    if root in bound:
        return
    if root.startswith("google_") or root == "data":
        kind, found = ("data", deployment.data) if root == "data" else ("resource", deployment.resources)
        type_name, name, *more = names if root == "data" else [root, *names]
        if (type_name, name) not in found:
            yield "no such resource"
        elif (
            more and (known := schema[kind].get(type_name)) and not any(more[0] in k for k in known.values())
        ):
            yield f"{type_name} has no {more[0]}"
    elif root in {"var", "local"}:
        if names[0] not in (deployment.variables if root == "var" else deployment.locals):
            yield f"no such {'variable' if root == 'var' else 'local'}"
    elif root not in ROOTS:
        yield "nothing has that name"
    elif names[0] not in BUILT_IN.get(root, {names[0]}):
        yield f"{root} has no {names[0]}"


def _services(deployment: Deployment, schema: dict[str, Any]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator({k: v for k, v in schema.items() if k != "annotations"})
    for role, service in deployment.services.items():
        for error in validator.iter_errors(service):
            yield f"{role}: {error.json_path}: {error.message}"
        for holder in (service["metadata"], service["spec"]["template"]["metadata"]):
            for name in holder["annotations"].keys() - set(schema["annotations"]):
                yield f"{role}: unknown annotation {name}"
        names = [row["name"] for row in service["spec"]["template"]["spec"]["containers"][0]["env"]]
        if len(names) != len(set(names)):
            yield f"{role}: a variable is set twice"
    for name in re.findall(r"\$\{(\w+)\}", deployment.text):
        if f"{name} " not in deployment.files["services.tf"].partition("service.yaml")[2].partition("})")[0]:
            yield f"placeholder {name}: Terraform does not fill it in"
