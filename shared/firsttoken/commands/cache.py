"""``firsttoken cache purge | show``, and the other commands of the group where they are installed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from firsttoken.gateway import Gateway
    from firsttoken.settings import Settings

_OTHERS = ("cache_warm", "cache_eval", "cache_label")


def register(commands: Any) -> None:
    """Add the group ``cache`` to the commands."""
    parser = commands.add_parser("cache", help="purge, inspect, warm or evaluate the caches")
    group = parser.add_subparsers(required=True, metavar="COMMAND")
    purge = group.add_parser("purge", help="forget answers; instances know of it within 5 seconds")
    purge.add_argument("--tenant", action="append", default=[], metavar="T", help="all of this tenant's")
    purge.add_argument("--route", action="append", default=[], metavar="R", help="all of this model name's")
    purge.add_argument("--tag", action="append", default=[], metavar="X", help="all of routes with this tag")
    purge.add_argument("--all", action="store_true", help="all there are")
    purge.set_defaults(run=run_purge)
    show = group.add_parser("show", help="say what is cached where, and what was purged when")
    show.set_defaults(run=run_show)
    for name in _OTHERS:
        if find_spec(f"firsttoken.commands.{name}") is not None:
            import_module(f"firsttoken.commands.{name}").register(group)


def run_purge(parsed: argparse.Namespace) -> int:
    """Purge what carries any of the labels. Raises ConfigError, or StoreError where it did not work."""
    from firsttoken import config
    from firsttoken.cache.purge import ALL, labels_of

    settings = config.load()
    labels = [ALL] if parsed.all else []
    for tenant in parsed.tenant:
        labels += labels_of(tenant=tenant)
    for route in parsed.route:
        _check(route, settings.models, "--route")
        labels += labels_of(route=route)
    known = {tag for route in settings.models.values() for tag in route.tags}
    for tag in parsed.tag:
        _check(tag, known, "--tag")
        labels += labels_of(tags=[tag])
    if not labels:
        raise ConfigError("cache purge: expected --tenant, --route, --tag or --all")
    asyncio.run(_purge(settings, labels))
    sys.stdout.write(f"purged: {', '.join(labels)}\n")
    return 0


def run_show(parsed: argparse.Namespace) -> int:  # noqa: ARG001 - a command takes what was parsed
    """Print the settings of the cache, its store, and the last purge of every label that is configured."""
    from firsttoken import config

    sys.stdout.write("\n".join(asyncio.run(_show(config.load()))) + "\n")
    return 0


def _check(name: str, known: Iterable[str], option: str) -> None:
    names = sorted(known)
    if name not in names:
        expected = f"expected one of {', '.join(names)}" if names else "none is configured"
        raise ConfigError(f"{option} {name}: {expected}")


async def _purge(settings: Settings, labels: list[str]) -> None:
    from firsttoken.cache.purge import Purges
    from firsttoken.gateway import Gateway

    gateway = Gateway(settings)
    try:
        if not gateway.store.shared:
            message = (
                "store.kind: expected sqlite, redis, dynamodb or tables, as in the gateway's configuration"
            )
            raise ConfigError(
                f"{message}; a cache in the memory of another process ends when that is restarted"
            )
        await Purges(gateway.store, gateway.shadow).purge(labels)
    finally:
        await gateway.aclose()


async def _show(settings: Settings) -> list[str]:
    from firsttoken.gateway import Gateway

    gateway = Gateway(settings)
    try:
        store, purged = await _store(gateway)
    finally:
        await gateway.aclose()
    cache = settings.cache
    sealed = "encrypted" if cache.encryption_key else "not encrypted"
    keyed = "with a secret" if cache.key_secret else "without a secret"
    return [
        f"cache    {cache.mode}; ttl {cache.ttl:g} s, max_age {cache.max_age:g} s",
        f"keeps    {_kept(settings)}",
        f"store    {store}; answers {sealed}, keys {keyed}",
        f"memory   {cache.memory_bytes:,} bytes in each process",
        f"all      {_when(purged, 'all')}",
        *[f"tenant   {name}; {_when(purged, f'tenant:{name}')}" for name in sorted(settings.auth.keys)],
        *[_route(name, settings, purged) for name in sorted(settings.models)],
        *[f"tag      {tag}; {_when(purged, f'tag:{tag}')}" for tag in _tags(settings)],
    ]


async def _store(gateway: Gateway) -> tuple[str, dict[str, float]]:
    """Return a word on the store, and when each label was purged."""
    from firsttoken.cache.purge import ALL, Purges, labels_of
    from firsttoken.errors import StoreError

    kind = gateway.store.kind
    if not gateway.store.shared:
        return f"{kind}: every process for itself", {}
    settings = gateway.settings
    labels = [ALL, *labels_of(tags=_tags(settings))]
    for tenant in settings.auth.keys:
        labels += labels_of(tenant=tenant)
    for route in settings.models:
        labels += labels_of(route=route)
    try:
        await gateway.store.open()
        started = time.perf_counter()
        purged = await Purges(gateway.store, gateway.shadow).times(labels)
    except StoreError as error:
        return f"{kind}: not reached ({error})", {}
    return f"{kind}: reached in {(time.perf_counter() - started) * 1000:.1f} ms", purged


def _route(name: str, settings: Settings, purged: Mapping[str, float]) -> str:
    route = settings.models[name]
    kept = "cached" if route.cache and settings.cache.mode == "on" else "not cached"
    version = f", version {route.version}" if route.version else ""
    tags = f", tags {', '.join(route.tags)}" if route.tags else ""
    return f"route    {name}; {kept}{version}{tags}; {_when(purged, f'route:{name}')}"


def _kept(settings: Settings) -> str:
    cache = settings.cache
    also = [
        (cache.sampled, "sampled answers"),
        (cache.tools, "answers to requests with tools"),
        (cache.time_relative, "answers that depend on now"),
    ]
    refusals = f", refusals for {cache.negative_ttl:g} s" if cache.negative_ttl else ""
    return ", ".join(["repeatable answers", *[words for allowed, words in also if allowed]]) + refusals


def _tags(settings: Settings) -> list[str]:
    return sorted({tag for route in settings.models.values() for tag in route.tags})


def _when(purged: Mapping[str, float], label: str) -> str:
    if label not in purged:
        return "never purged"
    return time.strftime("purged %Y-%m-%d %H:%M:%S UTC", time.gmtime(purged[label]))
