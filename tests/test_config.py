"""Configuration: what is read, what wins, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsttoken.config import load, secret
from firsttoken.errors import ConfigError
from firsttoken.settings import (
    MemoryQueue,
    MemoryStore,
    OpenAIProvider,
    SimulatedProvider,
    SqliteQueue,
    SqliteStore,
    SqsQueue,
    Weighted,
)

SIM = "[providers.a]\nkind = 'simulated'\n"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "firsttoken.toml"
    file.write_text(text, "utf-8")
    return file


def test_defaults_serve_the_simulated_model() -> None:
    """Without any configuration there is one route, to the embedded model."""
    settings = load(environ={})
    assert list(settings.models) == ["simulated"]
    assert isinstance(settings.providers["simulated"], SimulatedProvider)


def test_the_embedded_model_can_be_tuned_by_variables() -> None:
    """A variable changes one of its settings and keeps the rest."""
    provider = load(environ={"FIRSTTOKEN_PROVIDERS__SIMULATED__TTFT_MS": "1"}).providers["simulated"]
    assert isinstance(provider, SimulatedProvider)
    assert (provider.ttft_ms, provider.itl_ms) == (1.0, 20.0)


def test_three_variables_point_at_a_real_provider() -> None:
    """URL, key and model are enough, and the simulated model is gone."""
    settings = load(
        environ={
            "FIRSTTOKEN_UPSTREAM_URL": "https://api.example.com/v1",
            "FIRSTTOKEN_UPSTREAM_KEY": "k",
            "FIRSTTOKEN_UPSTREAM_MODEL": "big",
        }
    )
    assert settings.models["big"].target == "upstream/big"
    assert list(settings.providers) == ["upstream"]


def test_an_empty_variable_is_not_set() -> None:
    """Deployment tools pass on variables that nobody set as empty ones."""
    names = ("UPSTREAM_URL", "UPSTREAM_KEY", "UPSTREAM_MODEL", "KEYS", "AUTH", "CONFIG")
    assert load(environ={f"FIRSTTOKEN_{name}": "" for name in names}) == load(environ={})
    only_url = {"FIRSTTOKEN_UPSTREAM_URL": "http://127.0.0.1:1/v1", "FIRSTTOKEN_UPSTREAM_MODEL": ""}
    assert load(environ=only_url).models["*"].target == "upstream/*"


def test_file_and_environment_are_merged(tmp_path: Path) -> None:
    """A variable wins over the file and is converted to the setting's type."""
    file = write(tmp_path, "[server]\nheartbeat_seconds = 3\nmax_json_depth = 8\n")
    settings = load(file, {"FIRSTTOKEN_SERVER__MAX_JSON_DEPTH": "9", "FIRSTTOKEN_SERVER__LOG": "false"})
    assert (settings.server.heartbeat_seconds, settings.server.max_json_depth) == (3.0, 9)
    assert settings.server.log is False


def test_lists_in_variables_are_json() -> None:
    """A list or a table is given as JSON."""
    environ = {
        "FIRSTTOKEN_UPSTREAM_URL": "http://127.0.0.1:1/v1",
        "FIRSTTOKEN_PROVIDERS__UPSTREAM__FORWARD_HEADERS": '["x-a"]',
    }
    provider = load(environ=environ).providers["upstream"]
    assert isinstance(provider, OpenAIProvider)
    assert provider.forward_headers == ["x-a"]


def test_keys_of_a_tenant_with_dots_and_several_keys() -> None:
    """FIRSTTOKEN_KEYS may name a tenant twice, and tenants may hold dots."""
    one, two = "0" * 64, "a" * 64
    settings = load(environ={"FIRSTTOKEN_KEYS": f"acme.eu:{one}, acme.eu:{two}"})
    assert settings.auth.keys == {"acme.eu": [one, two]}


def test_a_route_has_one_target_or_several(tmp_path: Path) -> None:
    """``target`` is short for one of ``targets``; each of those may carry a weight."""
    file = write(
        tmp_path,
        f"{SIM}[models.one]\ntarget = 'a/x'\n"
        "[models.two]\ntargets = ['a/x', { target = 'a/y', weight = 2 }]\n",
    )
    routes = load(file, {}).models
    assert routes["one"].all_targets() == (Weighted(target="a/x"),)
    assert routes["two"].all_targets() == (Weighted(target="a/x"), Weighted(target="a/y", weight=2))


def test_state_is_kept_in_memory_unless_a_store_is_named(tmp_path: Path) -> None:
    """Without ``[store]`` there is one in memory; its options may be given without its kind."""
    assert load(write(tmp_path, ""), {}).store == MemoryStore()
    assert load(write(tmp_path, "[store]\nentries = 99\n"), {}).store == MemoryStore(entries=99)
    assert load(write(tmp_path, ""), {}, store="sqlite").store == SqliteStore()
    assert load(write(tmp_path, "[store]\nkind = 'memory'\n"), {}, store="sqlite").store == MemoryStore()
    environ = {"FIRSTTOKEN_STORE__KIND": "sqlite", "FIRSTTOKEN_STORE__PATH": "state.db"}
    assert load(write(tmp_path, ""), environ).store == SqliteStore(path="state.db")


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("[servr]\n", {}, ["unknown section [servr]", "server"]),
        ('[semantic]\nmode = "on"\n', {}, ["semantic.mode", "cache.mode"]),
        ('[queue]\nkind = "sqlite"\n', {}, ["queue.kind", "store.kind"]),
        ('[queue]\nkind = "sqs"\n', {}, ["queue", "url"]),
        ('[queue]\nkind = "kafka"\n', {}, ["queue.kind", "service_bus"]),
        ('[queue]\nkind = "memory"\n[webhook]\nsecret = "env:NO"\n', {}, ["webhook.secret", "NO is not set"]),
        ("[server]\nmax_body = 1\n", {}, ["server.max_body", "unknown key", "max_body_bytes"]),
        ("[server]\nmax_body_bytes = 'x'\n", {}, ["server.max_body_bytes", "Expected `int`"]),
        ("[server]\nmax_body_bytes = 1\n", {}, ["server.max_body_bytes", ">= 1024"]),
        ("server = 1\n", {}, ["server", "Expected `object`"]),
        ("providers = 1\n", {}, ["providers", "expected a table"]),
        ("[auth]\nmode = 'maybe'\n", {}, ["auth.mode", "auto, on, off"]),
        ("[providers.a]\nkind = 'opnai'\n", {}, ["providers.a.kind", "openai, azure"]),
        ("[providers.a]\nkind = 'openai'\n", {}, ["providers.a", "base_url"]),
        ("[providers.a]\nkind = 'openai'\nbase_url = 'ftp://x'\n", {}, ["providers.a.base_url", "https?"]),
        ("[providers.a]\nkind = 'simulated'\nttft = 1\n", {}, ["providers.a.ttft", "ttft_ms"]),
        ("[models.a]\ntarget = 'nobody/x'\n", {}, ["models.a.target", "'nobody'"]),
        ("[models.a]\ntarget = 'nobody'\n", {}, ["models.a.target", "regex"]),
        ("[providers.a]\nkind = 'simulated'\n", {}, ["models", "target"]),
        (f"{SIM}[models.m]\n", {}, ["models.m", "either target or targets"]),
        (f"{SIM}[models.m]\ntarget = 'a/x'\ntargets = ['a/y']\n", {}, ["models.m", "either target or"]),
        (f"{SIM}[models.m]\ntargets = ['a/x', 'a/x']\n", {}, ["models.m.targets", "each target once"]),
        (f"{SIM}[models.m]\ntargets = ['a/x', 'b/x']\n", {}, ["models.m.targets", "'b'", "one of a"]),
        (f"{SIM}[models.m]\ntargets = [{{ target = 'a/x', share = 1 }}]\n", {}, ["models.m.targets"]),
        (
            f"{SIM}[models.m]\ntarget = 'a/x'\ndegrade = [{{}}]\n",
            {},
            ["m.degrade", "text or stale"],
        ),
        (f"{SIM}[targets.'b/x']\nrpm = 1\n[models.m]\ntarget = 'a/x'\n", {}, ["targets.b/x", "'b'"]),
        ("[store]\nkind = 'mongo'\n", {}, ["store.kind", "memory, sqlite, redis"]),
        ("[store]\nkind = 'redis'\nurll = 'x'\n", {}, ["store.urll", "url"]),
        ("[breaker]\nratio = 2\n", {}, ["breaker.ratio", "<= 1"]),
        ("not toml", {}, ["TOML"]),
        ("", {"FIRSTTOKEN_SERVR__X": "1"}, ["FIRSTTOKEN_SERVR__X", "unknown variable"]),
        ("", {"FIRSTTOKEN_SERVER__MAX_BODY_BYTES": "x"}, ["FIRSTTOKEN_SERVER__MAX_BODY_BYTES", "int"]),
        ("", {"FIRSTTOKEN_UPSTREAM_KEY": "x"}, ["FIRSTTOKEN_UPSTREAM_URL"]),
        ("", {"FIRSTTOKEN_KEYS": "acme:short"}, ["auth.keys", "regex"]),
        ("", {"FIRSTTOKEN_AUTH__KEYS": "{"}, ["FIRSTTOKEN_AUTH__KEYS", "JSON"]),
        ("server = 1\n", {"FIRSTTOKEN_SERVER__LOG": "true"}, ["FIRSTTOKEN_SERVER__LOG", "section"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, environ: dict[str, str], said: list[str]) -> None:
    """Every mistake stops the start and names where it is and what was expected."""
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    for part in said:
        assert part in str(caught.value)
    assert str(file) in str(caught.value) or "FIRSTTOKEN_" in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A configuration file that is named but missing is an error, not the defaults."""
    with pytest.raises(ConfigError, match="no such file"):
        load(environ={"FIRSTTOKEN_CONFIG": str(tmp_path / "absent.toml")})


def test_secrets_come_from_the_environment_and_are_not_shown() -> None:
    """``env:NAME`` reads a variable, a missing one is named, and a provider's repr hides its key."""
    assert secret("env:KEY", "providers.a.api_key", {"KEY": "v"}) == "v"
    assert secret("plain", "providers.a.api_key", {}) == "plain"
    with pytest.raises(ConfigError, match="KEY is not set"):
        secret("env:KEY", "providers.a.api_key", {})
    assert "hidden" not in repr(OpenAIProvider(base_url="https://x", api_key="hidden"))


def test_a_queue_is_only_there_where_it_is_wanted(tmp_path: Path) -> None:
    """A function has none unless it is configured; what serves on a machine may offer one."""
    empty = write(tmp_path, "")
    assert load(empty, {}).queue is None
    assert isinstance(load(empty, {}, store="sqlite", queue="sqlite").queue, SqliteQueue)
    assert isinstance(load(empty, {}, store="memory", queue="sqlite").queue, MemoryQueue)
    one = write(tmp_path, '[store]\nkind = "sqlite"\n[queue]\nkind = "sqs"\nurl = "https://sqs/1/jobs"\n')
    assert isinstance(load(one, {}, queue="sqlite").queue, SqsQueue)
