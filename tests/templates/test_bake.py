"""Every template, with its defaults and with every pair of answers, gives a whole and clean project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from infra.gcp_provider import provider, terraform
from templates.baking import ROOT, SETUPS, Case, bake, cases, own_files, questions, run

from firsttoken import config

NAMES = {
    "aws": r"\baws|amazon|dynamodb|bedrock|\bsqs\b",
    "gcp": r"\bgcp|google|pub/?sub|vertex|memorystore",
    "azure": r"\bazure|bicep|service.?bus",
}
WIRED = [
    Case(cloud, {**setup, "provider": answers})
    for cloud in NAMES
    for setup, answers in zip(SETUPS, questions(cloud)["provider"], strict=True)
]


def _problems(case: Case, made: Path) -> list[str]:
    """What is left in a project that does not belong there."""
    said = [f"{path}: a link" for path in made.rglob("*") if path.is_symlink()]
    said += [f"{path}: a cache" for path in made.rglob("__pycache__")]
    others = "|".join(names for cloud, names in NAMES.items() if cloud != case.cloud)
    unwanted = {"a brace of Jinja": r"\{\{ ?cookiecutter|\{%|%\}", "another cloud": others}
    if case.answers.get("recovery_queue") == "no":
        unwanted["the queue"] = r"\brecover\b|FIRSTTOKEN_QUEUE|[Rr]ecover(Queue|Role)"
    if case.answers.get("cache") == "memory":
        unwanted["the store"] = r"FIRSTTOKEN_STORE__(?!KIND: mem)|dynamodb:|memorystore|redis.url|tableName"
    for path in own_files(made):
        text = path.read_text("utf-8")
        for what, pattern in unwanted.items():
            place = path.relative_to(made).as_posix()
            if place.startswith("tests/") and what != "a brace of Jinja":
                continue  # checks know of what is not there
            said += [f"{place}: {what}: {found[0]!r}" for found in [re.search(pattern, text)] if found]
    return said


@pytest.mark.parametrize("case", cases(), ids=str)
def test_project_is_clean(case: Case, repository: Path, tmp_path: Path) -> None:
    """Files, not links; no placeholder and nothing that was not chosen; formatted, and settings that load."""
    made = bake(repository, case, tmp_path)
    assert made.name == "help-desk"
    assert (made / "shared" / "firsttoken" / "gateway.py").is_file()
    assert _problems(case, made) == []
    for check in (("check", "--quiet"), ("format", "--check", "--quiet")):
        done = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *check, "--no-cache"],
            cwd=made,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "")
    settings = config.load(made / "firsttoken.toml", {})
    regional = case.answers.get("provider") in {None, "simulated", "bedrock", "azure-openai"}
    assert len(settings.models["chat"].all_targets()) == (2 if regional else 1)
    assert settings.jobs.defer == ("outage" if case.answers.get("shape") == "batch-recovery" else "asked")


@pytest.mark.parametrize("case", WIRED, ids=str)
def test_project_keeps_its_rules(case: Case, repository: Path, tmp_path: Path) -> None:
    """With each choice the project's own tests of settings and infrastructure hold."""
    made = bake(repository, case, tmp_path)
    tests = ("tests/test_config.py", "tests/test_infra.py")
    done = run(made, "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    audit = run(made, "firsttoken.cli", "check")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    if "osls is missing" in done.stdout:
        pytest.skip("osls is missing: install Node 20 or newer, then run `make test`")


@pytest.mark.parametrize("case", [case for case in WIRED if case.cloud == "gcp"], ids=str)
def test_terraform_takes_it(case: Case, repository: Path, tmp_path: Path) -> None:
    """Terraform finds nothing wrong with the files, however the questions were answered."""
    if not shutil.which("terraform"):
        pytest.skip("terraform is missing: install Terraform 1.9 or newer")
    folder = bake(repository, case, tmp_path) / "functions" / "gcp" / "terraform"
    schema = json.loads((ROOT / "tests" / "data" / "google_schema.json").read_text())
    with provider(schema, tmp_path) as environ:
        for command in (["init"], ["fmt", "-check", "-recursive"], ["validate"]):
            assert terraform(command, folder, environ) == ""


def test_caches_stay_behind(repository: Path, tmp_path: Path) -> None:
    """A project made of a checkout that has been run holds no bytecode."""
    dirty = shutil.copytree(repository, tmp_path / "dirty", symlinks=True)
    cache = dirty / "shared" / "firsttoken" / "__pycache__"
    cache.mkdir()
    (cache / "app.cpython-311.pyc").write_bytes(b"")
    made = bake(dirty, Case("aws", {}), tmp_path / "out")
    assert list(made.rglob("__pycache__")) == []
