"""CPU time from the start of a process until the Lambda entrypoint asks for its first request.

It is set up for a real provider. The Runtime API is a socket of this program: the moment the runtime sends
``GET .../invocation/next`` it is ready, and its CPU time so far is read from the kernel. Bare Python
(``python -c pass``) is measured in turn with it and subtracted.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, cpu_seconds, environment

RUNS = 15
BAR_MS = 200
PEERS = {
    "boto3 + bedrock-runtime client": (
        "import boto3; boto3.client('bedrock-runtime', region_name='eu-central-1')"
    ),
    "openai SDK + client": "import openai; openai.AsyncOpenAI(api_key='x')",
    "aiohttp": "import aiohttp",
    "starlette + uvicorn": "import starlette.applications, uvicorn",
    "functions-framework (aio)": "import functions_framework.aio",
    "pydantic + one model": "import pydantic\nclass A(pydantic.BaseModel):\n    a: int",
}


def _program(code: str) -> float:
    """Return the CPU milliseconds of ``python -c CODE``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def _entrypoint(module: str) -> tuple[float, float]:
    """Return the CPU milliseconds and the resident megabytes of a Lambda entrypoint that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = environment(
            AWS_LAMBDA_RUNTIME_API=f"127.0.0.1:{listener.getsockname()[1]}",
            _HANDLER="functions.aws.chat.app",
            FIRSTTOKEN_UPSTREAM_URL="https://api.openai.com/v1",
            FIRSTTOKEN_UPSTREAM_KEY="sk-none",
            FIRSTTOKEN_UPSTREAM_MODEL="m",
            FIRSTTOKEN_KEYS="acme:" + "0" * 64,
        )
        with subprocess.Popen([sys.executable, "-m", module], env=env, cwd=ROOT) as child:
            connection, _ = listener.accept()
            with connection:
                asked = connection.recv(4096)
                assert asked.startswith(b"GET /2018-06-01/runtime/invocation/next"), asked
                cpu = cpu_seconds(child.pid) * 1000
                pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
                child.kill()
    return cpu, pages * os.sysconf("SC_PAGESIZE") / 1e6


def run() -> dict[str, Any]:
    """Measure ours and what peers import, in turn, and return medians beyond bare Python."""
    rows: dict[str, list[float]] = {name: [] for name in ("bare", "ours", *PEERS)}
    memory = []
    for turn in range(RUNS + 1):
        bare = _program("pass")
        cpu, megabytes = _entrypoint("firsttoken.runtimes.aws")
        figures = {"bare": bare, "ours": cpu} | {name: _program(code) for name, code in PEERS.items()}
        if turn:  # the first round compiles and warms the page cache
            memory.append(megabytes)
            for name, value in figures.items():
                rows[name].append(value)
    bare = statistics.median(rows.pop("bare"))
    beyond = {name: round(statistics.median(values) - bare, 1) for name, values in rows.items()}
    return {
        "bare_python_ms": round(bare, 1),
        "beyond_bare_python_ms": {"firsttoken, Lambda entrypoint ready": beyond.pop("ours"), **beyond},
        "bar_ms": BAR_MS,
        "resident_mb": round(statistics.median(memory), 1),
        "runs": RUNS,
    }
