"""``firsttoken serve --cloud aws`` with a queue: an outage, a job, its worker, its answer, over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firsttoken.providers.http import HttpClient
from tests.policies import live
from tests.queues import moto_server

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}


@contextmanager
def served(environ: dict[str, str]) -> Iterator[str]:
    """Run the command; give the URL that it serves."""
    program = Path(sys.executable).with_name("firsttoken")
    command = [program, "serve", "--cloud", "aws", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert "answers its queue" in line
        yield re.search(r"http://\S+?(?=/v1)", line)[0]
    finally:
        process.terminate()
        process.communicate()


async def ask(client: HttpClient, method: str, url: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
    data = b"" if body is None else json.dumps(body).encode()
    headers = [("content-type", "application/json")]
    response = await client.request(method, url, headers=headers, body=data)
    text = await response.read(1 << 20)
    return response.status, dict(response.headers), json.loads(text)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Functions that share a store in a file and a queue in SQS, and make jobs of what no target answers."""
    urls = moto_server.new_queues()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIRSTTOKEN_", "AWS_"))}
    return {
        **kept,
        **moto_server.AWS,
        "FIRSTTOKEN_AUTH": "off",
        "FIRSTTOKEN_STORE__KIND": "sqlite",
        "FIRSTTOKEN_STORE__PATH": str(tmp_path / "store.sqlite"),
        "FIRSTTOKEN_STORE__TIMEOUT": "10",
        "FIRSTTOKEN_QUEUE__KIND": "sqs",
        "FIRSTTOKEN_QUEUE__URL": urls.queue,
        "FIRSTTOKEN_QUEUE__DEAD_URL": urls.dead,
        "FIRSTTOKEN_JOBS__DEFER": "outage",
        "FIRSTTOKEN_JOBS__RETRY_AFTER": "0.2",
        "FIRSTTOKEN_JOBS__MAX_DELAY": "1",
        "FIRSTTOKEN_BREAKER__OPEN": "0.3",
    }


def test_a_call_in_an_outage_becomes_a_job_and_is_answered(environ: dict[str, str]) -> None:
    """The chat function queues it, the recover function answers it when the target is back."""

    async def converse(url: str, target: Any) -> None:
        client = HttpClient()
        try:
            status, headers, job = await ask(client, "POST", f"{url}/v1/chat/completions", CHAT)
            assert status == 202, job
            place = url + headers["location"]
            _, _, job = await ask(client, "GET", place)
            assert job["state"] in ("queued", "running"), job
            target.model.profile = target.model.profile.changed("fault=")
            async with asyncio.timeout(LIMIT):
                while job["state"] in ("queued", "running"):
                    await asyncio.sleep(0.2)
                    _, _, job = await ask(client, "GET", place)
            assert "Hello there" in json.dumps(job)
        finally:
            await client.aclose()

    with live.serve("ttft_ms=0,itl_ms=0,fault=status,status=503") as (upstream, target):
        environ["FIRSTTOKEN_UPSTREAM_URL"] = f"{upstream}/v1"
        with served(environ) as url:
            asyncio.run(converse(url, target))
