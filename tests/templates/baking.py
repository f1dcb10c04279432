"""Projects made of the templates, out of a copy of this repository as git would give it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parents[2]
CLOUDS = ("aws", "gcp", "azure")
_CACHES = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache", "*.pyc")
_TAKEN = (
    *("cookiecutter.json", "serverless.yml", "templates", "shared", "functions", "events"),
    *("requirements", "docs", "tests/infra", "tests/data"),
)

SETUPS = (
    {"shape": "chat", "recovery_queue": "yes", "cache": "managed"},
    {"shape": "chat", "recovery_queue": "no", "cache": "managed"},
    {"shape": "chat", "recovery_queue": "no", "cache": "memory"},
    {"shape": "batch-recovery", "recovery_queue": "yes", "cache": "managed"},
)
"""All combinations of these questions that can be answered."""
ELSEWHERE = {
    "aws": {"primary_region": "us-west-2", "failover_region": "us-east-1"},
    "gcp": {"primary_region": "asia-south1", "failover_region": "us-east4", "_allow_other_residency": "yes"},
    "azure": {"primary_region": "westus3", "failover_region": "eastus2"},
}


@dataclass(frozen=True)
class Case:
    """One way to answer the questions of one template."""

    cloud: str
    answers: dict[str, str]

    def __str__(self) -> str:
        return "-".join([self.cloud, *(re.sub(r"\W+", "_", answer) for answer in self.answers.values())])


def questions(cloud: str) -> dict[str, Any]:
    """What a template asks, and what it keeps to itself."""
    return json.loads((ROOT / "templates" / cloud / "cookiecutter.json").read_text())


def cases() -> list[Case]:
    """Every template with its defaults, and with every pair of answers; regions change along."""
    found = [Case(cloud, {}) for cloud in CLOUDS]
    for cloud in CLOUDS:
        for number, (setup, provider) in enumerate(product(SETUPS, questions(cloud)["provider"])):
            where = ELSEWHERE[cloud] if number % 2 else {}
            found.append(Case(cloud, {**setup, "provider": provider, **where}))
    return found


def copy_repository(folder: Path) -> Path:
    """Copy what the templates are made of, links as links, without what lies around here."""
    for name in _TAKEN:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_CACHES)
        else:
            shutil.copy(source, target)
    return folder


def bake(repository: Path, case: Case, folder: Path, **more: Any) -> Path:
    """Make a project without questions and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "cookiecutter.yaml"
    config.write_text(f"replay_dir: {folder}/replay\ncookiecutters_dir: {folder}/clones\n")
    made = cookiecutter(
        str(repository),
        directory=f"templates/{case.cloud}",
        no_input=True,
        extra_context={"project_name": "Help desk", **case.answers},
        output_dir=str(folder),
        config_file=str(config),
        **more,
    )
    return Path(made)


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a project, with this environment's packages and the project's core."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env=environ(project),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def environ(project: Path) -> dict[str, str]:
    """The environment that a project's Makefile gives, and none of this machine's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTTOKEN_")}
    osls = os.environ.get("FIRSTTOKEN_OSLS", str(ROOT / "tests/node/node_modules/.bin/osls"))
    return {
        **kept,
        "PYTHONPATH": str(project / "shared"),
        "FIRSTTOKEN_CONFIG": str(project / "firsttoken.toml"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FIRSTTOKEN_OSLS": osls,
    }


def own_files(project: Path) -> list[Path]:
    """The text files of a project but for what it takes over unchanged: core, docs, locks."""
    vendored = {project / name for name in ("shared", "docs", "requirements")}
    files = [path for path in sorted(project.rglob("*")) if path.is_file()]
    return [path for path in files if not vendored & set(path.parents)]
