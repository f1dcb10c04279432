"""What docs/caching.md promises: its examples load, and each kind answers from its cache."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from policies.live import serve
from support import ask

from firsttoken import config
from firsttoken.app import App
from firsttoken.cli import _parser
from firsttoken.gateway import Gateway
from firsttoken.settings import Cache, Semantic, Settings
from firsttoken.telemetry.record import Record

TEXT = (Path(__file__).parents[2] / "docs" / "caching.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"(?:^ *|`)firsttoken (cache [^#`\n]*)", TEXT, re.MULTILINE)
FAST = {"FIRSTTOKEN_PROVIDERS__SIMULATED__PROFILE": "ttft_ms=0,itl_ms=0,tokens=6"}
SECRETS = {
    "ANTHROPIC_API_KEY": "any",
    "OPENAI_API_KEY": "any",
    "CACHE_SECRET": "secret",
    "CACHE_KEY": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
}


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level."""
    return re.split(rf"^## {heading}$", TEXT, flags=re.MULTILINE)[1].split("\n## ")[0]


class Endpoint:
    """An application with the first example of a section, as ``firsttoken serve`` would read it."""

    def __init__(self, heading: str, folder: Path, **environ: str) -> None:
        example = re.search(r"^```toml\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
        assert example
        self.records: list[Record] = []
        self.app = App(
            Gateway(settings(example[1], folder, environ)), deployed=False, log=self.records.append
        )

    async def say(self, text: str, model: str = "simulated", **headers: str) -> str | None:
        """Ask, wait for what is done beside the call, and return the header that tells of the cache."""
        system = {"role": "system", "content": headers.pop("system", "Be brief.")}
        messages = [system, {"role": "user", "content": text}]
        body = {"model": model, "temperature": 0, "messages": messages}
        answer = await ask(self.app, body, headers=headers)
        await self.app.gateway.shadow.settle(5)
        return answer.headers.get("x-firsttoken-cache")

    async def status(self, name: str) -> Any:
        """A part of ``/v1/status``."""
        return (await ask(self.app, method="GET", path="/v1/status")).json()[name]


def settings(example: str, folder: Path, environ: dict[str, str]) -> Settings:
    file = folder / "firsttoken.toml"
    file.write_text(example, "utf-8")
    return config.load(file, environ)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that examples name."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def upstream() -> Iterator[str]:
    """The address of a simulated provider."""
    with serve() as (url, _):
        yield url


def rows(heading: str) -> Iterator[tuple[str, str]]:
    """The settings in the table of a section, each with the default that it names."""
    for names, defaults in re.findall(
        r"^\| (`[^|]*) \| ([^|]*) \| [^|]* \|$", section(heading), re.MULTILINE
    ):
        several = re.findall(r"`(\w+)`", names)
        said = [word.strip() for word in defaults.split(",")]
        yield from zip(several, said * len(several) if len(said) == 1 else said, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_configuration(example: str, tmp_path: Path) -> None:
    """Each can be pasted as it is: known keys, right values, and a gateway begins with it."""

    async def work() -> None:
        await Gateway(settings(example, tmp_path, {})).aclose()

    asyncio.run(work())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command: str) -> None:
    """Its options are what the command line takes."""
    assert _parser().parse_args(command.split()).run


@pytest.mark.parametrize(("heading", "kind"), [("Exact", Cache), ("Semantic", Semantic)])
def test_settings_and_defaults(heading: str, kind: Any) -> None:
    """The table has every setting but the two of the section on encryption, with its default."""
    named = dict(rows(heading))
    names = [name for name in kind.__struct_fields__ if name not in ("key_secret", "encryption_key")]
    assert sorted(named) == sorted(name for name in names if heading == "Semantic" or name != "mode")
    for name, said in named.items():
        default = getattr(kind(), name)
        assert said == ("none" if default == "" else json.dumps(default).strip('"').removesuffix(".0")), name


def test_exact(tmp_path: Path) -> None:
    """The second of two equal requests is a hit; a client may ask for a new answer, or for none kept."""

    async def work() -> None:
        endpoint = Endpoint("Exact", tmp_path, **FAST)
        said = [await endpoint.say("Hello"), await endpoint.say("Hello")]
        said.append(await endpoint.say("Hello", **{"cache-control": "no-cache"}))
        said.append(await endpoint.say("Hello", **{"cache-control": "no-store"}))
        assert said == ["miss", "hit", "miss", None]
        assert await endpoint.status("cache") == {"miss": 2, "hit": 1}

    asyncio.run(work())


def test_encrypted(tmp_path: Path) -> None:
    """With a secret and a key answers are given again, and the store's files have no word of them."""

    async def work() -> None:
        file = tmp_path / "store.sqlite"
        store = {"FIRSTTOKEN_STORE__KIND": "sqlite", "FIRSTTOKEN_STORE__PATH": str(file)}
        for expected in ("miss", "hit"):
            endpoint = Endpoint("Encryption and damage", tmp_path, **FAST, **store)
            assert await endpoint.say("Hello Rumpelstiltskin") == expected
            await endpoint.app.gateway.aclose()

    asyncio.run(work())
    assert b"Rumpelstiltskin" not in b"".join([path.read_bytes() for path in tmp_path.glob("store*")])


def test_stale(tmp_path: Path) -> None:
    """Older than ``ttl`` an answer is stale and renewed, older than ``max_age`` it is gone."""

    async def work() -> None:
        endpoint = Endpoint("Stale", tmp_path, **FAST)
        tiers = endpoint.app.gateway.caches.tiers  # type: ignore[union-attr]
        said = []
        for later in (0, 59, 61, 61, 86_400 + 62):
            tiers.wall = lambda later=later: time.time() + later
            said.append(await endpoint.say("Hello"))
        assert said == ["miss", "hit", "stale", "hit", "miss"]

    asyncio.run(work())


def test_negative(tmp_path: Path) -> None:
    """A refusal is remembered, and marked as such."""

    async def work() -> None:
        faults = {"FIRSTTOKEN_PROVIDERS__SIMULATED__FAULTS": "true"}
        endpoint = Endpoint("Exact", tmp_path, **FAST, **faults)
        refused = {"x-firsttoken-simulate": "fault=status, status=422"}
        assert [await endpoint.say("Hello", **refused) for _ in range(2)] == ["miss", "refused"]
        assert [record.cache for record in endpoint.records] == ["miss", "refused"]
        assert len(endpoint.records[1].attempts) == 0

    asyncio.run(work())


@pytest.mark.parametrize(
    ("mode", "header", "reason"), [("shadow", "miss", "shadow: words"), ("on", "similar", "words")]
)
def test_semantic(tmp_path: Path, mode: str, header: str, reason: str) -> None:
    """In shadow the log line says what would have been answered; then it is."""

    async def work() -> None:
        endpoint = Endpoint("Semantic", tmp_path, FIRSTTOKEN_SEMANTIC__MODE=mode, **FAST)
        assert await endpoint.say("How do I reset my password?") == "miss"
        assert await endpoint.say("Please tell me how I reset my password.") == header
        assert await endpoint.say("How do I not reset my password?") == "miss"
        notes = [record.notes["similar_reason"] for record in endpoint.records[1:]]
        assert notes == [reason, "negation"]

    asyncio.run(work())


def test_embeddings(tmp_path: Path, upstream: str) -> None:
    """Only texts that are new are sent; the status counts the others."""

    async def work() -> None:
        url = {"FIRSTTOKEN_PROVIDERS__OPENAI__BASE_URL": f"{upstream}/v1"}
        endpoint = Endpoint("Embeddings", tmp_path, **url)
        for texts, tokens in ((["a", "b"], 2), (["a", "b"], 0), (["a", "c"], 1)):
            body = {"model": "small", "input": texts}
            answer = await ask(endpoint.app, body, path="/v1/embeddings")
            assert answer.json()["usage"]["total_tokens"] == tokens
        assert [record.cache for record in endpoint.records] == ["miss", "hit", "miss"]
        assert await endpoint.status("embeddings") == {"small": {"hits": 3, "misses": 3}}
        await endpoint.app.gateway.aclose()

    asyncio.run(work())


def test_prompts(tmp_path: Path, upstream: str) -> None:
    """Instructions that come again are read from the provider's cache; the log line has what that saved."""

    async def work() -> None:
        url = {"FIRSTTOKEN_PROVIDERS__ANTHROPIC__BASE_URL": upstream}
        endpoint = Endpoint("Prompt caching of the providers", tmp_path, **url)
        rules = " ".join(f"Rule {number}: be exact, brief and kind." for number in range(300))
        for number in range(60):
            await endpoint.say(f"Question {number}", model="claude", system=rules)
            if (await endpoint.status("prefix"))["anthropic/claude-opus-5"]["cached_tokens"]:
                break
        assert float(endpoint.records[-1].notes["saved"]) > 0
        await endpoint.app.gateway.aclose()

    asyncio.run(work())
