"""Google's deployment files as data: Terraform parsed, and service.yaml as one region gets it.

No cloud and no Terraform is asked. Nothing here imports the project: a copy works in any project.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import yaml

VALUES = {
    "name": "firsttoken",
    "project": "acme",
    "region": "europe-west1",
    "image": "europe-docker.pkg.dev/acme/firsttoken/functions:1",
    "upstream_url": "https://llm.example.com/v1",
    "upstream_model": "small",
}


class Deployment:
    """The parsed files of one folder: ``service.yaml`` and ``terraform/*.tf``."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_text() for path in sorted((folder / "terraform").glob("*.tf"))}
        self.parsed = {name: _parsed(text) for name, text in self.files.items()}
        self.text = (folder / "service.yaml").read_text()
        self.services = {
            service["metadata"]["name"].removeprefix(VALUES["name"] + "-"): service
            for service in render(self.text, VALUES)
        }
        self.resources = self._labelled("resource")
        self.data = self._labelled("data")
        self.variables = {name: body for row in self._rows("variable") for name, body in row.items()}
        self.locals = {
            key: value
            for row in self._rows("locals")
            for key, value in row.items()
            if not key.startswith("__")
        }

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for parsed in self.parsed.values() for row in parsed.get(kind, [])]

    def _labelled(self, kind: str) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (type_name, name): body
            for row in self._rows(kind)
            for type_name, named in row.items()
            for name, body in named.items()
        }

    def all(self, type_name: str) -> dict[str, dict[str, Any]]:
        """Return the resources of one type by their names."""
        return {name: body for (found, name), body in self.resources.items() if found == type_name}

    def environment(self, role: str) -> dict[str, Any]:
        """Return what a service gets in its environment: a text, or the reference to a secret."""
        rows = spec(self.services[role])["containers"][0]["env"]
        return {row["name"]: row.get("value", row.get("valueFrom")) for row in rows}


@cache
def _parsed(text: str) -> dict[str, Any]:
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    return hcl2.loads(text, serialization_options=options)


def render(text: str, values: dict[str, str]) -> list[dict[str, Any]]:
    """Return the services of a region, as Terraform and deploy.sh fill service.yaml in."""
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return list(yaml.safe_load_all(text))


def spec(service: dict[str, Any]) -> dict[str, Any]:
    """Return what a service says of its instances."""
    return service["spec"]["template"]["spec"]


def annotations(service: dict[str, Any]) -> dict[str, str]:
    """Return the annotations of a service and of its revisions."""
    revision = service["spec"]["template"]["metadata"]["annotations"]
    return {**service["metadata"]["annotations"], **revision}


def block(body: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return a block within blocks, the first of its kind; empty where it is missing."""
    for name in path:
        rows = body.get(name)
        body = rows[0] if isinstance(rows, list) and rows else {}
    return body


def number(value: Any, default: int = 0) -> int:
    """Return a number that stands there as such, or as text; ``default`` for all else."""
    return int(value) if str(value).isdigit() else default


def known(value: Any) -> str:
    """Return a value with the variables that a name is made of filled in."""
    return str(value).replace("${var.name}", VALUES["name"]).replace("${var.project}", VALUES["project"])


def target(value: Any) -> str:
    """Return the name of the resource that a reference leads to."""
    found = re.search(r"\bgoogle_\w+\.(\w+)", str(value))
    return found.group(1) if found else ""
