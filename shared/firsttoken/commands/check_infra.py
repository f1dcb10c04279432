"""What a project's infrastructure says, for the rules of ``firsttoken check``.

serverless.yml and CloudFormation are parsed, where PyYAML is installed. Of Terraform and Bicep only such
blocks and words are read as mean one thing wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from msgspec import Struct

from firsttoken.commands.check_project import Project
from firsttoken.errors import ConfigError

_DEFAULT_TIMEOUT = {"serverless": 6, "template": 3}
"""Seconds that a function has where the file does not say."""
_INCLUDED = re.compile(r"\$\{file\(([^)]+)\)\}")


class Function(Struct, frozen=True):
    """A function of AWS Lambda."""

    name: str
    timeout: Any
    """Seconds; a text where it is only known when deploying."""
    urls: tuple[str, ...] = ()
    """How each of its URLs answers; ``BUFFERED`` by default."""
    wrapper: bool = False
    """Whether a runtime of its own takes the place of Lambda's."""
    image: bool = False
    buffered: bool = False
    """Whether it stands behind an HTTP API, which cannot stream."""
    queues: tuple[str, ...] = ()
    """Names of the queues that start it."""


class Aws(Struct, frozen=True):
    """A serverless.yml with the files that it takes in, or a CloudFormation template."""

    file: str
    functions: tuple[Function, ...]
    resources: dict[str, Any]
    retention: bool = False
    """Whether all logs end, by one setting."""
    regions: tuple[str, ...] = ()
    source: Any = None

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of all resources of a type, by name."""
        return {
            name: _table(one.get("Properties"))
            for name, one in self.resources.items()
            if isinstance(one, dict) and one.get("Type") == f"AWS::{kind}"
        }


def read_aws(project: Project) -> Aws | None:
    """Return what is deployed to AWS; None where there is no such file.

    Raises ConfigError, with the reason, where it cannot be read.
    """
    names = [name for name in project.infrastructure("aws") if "/" not in name]
    if not names:
        return None
    source = _table(_yaml(project, names[0]))
    if not names[0].startswith("serverless"):
        return _template(names[0], source)
    parts = source.get("resources") or []
    resources: dict[str, Any] = {}
    for part in parts if isinstance(parts, list) else [parts]:
        included = _INCLUDED.fullmatch(part) if isinstance(part, str) else None
        read = _yaml(project, included[1].strip()) if included else part
        resources |= _table(_table(read).get("Resources"))
    provider, custom = _table(source.get("provider")), _table(source.get("custom"))
    regions = tuple(map(str, _table(custom.get("regions")))) or _plain(provider.get("region"))
    return Aws(
        file=names[0],
        functions=tuple(_function(*one, provider) for one in _table(source.get("functions")).items()),
        resources=resources,
        retention="logRetentionInDays" in provider,
        regions=regions,
        source=source,
    )


def _function(name: str, one: Any, provider: dict[str, Any]) -> Function:
    one = _table(one)
    events = [_table(event) for event in one.get("events") or []]
    url = one.get("url")
    variables = _table(provider.get("environment")) | _table(one.get("environment"))
    return Function(
        name=name,
        timeout=one.get("timeout", provider.get("timeout", _DEFAULT_TIMEOUT["serverless"])),
        urls=(str(_table(url).get("invokeMode", "BUFFERED")),) if url else (),
        wrapper="AWS_LAMBDA_EXEC_WRAPPER" in variables,
        image="image" in one,
        buffered=any("httpApi" in event for event in events),
        queues=tuple(
            name_of(_table(event["sqs"]).get("arn", event["sqs"])) for event in events if "sqs" in event
        ),
    )


def _template(file: str, source: dict[str, Any]) -> Aws:
    """Return a template of CloudFormation or SAM."""
    aws = Aws(file=file, functions=(), resources=_table(source.get("Resources")), source=source)
    mappings = [
        (name_of(one.get("FunctionName")), name_of(one.get("EventSourceArn")))
        for one in aws.of("Lambda::EventSourceMapping").values()
    ]
    urls = [
        (name_of(one.get("TargetFunctionArn")), str(one.get("InvokeMode", "BUFFERED")))
        for one in aws.of("Lambda::Url").values()
    ]
    functions = []
    for name, one in (aws.of("Lambda::Function") | aws.of("Serverless::Function")).items():
        events = [_table(event) for event in _table(one.get("Events")).values()]
        own = one.get("FunctionUrlConfig")
        functions.append(
            Function(
                name=name,
                timeout=one.get("Timeout", _DEFAULT_TIMEOUT["template"]),
                urls=(
                    *(mode for function, mode in urls if function == name),
                    *((str(_table(own).get("InvokeMode", "BUFFERED")),) if own else ()),
                ),
                wrapper="AWS_LAMBDA_EXEC_WRAPPER" in str(one.get("Environment", "")),
                image=one.get("PackageType") == "Image",
                buffered=any(event.get("Type") == "HttpApi" for event in events),
                queues=(
                    *(queue for function, queue in mappings if function == name),
                    *(
                        name_of(_table(event.get("Properties")).get("Queue"))
                        for event in events
                        if event.get("Type") == "SQS"
                    ),
                ),
            )
        )
    return Aws(file=file, functions=tuple(functions), resources=aws.resources, source=source)


def name_of(value: Any) -> str:
    """Return the name of the resource that a reference points to; empty where it points to none."""
    if isinstance(value, dict):
        value = value.get("Ref") or value.get("Fn::GetAtt") or ""
    if isinstance(value, list):
        value = value[0] if value else ""
    text = str(value)
    return "" if text.startswith(("arn:", "$")) else text.partition(".")[0]


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every table in a value, each once, however often YAML's aliases refer to it."""
    seen, left = set(), [value]
    while left:
        one = left.pop()
        if not isinstance(one, dict | list) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            yield one
        left += one.values() if isinstance(one, dict) else one


def blocks(project: Project, cloud: str, opening: str) -> Iterator[tuple[str, str]]:
    """Yield blocks of Terraform or Bicep: ``file:line``, and all that stands between their braces.

    ``opening`` is a pattern of what stands before the brace. Braces in texts are counted, too: those of
    ``${...}`` come in pairs.
    """
    for name in project.infrastructure(cloud):
        text = project.text(name)
        for found in re.finditer(rf"^{opening}[^\n{{]*\{{", text, re.MULTILINE):
            depth, end = 1, found.end()
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            yield f"{name}:{text.count(chr(10), 0, found.start()) + 1}", text[found.end() : end]


def _yaml(project: Project, name: str) -> Any:
    """Return a YAML file with CloudFormation's tags, which are kept as their values."""
    try:
        yaml: Any = import_module("yaml")
    except ImportError as error:
        raise ConfigError(f"{name}: needs PyYAML: pip install pyyaml") from error
    loader: Any = type("Loader", (yaml.SafeLoader,), {})

    def tagged(loader: Any, _tag: str, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True)

    loader.add_multi_constructor("!", tagged)
    try:
        return yaml.load(project.text(name), loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{name}: not readable as YAML: {' '.join(str(error).split())[:200]}") from error


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and "$" not in value else ()
