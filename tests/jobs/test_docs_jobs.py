"""What docs/jobs.md promises: its examples load, its quick start runs, and its numbers are the code's."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from api.deferred import ASYNC, fetch
from policies.live import serve
from support import ask, chat, make_app
from virtual_time import run

from firsttoken import config
from firsttoken.app import App
from firsttoken.cli import _parser
from firsttoken.commands.worker import beside
from firsttoken.gateway import Gateway
from firsttoken.jobs.webhook import Webhooks
from firsttoken.runtimes import local
from firsttoken.settings import Jobs, MemoryQueue, SimulatedProvider, Webhook
from firsttoken.worker import answer_message

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "jobs.md").read_text("utf-8")
SECRET = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
FAST = "ttft_ms=0,itl_ms=0,tokens=6"


def blocks(kind: str, text: str = TEXT) -> list[str]:
    """The examples in one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SHELL = "\n".join(blocks("sh")).replace("\\\n", "")
CURLS = re.findall(r"^curl (.*)$", SHELL, re.MULTILINE)
COMMANDS = {
    *[said.strip() for said in re.findall(r"^firsttoken ([^#\n]*)", SHELL, re.MULTILINE)],
    *[said for said in re.findall(r"`firsttoken ([^`]+)`", TEXT) if said != "jobs"],
}
GATEWAY, TARGET = "http://127.0.0.1:8080", "http://127.0.0.1:8081"


@contextmanager
def served(example: str, folder: Path, environ: dict[str, str]) -> Iterator[str]:
    """Run ``firsttoken serve`` with a configuration, in a thread of its own."""
    file = folder / "firsttoken.toml"
    file.write_text(example, "utf-8")
    settings = config.load(
        file, {"FIRSTTOKEN_SERVER__LOG": "false", **environ}, store="sqlite", queue="sqlite"
    )
    app = App(Gateway(settings), deployed=False)
    options = uvicorn.Config(app, port=0, ws="none", lifespan="on", log_level="error")
    server = local._Server(options, beside(app.gateway))
    ready, startup = threading.Event(), server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def curl(arguments: str, meant: dict[str, str]) -> tuple[int, str]:
    """Do what curl would, with the options that the page uses; return status and body."""
    for said, instead in meant.items():
        arguments = arguments.replace(said, instead)
    words = iter(shlex.split(arguments, comments=True))
    request = urllib.request.Request("http://unknown")
    for word in words:
        if word == "-H":
            request.add_header(*next(words).split(": ", 1))
        elif word == "-d":
            request.data = next(words).encode()
        elif word == "-X":
            request.method = next(words)
        elif word not in ("-i", "-N"):
            request.full_url = word
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - an address on loopback
        return answer.status, answer.read().decode()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of its own, where nothing configured lies."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("example", blocks("toml"))
def test_an_example_is_a_configuration(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each can be pasted as it is: known keys, right values, and store, queue and objects begin with it."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    file = tmp_path / "firsttoken.toml"
    file.write_text(example, "utf-8")

    async def work() -> None:
        gateway = Gateway(config.load(file, {}))
        assert (gateway.jobs is not None) == ("[queue]" in example)
        assert gateway.objects
        await gateway.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("page", ["configuration", "stores"])
def test_other_pages_load(page: str, tmp_path: Path) -> None:
    """What they say of queues and stores is a configuration, too."""
    for number, example in enumerate(blocks("toml", (DOCS / f"{page}.md").read_text("utf-8"))):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, "utf-8")
        assert config.load(file, {})


def test_a_queue_on_this_machine() -> None:
    """The variables that docs/emulators.md exports name a store and a queue of that cloud."""
    kinds = []
    for example in blocks("sh", (DOCS / "emulators.md").read_text("utf-8")):
        words = [
            word for line in re.findall("^export (.*)", example, re.MULTILINE) for word in shlex.split(line)
        ]
        queue = config.load(None, dict(word.split("=", 1) for word in words)).queue
        kinds.append(queue and queue.__struct_config__.tag)
    assert kinds == ["sqs", "pubsub", "storage_queue"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_exists(command: str) -> None:
    """Its options are what the command line takes."""
    assert _parser().parse_args(command.split()).run


@pytest.mark.parametrize(("section", "kind"), [("jobs", Jobs), ("webhook", Webhook)])
def test_every_setting_is_there_with_its_default(section: str, kind: Any, tmp_path: Path) -> None:
    """Pasting the block of all settings changes nothing."""
    [example] = [block for block in blocks("toml") if "[webhook]" in block]
    file = tmp_path / "firsttoken.toml"
    file.write_text(example, "utf-8")
    assert getattr(config.load(file, {}), section) == kind()
    said = re.findall(r"^(\w+) =", example.split(f"[{section}]")[1].split("[webhook]")[0], re.MULTILINE)
    assert said == list(kind.__struct_fields__)


@pytest.mark.parametrize(
    ("kind", "name", "delay", "size"),
    [
        ("memory", "MemoryQueue", "15 min", "256 KiB"),
        ("sqlite", "SqliteQueue", "any", "1 MiB"),
        ("sqs", "SqsQueue", "15 min", "1 MiB less 4 KiB"),
        ("pubsub", "PubsubQueue", "none", "7 MiB"),
        ("storage_queue", "StorageQueue", "7 days", "48 KiB"),
        ("service_bus", "ServiceBusQueue", "7 days", "192 KiB"),
    ],
)
def test_the_table_of_queues_is_true(kind: str, name: str, delay: str, size: str) -> None:
    """Its sizes and delays are those of the code."""
    queue = getattr(import_module(f"firsttoken.queues.{kind}"), name)
    [cells] = re.findall(rf"^\| `{kind}` \| [^|]* \| ([^|]*) \| ([^|]*) \|", TEXT, re.MULTILINE)
    assert (cells[0].partition(":")[0], cells[1]) == (delay, size)
    units = {"KiB": 1024, "MiB": 1024**2, "min": 60, "days": 86_400}
    first, *less = [int(count) * units[unit] for count, unit in re.findall(r"(\d+) (\w+)", size)]
    assert queue.max_body_bytes == first - sum(less)
    named = re.fullmatch(r"(\d+) (\w+)", delay)
    expected = int(named[1]) * units[named[2]] if named else 0
    assert queue.max_delay > 86_400 * 365 if delay == "any" else queue.max_delay == expected


def test_the_quick_start(temporary: Path) -> None:
    """Without any configuration a call becomes a job, is answered, and can be fetched and followed."""
    environ = {"FIRSTTOKEN_PROVIDERS__SIMULATED__PROFILE": FAST}
    with served("", temporary, environ) as url:
        meant = {GATEWAY: url}
        status, body = curl(CURLS[0], meant)
        job = json.loads(body)
        assert status == 202
        meant["$JOB"] = job["id"]
        assert curl(CURLS[1], meant)[0] == 200
        events = curl(CURLS[2], meant)[1]
        assert events.endswith("data: [DONE]\n\n")
        done = json.loads(curl(CURLS[1], meant)[1])
        assert done["state"] == "done"
        assert "Hello!" in done["answer"]["choices"][0]["message"]["content"]
        code = blocks("python")[0].replace(GATEWAY, url).replace("sleep(2)", "sleep(0.02)")
        names: dict[str, Any] = {}
        exec(compile(code, "docs/jobs.md", "exec"), names)  # noqa: S102 - it is our own page
        names["client"].close()
        assert "Hello!" in names["response"].output_text


def test_an_outage_costs_no_request(temporary: Path) -> None:
    """The call becomes a job, which is answered once the target is there again."""
    example = next(block for block in blocks("toml") if "[models.fast]" in block)
    environ = {"FIRSTTOKEN_JOBS__RETRY_AFTER": "0.05", "FIRSTTOKEN_BREAKER__OPEN": "0.2"}
    with serve(FAST) as (target, _):
        example = example.replace(TARGET, target)
        with served(example, temporary, environ) as url:
            meant = {GATEWAY: url, TARGET: target}
            begin, call, end, events = CURLS[3:]
            curl(begin, meant)
            status, body = curl(call, meant)
            assert status == 202
            curl(end, meant)
            said = curl(events, {**meant, "$JOB": json.loads(body)["id"]})[1]
            assert said.endswith("data: [DONE]\n\n")


def test_the_page_verifies_our_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What we sign is genuine, also with a second secret; what was changed, is old or unsigned is not."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[1], "docs/jobs.md", "exec"), names)  # noqa: S102 - it is our own page
    is_genuine = names["is_genuine"]
    headers = dict(Webhooks(Webhook(secret=SECRET)).sign("job_1.done", b"{}"))
    another = f"whsec_{'A' * 32}"
    other = dict(Webhooks(Webhook(secret=another)).sign("job_1.done", b"{}"))
    old = dict(Webhooks(Webhook(secret=SECRET), clock=lambda: time.time() - 301).sign("job_1.done", b"{}"))
    assert is_genuine(headers, b"{}")
    assert is_genuine(dict(Webhooks(Webhook(secret=f"{another} {SECRET}")).sign("job_1.done", b"{}")), b"{}")
    assert not is_genuine(headers, b"[]")
    assert not is_genuine({**headers, "webhook-id": "job_2.done"}, b"{}")
    assert not any(is_genuine(wrong, b"{}") for wrong in (other, old, {}, {"webhook-signature": "ü"}))


class Counting:
    """A store whose operations are counted."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._calls: Counter[str] = Counter()
        self.parts = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("get", "get_many", "put", "swap", "delete", "add", "lease", "release"):
            return found

        async def counted(*arguments: Any, **more: Any) -> Any:
            self._calls[name] += 1
            self.parts += str(arguments[0]).startswith("job-part:")
            return await found(*arguments, **more)

        return counted

    def taken(self) -> int:
        """How many there were since the last time that somebody asked."""
        count = self._calls.total()
        self._calls.clear()
        return count


def costs(step: str) -> list[int]:
    """The numbers that the table of costs has for a step."""
    [cell] = re.findall(rf"^\| {step}[^|]* \| ([^|]*) \|", TEXT, re.MULTILINE)
    return [int(number) for number in re.findall(r"\b(\d+)\b", cell)]


@pytest.mark.parametrize("profile", [FAST, "ttft_ms=20000,itl_ms=0", "ttft_ms=0,itl_ms=200,tokens=12"])
def test_the_table_of_costs_is_true(profile: str) -> None:
    """Counted are the operations of the store: none of them depends on how many jobs there are."""

    async def work() -> None:
        provider = SimulatedProvider(profile=profile)
        app = make_app(queue=MemoryQueue(), providers={"simulated": provider})
        gateway = app.gateway
        store: Any = Counting(gateway.store)
        gateway.store = store
        name = (await ask(app, chat(), headers=ASYNC)).json()["id"]
        assert [store.taken()] == costs("a call becomes a job")
        assert (await fetch(app, f"/v1/jobs/{name}")).json()["state"] == "queued"
        asking, fetching = costs("asking for a job; for its answer")
        assert store.taken() == asking
        [delivery] = await gateway.queue.receive(1, 30.0, 0.0)
        began = asyncio.get_running_loop().time()
        assert (await answer_message(gateway, delivery.body))["status"] == "done"
        thirds = int((asyncio.get_running_loop().time() - began) // (gateway.settings.jobs.lease / 3))
        least, each_part, *_, each_third, _pace = costs("a worker answers it")
        assert store.taken() == least + each_part * (store.parts - 1) + each_third * thirds
        assert (await fetch(app, f"/v1/jobs/{name}")).json()["state"] == "done"
        assert store.taken() == fetching
        await gateway.aclose()

    run(work())


@pytest.mark.parametrize("page", ["jobs", "stores", "emulators", "simulator", "configuration", "resilience"])
def test_links_lead_somewhere(page: str) -> None:
    """A page that is named is there, and so is the heading."""
    for file, anchor in re.findall(
        r"\]\((?!http)([^)#]*)#?([^)]*)\)", (DOCS / f"{page}.md").read_text("utf-8")
    ):
        target = DOCS / (file or f"{page}.md")
        assert target.exists(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings
        ]
