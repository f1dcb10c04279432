"""What ``firsttoken stage`` makes for each cloud: where things lie there, and how large they may be."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from firsttoken.errors import ConfigError

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ARCHITECTURES = ("arm64", "x86_64")
SERVICES = ("bedrock-runtime", "dynamodb", "s3", "signin", "sqs", "sso", "sso-oidc", "sts")
"""The AWS services whose descriptions stay: those that are called, and those that give credentials."""

MEGABYTE = 1_000_000


class Platform(Struct, frozen=True):
    """One cloud's rules. Paths are relative to the stage."""

    cloud: str
    entrypoints: str
    """The folder of what stands in ``functions/<cloud>``."""
    files: tuple[str, ...]
    """What of it is taken, as patterns."""
    packages: str
    """The folder of the packages."""
    root: str
    """Where the stage lies in the cloud."""
    architectures: tuple[str, ...]
    """The first one is the default."""
    limit: int
    """The most bytes that the cloud takes, unpacked; 0 where it names no limit."""
    archive: bool
    """Whether the cloud takes a zip file."""


PLATFORMS = {
    # Lambda's 250 MB are 250 * 1024 * 1024 bytes, layers included.
    "aws": Platform(
        *("aws", "functions/aws", ("**/*.py", "bootstrap", "run.sh"), "", "/var/task"),
        *(("arm64", "x86_64"), 262_144_000, True),
    ),
    "gcp": Platform(*("gcp", "", ("**/*.py", "Procfile"), "", "/workspace"), *(("x86_64",), 0, False)),
    "azure": Platform(
        *("azure", "", ("**/*.py", "host.json", ".funcignore"), ".python_packages/lib/site-packages"),
        # The disk of an instance of the Flex Consumption plan has 0.8 GB.
        *("/home/site/wwwroot", ("x86_64",), 800_000_000, True),
    ),
}


class Plan(Struct, frozen=True, kw_only=True):
    """One run: what to stage and where. Paths are absolute, but for those of the report."""

    platform: Platform
    project: Path
    out: Path
    python: str = "3.13"
    arch: str = ""
    """Empty: the cloud's default."""
    extras: tuple[str, ...] = ()
    """More locks than the cloud's."""
    services: tuple[str, ...] = ()
    limit: int = 0
    """The most bytes, if fewer than the cloud takes."""
    vendored: bool = True
    """Whether packages are staged; else the cloud's own build installs them."""

    def locks(self) -> list[Path]:
        """Return the lock files, the cloud's first. Raises ConfigError where one is missing."""
        found = [
            self.project / "requirements" / f"{name}.txt" for name in (self.platform.cloud, *self.extras)
        ]
        for lock in found:
            if not lock.is_file():
                raise ConfigError(f"{lock}: there is no such file; expected a lock made by `make lock`")
        return found

    def wheels(self) -> str:
        """Return uv's name of the platform whose wheels are taken."""
        machine = "aarch64" if self.arch == "arm64" else "x86_64"
        # Lambda runs Python 3.11 on Amazon Linux 2, whose C library is older than that of all others.
        old = self.platform.cloud == "aws" and self.python == "3.11"
        return f"{machine}-{'manylinux2014' if old else 'manylinux_2_28'}"


def checked(plan: Plan) -> Plan:
    """Return a plan with its processor. Raises ConfigError naming what was wrong, and what was expected."""
    cloud, known = plan.platform.cloud, plan.platform.architectures
    arch = plan.arch or known[0]
    if arch not in known:
        raise ConfigError(f"--arch {arch}: {cloud} expects {' or '.join(known)}")
    if not (plan.project / "functions" / cloud).is_dir():
        raise ConfigError(f"{plan.project}: there is no functions/{cloud}; expected the folder of a project")
    return msgspec.structs.replace(plan, arch=arch)


def uv() -> str:
    """Return the path of uv. Raises ConfigError where there is none."""
    beside = Path(sys.executable).with_name("uv.exe" if platform.system() == "Windows" else "uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise ConfigError("uv is missing: it fetches packages for other platforms; expected `pip install uv`")
    return found


def interpreter(version: str) -> str:
    """Return a Python of this minor version on this machine, to compile with; empty where there is none."""
    for candidate in _candidates(version):
        command = [candidate, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(  # noqa: S603 - an interpreter of this machine
                command, capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.strip() == version:
            return candidate
    return ""


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    if found := shutil.which(f"python{version}"):
        yield found
    folder = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from map(str, sorted(folder.glob(f"{version}.*/bin/python"), reverse=True))
    command = [uv(), "python", "find", "--no-python-downloads", "--no-project", version]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if asked.returncode == 0:
        yield asked.stdout.strip()
