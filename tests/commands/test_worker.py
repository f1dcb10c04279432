"""``firsttoken worker``, as a process of its own, and the worker inside ``firsttoken serve``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from jobs.world import BODY
from policies.models import make_call

from firsttoken import config
from firsttoken.cli import main
from firsttoken.gateway import Gateway
from firsttoken.model import Later, Source

CONFIG = """
[store]
kind = "sqlite"
path = "{folder}/store.db"
timeout = 5.0
[queue]
kind = "sqlite"
path = "{folder}/queue.db"
[providers.p]
kind = "simulated"
profile = "ttft_ms=0,itl_ms=20,tokens=8"
[models.m]
target = "p/m"
"""


async def submit(gateway: Gateway) -> str:
    call = make_call(tenant="acme")
    call.source = Source("openai-chat", json.dumps(BODY).encode())
    assert gateway.jobs is not None
    return (await gateway.jobs.submit(call, Later(asked=True))).id


@pytest.mark.parametrize("command", [["worker"], ["serve", "--port", "0"]])
def test_a_process_answers_what_others_submit(tmp_path: Path, command: list[str]) -> None:
    """Through the files that they share; it tells each job in a line, and stops cleanly on SIGTERM."""
    path = tmp_path / "firsttoken.toml"
    path.write_text(CONFIG.format(folder=tmp_path))

    async def test() -> None:
        gateway = Gateway(config.load(path, {}))
        environ = {**os.environ, "FIRSTTOKEN_CONFIG": str(path)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "firsttoken.cli", *command),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                name = await submit(gateway)
                until = asyncio.get_running_loop().time() + 30
                assert gateway.jobs is not None
                items = [item async for item in gateway.jobs.follow("acme", name, until)]
                assert items[-1].state == "done"
                assert sum(bool(getattr(item, "text", "")) for item in items) > 1
                process.send_signal(signal.SIGTERM)
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
            await gateway.aclose()
        assert process.returncode in {0, -signal.SIGTERM}, err.decode()
        lines = [line for line in (out + err).decode().splitlines() if line.startswith("{")]
        [row] = [row for row in map(json.loads, lines) if row.get("id") == name]
        assert (row["status"], row["tenant"], row["attempts"]) == ("done", "acme", 1)

    asyncio.run(test())


def test_a_worker_needs_a_queue_that_processes_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A queue in memory is another one in each process."""
    monkeypatch.setenv("FIRSTTOKEN_QUEUE__KIND", "memory")
    assert main(["worker"]) == 2
    assert "queue.kind" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["worker"], ["serve", "--port", "0"]])
@pytest.mark.parametrize("setting", ["jobs.encryption_key", "webhook.secret"])
def test_a_wrong_secret_stops_the_start(
    command: list[str],
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is not left to the first client, or job, that needs it."""
    path = tmp_path / "firsttoken.toml"
    section, _, key = setting.partition(".")
    path.write_text(CONFIG.format(folder=tmp_path) + f'[{section}]\n{key} = "short"\n')
    monkeypatch.setenv("FIRSTTOKEN_CONFIG", str(path))
    assert main(command) == 2
    assert setting in capsys.readouterr().err
