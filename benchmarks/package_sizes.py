"""How large a deployment is on each cloud, staged for Python 3.13, and what its bytecode saves at a start.

The start is the import of AWS's entrypoints and clients in a fresh process, in CPU time, with the bytecode of
the stage and without any (Lambda's file system is read-only: without it every start compiles).
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from firsttoken.commands.stage_build import Report, build
from firsttoken.commands.stage_plan import MEGABYTE, PLATFORMS, Plan, checked, interpreter

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.13"
RUNS = 9
BAR_MB = 60
LARGEST = 8
START = """
import sys
sys.path.insert(0, sys.argv[1])
import functions.aws.chat, functions.aws.recover, aioboto3, botocore.auth
"""


def _stage(folder: Path, cloud: str, arch: str = "") -> Report:
    plan = Plan(platform=PLATFORMS[cloud], project=ROOT, out=folder / cloud, python=PYTHON, arch=arch)
    return build(checked(plan), lambda *_: None)


def _row(report: Report) -> dict[str, Any]:
    largest = list(report.parts.items())[:LARGEST]
    return {
        "arch": report.arch,
        "mb": round(report.bytes / MEGABYTE, 1),
        "bytecode_mb": round(report.bytecode_bytes / MEGABYTE, 1),
        "packages_as_fetched_mb": round(report.fetched_bytes / MEGABYTE, 1),
        "archive_mb": round(report.archive_bytes / MEGABYTE, 1),
        "files": report.files,
        "largest_mb": {name: round(size / MEGABYTE, 1) for name, size in largest},
    }


def _cpu_ms(folder: str) -> float:
    """Return the CPU milliseconds of a start that may write no bytecode."""
    command = [interpreter(PYTHON), "-I", "-S", "-B", "-c", START, folder]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder, env={"FIRSTTOKEN_KEYS": "acme:" + "0" * 64})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def _starts(folder: Path) -> dict[str, float]:
    """Return the median CPU milliseconds of a start with bytecode and without, measured in turn."""
    compiled = _stage(folder, "aws", "x86_64").folder
    bare = str(folder / "bare")
    shutil.copytree(compiled, bare, ignore=shutil.ignore_patterns("__pycache__"))
    rounds = [(_cpu_ms(compiled), _cpu_ms(bare)) for _ in range(RUNS + 1)][1:]
    with_it, without = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {
        "with_bytecode_ms": round(with_it),
        "without_ms": round(without),
        "ratio": round(without / with_it, 2),
    }


def run() -> dict[str, Any]:
    """Stage every cloud and return the sizes, in MB of 1,000,000 bytes."""
    assert interpreter(PYTHON), f"expected Python {PYTHON} on this machine"
    with tempfile.TemporaryDirectory() as folder:
        sizes = {cloud: _row(_stage(Path(folder), cloud)) for cloud in PLATFORMS}
        starts = _starts(Path(folder))
    assert sizes["aws"]["mb"] <= BAR_MB
    return {
        "python": PYTHON,
        "clouds": sizes,
        "bars": {"aws_mb": BAR_MB, "aws_limit_mb": round(PLATFORMS["aws"].limit / MEGABYTE, 1)},
        "aws_start": {**starts, "runs": RUNS},
    }
