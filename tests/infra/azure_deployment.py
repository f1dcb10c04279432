"""What ``azd up`` would deploy from a folder with azure.yaml, host.json and infra/, with sample values."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from infra.bicep_build import Build, Resource, build

SECRET = "only-the-vault-knows"
ENVIRON = {
    "AZURE_ENV_NAME": "prod",
    "AZURE_LOCATION": "westeurope",
    "ALERT_EMAIL": "on-call@example.com",
    "FIRSTTOKEN_KEYS": f"acme:{'0' * 64}",
    "FIRSTTOKEN_UPSTREAM_URL": "https://upstream.example/v1",
    "FIRSTTOKEN_UPSTREAM_KEY": SECRET,
}
QUEUES = ("storage_queue", "service_bus")


@dataclass(frozen=True)
class Deployment:
    """What one choice of parameters deploys, and the files beside it."""

    folder: Path
    queue: str
    build: Build
    host: dict[str, Any]
    azd: dict[str, Any]

    def of(self, kind: str) -> list[Resource]:
        return self.build.of(kind)

    @property
    def sites(self) -> list[Resource]:
        return self.of("Microsoft.Web/sites")

    def settings(self, site: Resource) -> dict[str, str]:
        """The app settings of a function app."""
        configs = self.of("Microsoft.Web/sites/config")
        return next((c.properties for c in configs if c.name == f"{site.name}/appsettings"), {})


def deployment(folder: Path, queue: str) -> Deployment:
    """Work out what ``azd up`` would deploy with the sample environment. Raises BicepError."""
    text = (folder / "infra" / "main.parameters.json").read_text()
    environ = {**ENVIRON, "FIRSTTOKEN_AZURE_QUEUE": queue}
    text = re.sub(r"\$\{(\w+)(?:=([^}]*))?\}", lambda m: environ.get(m[1]) or m[2] or "", text)
    parameters = {name: entry["value"] for name, entry in json.loads(text)["parameters"].items()}
    built = build(folder / "infra" / "main.bicep", parameters)
    host = json.loads((folder / "host.json").read_text())
    return Deployment(folder, queue, built, host, yaml.safe_load((folder / "azure.yaml").read_text()))


def seconds(span: str) -> int:
    """Return the seconds of hh:mm:ss."""
    hours, minutes, rest = map(int, span.split(":"))
    return hours * 3600 + minutes * 60 + rest
