"""What a cold start may import: the core knows no cloud, no vendor SDK and nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = (
    *("aioboto3", "aiobotocore", "aiohttp", "anthropic", "aws_lambda_powertools", "azure", "azurefunctions"),
    *("boto3", "botocore", "fastapi", "flask", "functions_framework", "google", "httpx", "httpx2", "numpy"),
    *("openai", "opentelemetry", "orjson", "pydantic", "requests", "starlette", "uvicorn", "uvloop"),
)
HEAVY = (
    "argparse",
    "dataclasses",
    "email",
    "http",
    "urllib.request",
    "unittest",
    "multiprocessing",
    "sqlite3",
)

CORE = "import firsttoken; from firsttoken import ChatRequest, Gateway, create_app"
LAMBDA = "import firsttoken.runtimes.aws\nfrom firsttoken.app import create_app\ncreate_app(deployed=True)"


def modules(code: str, **env: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after ``code``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FIRSTTOKEN_")} | env
    environment["PYTHONPATH"] = str(ROOT / "shared")
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"]
    output = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    return set(output.split())


@pytest.mark.parametrize(
    ("code", "env"),
    [
        (CORE, {}),
        (
            LAMBDA,
            {
                "FIRSTTOKEN_UPSTREAM_URL": "https://api.example.com/v1",
                "FIRSTTOKEN_UPSTREAM_MODEL": "m",
                "FIRSTTOKEN_KEYS": f"acme:{'0' * 64}",
            },
        ),
    ],
    ids=["the core", "the Lambda entrypoint with a real provider"],
)
def test_nothing_foreign_and_nothing_heavy(code: str, env: dict[str, str]) -> None:
    """Neither the core nor a cold start up to the first call pulls in an SDK, a framework or slow parts."""
    loaded = modules(code, **env) - modules("pass")  # site-packages may load namespaces by itself
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & set(FOREIGN)
    assert not loaded & (set(HEAVY) - modules("import asyncio, msgspec, httptools"))


def test_importing_the_package_is_free() -> None:
    """``import firsttoken`` loads no module of its own until a name is used."""
    assert {name for name in modules("import firsttoken") if name.startswith("firsttoken.")} == set()


def test_unknown_names_are_attribute_errors() -> None:
    """The lazy package behaves as a module does."""
    import firsttoken

    with pytest.raises(AttributeError, match="nope"):
        _ = firsttoken.nope
    assert all(getattr(firsttoken, name) is not None for name in firsttoken.__all__)
