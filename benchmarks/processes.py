"""Start a process under test, wait until it is ready, read the CPU time that it used, stop it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """Return a clean environment for a child: nothing of FIRSTTOKEN_* is inherited."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FIRSTTOKEN_")}
    return {**kept, "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}", **more}


@contextmanager
def started(
    arguments: list[str], core: int | None = None, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run ``python ARGUMENTS`` on one core and yield it with the first line that it prints."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, env=environment(**env), stdout=subprocess.PIPE, cwd=ROOT, stderr=subprocess.DEVNULL
    ) as child:
        try:
            if core is not None:
                os.sched_setaffinity(child.pid, {core})
            assert child.stdout is not None
            yield child, child.stdout.readline().decode().strip()
        finally:
            child.terminate()
            child.wait(10)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, in seconds (resolution: nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def address(line: str) -> str:
    """Return the first URL of a line."""
    return next(word for word in line.split() if word.startswith("http://"))
