"""``firsttoken cache label ID --good | --bad``: a person's judgement of an answer of the semantic cache."""

from __future__ import annotations

import argparse
import asyncio
import sys
from random import Random
from typing import TYPE_CHECKING, Any

from firsttoken.auth import LOCAL
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.cache.similar import Similar
    from firsttoken.gateway import Gateway
    from firsttoken.settings import Settings


def register(commands: Any) -> None:
    """Add the command to those of the group ``cache``."""
    parser = commands.add_parser("label", help="say whether an answer of the semantic cache was right")
    parser.add_argument("request", metavar="ID", help="the request_id of the log line, within a day")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--good", action="store_true", help="counts as a judgement, where there is a judge")
    judged.add_argument("--bad", action="store_true", help="that answer is given to its own question only")
    parser.add_argument("--tenant", default=LOCAL, help="whose request it was (default %(default)s)")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Label an answer; the exit status is 1 where there is none. Raises ConfigError or StoreError."""
    from firsttoken import config

    if not asyncio.run(_label(config.load(), parsed.tenant, parsed.request, good=parsed.good)):
        message = f"{parsed.request}: no answer of the semantic cache to tenant {parsed.tenant} is known"
        sys.stderr.write(f"{message} by this id; expected one of the last day, with cache: similar\n")
        return 1
    sys.stdout.write(f"{parsed.request}: labelled {'good' if parsed.good else 'bad'}\n")
    return 0


async def _label(settings: Settings, tenant: str, call_id: str, *, good: bool) -> bool:
    from firsttoken.gateway import Gateway

    if settings.semantic.mode == "off":
        raise ConfigError('semantic.mode: no answer of it can be labelled; expected "on" or "shadow"')
    gateway = Gateway(settings)
    try:
        if not gateway.store.shared:
            message = "store.kind: answers in the memory of another process cannot be labelled"
            raise ConfigError(f"{message}; expected sqlite, redis, dynamodb or tables")
        if not gateway.routes:
            return False
        await gateway.store.open()
        return await _similar(gateway).label(tenant, call_id, good=good)
    finally:
        await gateway.aclose()


def _similar(gateway: Gateway) -> Similar:
    """Return a semantic cache on the gateway's store: a label concerns all routes alike."""
    from firsttoken.cache.answers import Answers, Place
    from firsttoken.cache.scope import Place as Scope
    from firsttoken.cache.similar import Similar
    from firsttoken.cache.similar_parts import Around, shared_for
    from firsttoken.cache.tiers import Tiers
    from firsttoken.providers.http import HttpClient

    settings, store, shadow = gateway.settings, gateway.store, gateway.shadow
    model = next(iter(gateway.routes.values()))
    # Nothing is judged or streamed here: neither client, chance nor model is used.
    around = Around(store, shadow, HttpClient(), gateway.embedders, Random(0), lambda: model)  # noqa: S311
    answers = Answers(Tiers(settings.cache, store, shadow), Place(""))
    return Similar(model, answers, shared_for(settings, around), Scope(""))
