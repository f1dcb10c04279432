"""serverless.yml as CloudFormation: ``osls package`` on a copy of its files, without an account."""

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OSLS = os.environ.get("FIRSTTOKEN_OSLS", str(ROOT / "tests/node/node_modules/.bin/osls"))
KEYS = "acme:" + "0" * 64
MODEL = "eu.amazon.nova-lite-v1:0"


class OslsError(Exception):
    """osls refused serverless.yml; the message is what it said."""


def compile_copy(
    folder: Path, change: Callable[[Path], None] | None = None, *, stage: str = "prod", **more: str
) -> dict[str, Any]:
    """The template for eu-west-1 of a copy of the project's files, changed before. Raises OslsError."""
    if not shutil.which(OSLS):
        pytest.skip("osls is missing: install Node 20 or newer, then run `make test`")
    shutil.copy(ROOT / "serverless.yml", folder)
    shutil.copytree(ROOT / "functions/aws", folder / "functions/aws")
    (folder / "dist").mkdir()
    with zipfile.ZipFile(folder / "dist/aws.zip", "w") as file:
        file.writestr("firsttoken.toml", "")
    if change:
        change(folder)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "FIRSTTOKEN_KEYS": KEYS,
        **more,
    }
    command = [OSLS, "package", "--stage", stage, "--region", "eu-west-1", "--package", str(folder / "out")]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise OslsError(done.stdout + done.stderr)
    return json.loads((folder / "out/cloudformation-template-update-stack.json").read_text())


@cache
def template(stage: str = "prod", model: str = "") -> dict[str, Any]:
    """The template of the files as they are; made once. Take a deep copy to change it."""
    with tempfile.TemporaryDirectory() as folder:
        return compile_copy(Path(folder), stage=stage, FIRSTTOKEN_BEDROCK_MODEL=model)
