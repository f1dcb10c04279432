"""Settings: `firsttoken.toml` overlaid by `FIRSTTOKEN_*` variables, as frozen, validated values.

A wrong key or value stops the start with the file (or variable), the key and what was expected. Any setting
can be given as ``FIRSTTOKEN_<SECTION>__<KEY>``; a handful of short names cover the first steps (see
`_SHORT`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from firsttoken.errors import ConfigError
from firsttoken.settings import (
    Embedding,
    MemoryQueue,
    MemoryStore,
    Provider,
    Route,
    Settings,
    Target,
    Weighted,
)

S = TypeVar("S")

_TABLES: dict[str, Any] = {
    "providers": Provider,
    "targets": Target,
    "models": Route,
    "embeddings": Embedding,
}
_SECTIONS: dict[str, Any] = {
    name: kind for name, kind in get_type_hints(Settings).items() if name not in _TABLES
}
_SHORT = {
    "FIRSTTOKEN_CONFIG": "path of the configuration file",
    "FIRSTTOKEN_UPSTREAM_URL": "base URL of an OpenAI-compatible server, for example https://api.openai.com/v1",
    "FIRSTTOKEN_UPSTREAM_KEY": "its API key",
    "FIRSTTOKEN_UPSTREAM_MODEL": "the model to ask it for; without it every model name is passed on",
    "FIRSTTOKEN_AUTH": "auto, on or off",
    "FIRSTTOKEN_KEYS": "tenant:sha256hex pairs, separated by commas",
}
_RUNTIME = ("FIRSTTOKEN_LAMBDA_RESPONSE", "FIRSTTOKEN_RIE", "FIRSTTOKEN_AZURITE", "FIRSTTOKEN_OSLS")
"""Read by runtimes, emulators and tests, not settings of the core."""


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    store: str = "memory",
    queue: str = "",
) -> Settings:
    """Read the settings from ``path`` (default ``firsttoken.toml``, if it is there) and the environment.

    ``store`` and ``queue`` are the kinds of them where none is configured (no queue: no jobs). Raises
    ConfigError naming the file or variable, the key and what was expected.
    """
    environ = os.environ if environ is None else environ
    file, tree = _read(path, environ)
    origins: dict[str, str] = {}
    _overlay(tree, environ, origins)
    _add_defaults(tree, store, queue)
    unknown = sorted(set(tree) - set(_SECTIONS) - set(_TABLES))
    if unknown:
        raise ConfigError(
            f"{file}: unknown section [{unknown[0]}]; expected one of {_names(_SECTIONS, _TABLES)}"
        )
    values: dict[str, Any] = {
        name: _convert(tree.get(name, {}), kind, name, file, origins)
        for name, kind in _SECTIONS.items()
        if name in tree or name != "queue"
    }
    for name, kind in _TABLES.items():
        table = _table(tree.get(name, {}), name, file)
        values[name] = {
            key: _convert(entry, kind, f"{name}.{key}", file, origins) for key, entry in table.items()
        }
    settings = Settings(**values)
    _check_targets(settings, file)
    _check_queue(settings, file, environ)
    if settings.semantic.mode != "off" and settings.cache.mode == "off":
        raise ConfigError(f'{file}: semantic.mode: needs the exact cache, too; expected cache.mode = "on"')
    return settings


def secret(value: str, where: str, environ: Mapping[str, str] | None = None) -> str:
    """Return a configured secret: the value itself, or of the variable that ``env:NAME`` names."""
    environ = os.environ if environ is None else environ
    if not value.startswith("env:"):
        return value
    name = value[4:]
    if not environ.get(name):
        raise ConfigError(f"{where}: the environment variable {name} is not set; expected a secret in it")
    return environ[name]


def key_of(value: str, where: str) -> str:
    """Return a configured API key as `secret` does. Raises ConfigError when it cannot be sent in a header."""
    key = secret(value, where)
    if not key.isprintable() or not key.isascii():
        raise ConfigError(f"{where}: expected printable ASCII without line breaks")
    return key


def _read(path: Path | None, environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    named = path or (Path(environ["FIRSTTOKEN_CONFIG"]) if environ.get("FIRSTTOKEN_CONFIG") else None)
    file = named or Path("firsttoken.toml")
    if not file.is_file():
        if named:
            raise ConfigError(f"{file}: there is no such file; expected a firsttoken.toml")
        return str(file), {}
    import tomllib

    try:
        return str(file), tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: not readable as TOML: {error}") from error


def _overlay(tree: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    for variable in sorted(name for name in environ if name.startswith("FIRSTTOKEN_")):
        if variable in _SHORT or variable in _RUNTIME:
            continue
        path = variable.removeprefix("FIRSTTOKEN_").lower().split("__")
        if len(path) == 1 or path[0] not in (*_SECTIONS, *_TABLES):
            raise ConfigError(
                f"{variable}: unknown variable; expected one of {_names(_SHORT)} or"
                " FIRSTTOKEN_<SECTION>__<KEY>, for example FIRSTTOKEN_SERVER__MAX_BODY_BYTES"
            )
        _set(tree, path, _value(variable, environ[variable]), variable, origins)
    _overlay_short(tree, environ, origins)


def _overlay_short(tree: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    def put(path: str, value: Any, variable: str) -> None:
        _set(tree, path.split("."), value, variable, origins)

    if url := environ.get("FIRSTTOKEN_UPSTREAM_URL"):
        model = environ.get("FIRSTTOKEN_UPSTREAM_MODEL") or "*"
        put("providers.upstream.kind", "openai", "FIRSTTOKEN_UPSTREAM_URL")
        put("providers.upstream.base_url", url, "FIRSTTOKEN_UPSTREAM_URL")
        put(
            "providers.upstream.api_key",
            environ.get("FIRSTTOKEN_UPSTREAM_KEY", ""),
            "FIRSTTOKEN_UPSTREAM_KEY",
        )
        tree.setdefault("models", {})[model] = {"target": f"upstream/{model}"}
    elif unused := [n for n in ("FIRSTTOKEN_UPSTREAM_KEY", "FIRSTTOKEN_UPSTREAM_MODEL") if environ.get(n)]:
        raise ConfigError(f"{unused[0]}: expected FIRSTTOKEN_UPSTREAM_URL beside it")
    if mode := environ.get("FIRSTTOKEN_AUTH"):
        put("auth.mode", mode, "FIRSTTOKEN_AUTH")
    for pair in filter(None, environ.get("FIRSTTOKEN_KEYS", "").split(",")):
        tenant, _, digest = pair.strip().partition(":")
        known = tree.setdefault("auth", {}).setdefault("keys", {}).get(tenant, [])
        _set(tree, ["auth", "keys", tenant], [*known, digest], "FIRSTTOKEN_KEYS", origins)


def _set(tree: dict[str, Any], path: list[str], value: Any, variable: str, origins: dict[str, str]) -> None:
    node = tree
    for key in path[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{variable}: {key} is a plain value in the file; expected a section")
    node[path[-1]] = value
    origins[".".join(path)] = variable


def _add_defaults(tree: dict[str, Any], kind: str, queue: str) -> None:
    """Offer the simulated model and the local embedder when nothing else is configured.

    The simulated provider's own settings may still be given.
    """
    store = tree.setdefault("store", {})
    if isinstance(store, dict):
        store.setdefault("kind", kind)
    objects = tree.setdefault("objects", {})
    if isinstance(objects, dict):
        objects.setdefault("kind", "store")
    if queue and "queue" not in tree:
        in_memory = isinstance(store, dict) and store["kind"] == "memory"
        tree["queue"] = {"kind": "memory" if in_memory else queue}
    providers = tree.setdefault("providers", {})
    named = tree.get("models") or tree.get("embeddings")
    if isinstance(providers, dict) and not named and set(providers) <= {"simulated"}:
        providers.setdefault("simulated", {}).setdefault("kind", "simulated")
        providers["local"] = {"kind": "local"}
        tree["models"] = {"simulated": {"target": "simulated/simulated"}}
        tree["embeddings"] = {"lexical": {"target": "local/lexical"}}


def _value(variable: str, text: str) -> Any:
    if text[:1] not in ("[", "{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{variable}: expected JSON for a list or table: {error}") from error


def _table(value: Any, name: str, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            f"{file}: {name}: expected a table of [{name}.NAME] sections, got {type(value).__name__}"
        )
    return value


def _convert(value: Any, kind: type[S], where: str, file: str, origins: dict[str, str]) -> S:
    from_environment = {key: name for key, name in origins.items() if key.startswith(where + ".")}
    try:
        return msgspec.convert(value, kind, strict=not from_environment)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        key = where + path.rstrip("`").replace("[...]", "")
        if "unknown field" in what:
            name = what.split("`")[1]
            key, what = f"{key}.{name}", f"unknown key; expected one of {_fields(kind, value)}"
        elif what.startswith("Invalid") and (choices := _choices(kind, key.rpartition(".")[2])):
            what += f"; expected one of {choices}"
        origin = next((name for path, name in from_environment.items() if path.startswith(key)), file)
        raise ConfigError(f"{origin}: {key}: {what}") from error


def _kinds(kind: Any) -> list[Any]:
    return [one for one in getattr(kind, "__args__", (kind,)) if one is not type(None)]


def _fields(kind: Any, value: Any) -> str:
    kinds = _kinds(kind)
    value = value if isinstance(value, dict) else {}
    chosen = [k for k in kinds if k.__struct_config__.tag == value.get("kind")] or kinds
    return _names([name for k in chosen for name in k.__struct_fields__])


def _choices(kind: Any, field: str) -> str:
    if field == "kind" and hasattr(kind, "__args__"):
        return _names([k.__struct_config__.tag for k in _kinds(kind)])
    return _names(get_args(get_type_hints(kind).get(field)))


def _check_targets(settings: Settings, file: str) -> None:
    if not settings.models and not settings.embeddings:
        raise ConfigError(
            f"{file}: there is no [models.NAME] section; expected one with target = 'provider/model'"
        )
    for where, target in _named_targets(settings, file):
        provider = target.partition("/")[0]
        if provider not in settings.providers:
            raise ConfigError(
                f"{file}: {where}: no provider is named {provider!r};"
                f" expected one of {_names(settings.providers)}"
            )


def _check_queue(settings: Settings, file: str, environ: Mapping[str, str]) -> None:
    """Check what jobs need; they are built with the first of them, too late to say that it is missing."""
    queue, store = settings.queue, settings.store
    if queue is not None:
        secret(settings.jobs.encryption_key, f"{file}: jobs.encryption_key", environ)
        secret(settings.webhook.secret, f"{file}: webhook.secret", environ)
    if queue is not None and isinstance(store, MemoryStore) and not isinstance(queue, MemoryQueue):
        raise ConfigError(
            f"{file}: queue.kind: a queue hands jobs to other processes; expected a store that they share,"
            " store.kind one of sqlite, redis, dynamodb, tables"
        )


def _named_targets(settings: Settings, file: str) -> Iterator[tuple[str, str]]:
    """Yield every target that is named anywhere, and where; a route names its targets in one of two ways."""
    for name, embedding in settings.embeddings.items():
        yield f"embeddings.{name}.target", embedding.target
    for name in settings.targets:
        yield f"targets.{name}", name
    for name, route in settings.models.items():
        where = f"models.{name}"
        if bool(route.target) == bool(route.targets):
            raise ConfigError(f"{file}: {where}: expected either target or targets")
        listed = [item.target if isinstance(item, Weighted) else item for item in route.targets]
        if len(set(listed)) < len(listed):
            raise ConfigError(f"{file}: {where}.targets: expected each target once")
        yield f"{where}.target", route.all_targets()[0].target
        for key, more in (
            ("targets", listed),
            ("context_overflow", route.context_overflow),
            ("content_filter", route.content_filter),
            ("degrade", [rung.target for rung in route.degrade if rung.target]),
        ):
            yield from ((f"{where}.{key}", target) for target in more)
        if any(bool(rung.target) + bool(rung.text) + rung.stale != 1 for rung in route.degrade):
            raise ConfigError(f"{file}: {where}.degrade: expected target, text or stale in each step")


def _names(*groups: Any) -> str:
    return ", ".join(str(name) for group in groups for name in group)
