"""Fetch AWS's Runtime Interface Emulator: one static program inside the wheel that the lock names.

Usage: fetch_rie.py LOCK TARGET
"""

import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def main(lock: str, target: str) -> None:
    """Write the program for this machine to ``target``."""
    member = f"samcli/local/rapid/aws-lambda-rie-{MACHINES[platform.machine().lower()]}"
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", folder, "--requirement", lock], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            program = archive.read(member)
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(program)
    path.chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
