"""serverless.yml, and the CloudFormation that it becomes, keep the rules of aws_checks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile

import offline
import pytest
from infra import aws_checks

OSLS = os.environ.get("FIRSTTOKEN_OSLS", str(offline.ROOT / "node_modules/.bin/osls"))
SOURCE = aws_checks.read(offline.ROOT / "serverless.yml")


def compiled(region, folder):
    """Return the CloudFormation of one region, made without an account or a network."""
    shutil.copy(offline.ROOT / "serverless.yml", folder)
    shutil.copytree(offline.ROOT / "functions", folder / "functions")
    (folder / "dist").mkdir()
    with zipfile.ZipFile(folder / "dist" / "aws.zip", "w") as file:
        file.writestr("firsttoken.toml", "")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "FIRSTTOKEN_KEYS": "acme:" + "0" * 64,
    }
    command = [OSLS, "package", "--stage", "prod", "--region", region, "--package", str(folder / "out")]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "out" / "cloudformation-template-update-stack.json").read_text("utf-8"))


def test_source():
    """serverless.yml checks itself strictly, and knows two regions as partners."""
    assert aws_checks.source_findings(SOURCE) == []


@pytest.mark.parametrize("region", SOURCE["custom"]["regions"])
def test_what_is_deployed(region, tmp_path):
    """In each region every rule holds: dead letters, alarms, least privilege, streams, retention, secrets."""
    if not shutil.which(OSLS):
        pytest.skip("osls is missing: install Node 20 or newer, then run `make test`")
    assert aws_checks.findings(compiled(region, tmp_path)) == {}
