"""What functions/gcp deploys: valid, complete, and with settings that the functions understand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from infra import gcp_checks, gcp_schema
from infra.gcp_deployment import VALUES, Deployment, render, spec
from infra.gcp_provider import provider, terraform
from msgspec import structs

from firsttoken import config
from firsttoken.commands.stage_plan import Plan
from firsttoken.settings import GcsObjects, PubsubQueue, RedisStore

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "functions" / "gcp"
SCHEMA = json.loads((ROOT / "tests" / "data" / "google_schema.json").read_text())
DOCUMENT = (ROOT / "docs" / "deploy-gcp.md").read_text()
SECRETS = {
    "firsttoken-keys": "acme:" + "0" * 64,
    "firsttoken-redis-url": "rediss://redis.example.com:6380/0",
    "firsttoken-upstream-key": "made-up",
}
ROLES = ["chat", "recover", "scheduled"]


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """The files as they stand."""
    return Deployment(FOLDER)


def test_rules_are_kept(deployment: Deployment) -> None:
    """The files keep every rule of the project."""
    assert gcp_checks.findings(deployment) == {}


def test_provider_accepts_it(deployment: Deployment, tmp_path: Path) -> None:
    """Names, types, values and references fit the provider; where there is a Terraform, it plans them."""
    assert gcp_schema.findings(deployment, SCHEMA) == {}
    if shutil.which("terraform"):
        shutil.copytree(FOLDER, tmp_path / "gcp", ignore=shutil.ignore_patterns(".terraform*", "__pycache__"))
        folder = tmp_path / "gcp" / "terraform"
        with provider(SCHEMA, tmp_path) as environ:
            for command in (["init"], ["fmt", "-check", "-recursive"], ["validate"], ["test"]):
                assert terraform(command, folder, environ) == ""
            file = folder / "queue.tf"
            file.write_text(file.read_text().replace("ack_deadline_seconds", "ack_deadline_secs"))
            assert "Unsupported argument" in terraform(["validate"], folder, environ)


def test_schema_is_of_the_provider_asked_for(deployment: Deployment) -> None:
    """The schema is of a version that versions.tf accepts."""
    asked = re.search(
        r'source\s*= "hashicorp/google"\s*version\s*= "~> (\d+)\.', deployment.files["versions.tf"]
    )
    assert asked[1] == SCHEMA["provider"].partition(".")[0]


@pytest.mark.parametrize("role", ROLES)
def test_core_takes_the_settings(deployment: Deployment, role: str) -> None:
    """The core reads the environment of every service, and finds its store, queue and objects in it."""
    given = deployment.environment(role)
    environ = {
        name: value if isinstance(value, str) else SECRETS[value["secretKeyRef"]["name"]]
        for name, value in given.items()
        if name.startswith("FIRSTTOKEN_")
    }
    settings = config.load(environ=environ)
    assert isinstance(settings.store, RedisStore)
    assert isinstance(settings.queue, PubsubQueue)
    assert isinstance(settings.objects, GcsObjects)
    assert settings.providers["upstream"]


def test_services_are_functions(deployment: Deployment) -> None:
    """Each service runs the function of its name, and main.py has no other."""
    functions = re.findall(r"^async def (\w+)", (FOLDER / "main.py").read_text(), re.MULTILINE)
    targets = [deployment.environment(role)["FUNCTION_TARGET"] for role in deployment.services]
    assert targets == list(deployment.services) == functions == ROLES


def test_timeouts_leave_room(deployment: Deployment) -> None:
    """What the core allows ends before Cloud Run ends it, and jobs that may wait raise no alert."""
    settings = config.load(environ={})
    timeouts = {role: spec(service)["timeoutSeconds"] for role, service in deployment.services.items()}
    assert settings.timeouts.whole < settings.timeouts.total <= timeouts["chat"]
    assert settings.batch.tick_seconds + max(settings.batch.call_seconds, 120) < timeouts["scheduled"]
    text = deployment.files["monitoring.tf"]
    (age,) = re.findall(r"oldest_unacked_message_age.*?threshold_value = (\d+)", text, re.DOTALL)
    assert settings.jobs.max_delay < int(age) < settings.jobs.expires


def test_objects_outlive_what_names_them() -> None:
    """The rules know how long the core keeps jobs and files."""
    settings = config.load(environ={})
    assert gcp_checks.KEPT["firsttoken/job-"] == settings.jobs.expires + settings.jobs.keep
    assert gcp_checks.KEPT["firsttoken/file-"] == settings.batch.keep
    assert GcsObjects(bucket="acme").prefix == "firsttoken/"


@pytest.mark.parametrize("region", ["europe-west1", "us-central1"])
def test_deploy_script_renders_the_same(tmp_path: Path, region: str) -> None:
    """deploy.sh hands gcloud each service of each region, filled in as Terraform does it."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        '#!/bin/sh\necho "$@" >> "$OUT/calls"\ncat "$4" >> "$OUT/$8.yaml"\necho --- >> "$OUT/$8.yaml"\n'
    )
    gcloud.chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OUT": str(tmp_path),
        "UPSTREAM_URL": VALUES["upstream_url"],
        "UPSTREAM_MODEL": VALUES["upstream_model"],
    }
    command = [FOLDER / "deploy.sh", VALUES["project"], VALUES["image"], region, "asia-northeast1"]
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=30)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 * len(ROLES)
    assert all(call.startswith("run services replace ") for call in calls)
    handed = [
        document for document in yaml.safe_load_all((tmp_path / f"{region}.yaml").read_text()) if document
    ]
    assert handed == render((FOLDER / "service.yaml").read_text(), {**VALUES, "region": region})


def test_image_starts_the_functions(tmp_path: Path) -> None:
    """What the Procfile names is there once functions-framework is installed."""
    kind, _, command = (FOLDER / "Procfile").read_text().strip().partition(": ")
    assert kind == "web"
    words = command.split()
    assert words[:2] == ["python", "-m"]
    asked = [sys.executable, "-m", words[2], "--help"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "--target" in done.stdout


def test_document_names_what_there_is(deployment: Deployment) -> None:
    """The document explains every variable that must or may be given, and none that is not there."""
    table = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert deployment.variables.keys() == table
    assert set(re.findall(r"-var (\w+)=", DOCUMENT)) <= table
    assert set(re.findall(r"`(\w+\.tf)`", DOCUMENT)) <= deployment.files.keys()


def test_document_makes_the_secrets(deployment: Deployment) -> None:
    """Every secret that a service is given is made by the steps of the document."""
    given = [
        value for role in ROLES for value in deployment.environment(role).values() if isinstance(value, dict)
    ]
    assert {value["secretKeyRef"]["name"] for value in given} == SECRETS.keys()
    assert all(re.search(rf"secret {name}\s", DOCUMENT) for name in SECRETS)


def test_image_is_built_for_the_stage() -> None:
    """The document has the image built with the Python that the stage is made for."""
    staged = {field.name: field.default for field in structs.fields(Plan)}["python"]
    assert re.findall(r"GOOGLE_PYTHON_VERSION=(\S+)", DOCUMENT) == [f"{staged}.x"]
