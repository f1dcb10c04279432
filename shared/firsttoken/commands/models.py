"""``firsttoken models [choose]``: what models cost and can do, and which one to take."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsttoken.commands.tables import table
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.placement.choice import Candidate, Choice
    from firsttoken.placement.models import Model, Rates
    from firsttoken.placement.regions import Offer

_NUMBERS = ("context", "input", "cached", "output", "mixed")


def register(commands: Any) -> None:
    """Add ``models``, and ``choose`` below it, to the commands."""
    parser = commands.add_parser("models", help="the catalogue of models: prices, limits, regions")
    _filters(parser)
    parser.add_argument(
        "--region", default="", help="only models that can be called there, by their id there"
    )
    parser.set_defaults(run=run)
    group = parser.add_subparsers(metavar="COMMAND")
    chosen = group.add_parser("choose", help="the cheapest, the fastest and the best that meet conditions")
    _filters(chosen)
    chosen.add_argument("--min-quality", type=_positive, default=0.0, metavar="SCORE")
    chosen.add_argument(
        "--deadline", type=_positive, default=0.0, metavar="S", help="seconds for the whole answer"
    )
    chosen.add_argument("--prompt", type=_tokens, default=3000, metavar="TOKENS", help="default %(default)s")
    chosen.add_argument("--answer", type=_tokens, default=1000, metavar="TOKENS", help="default %(default)s")
    chosen.add_argument("--measured", type=Path, metavar="FILE", help="your own figures, as JSON")
    chosen.set_defaults(run=run_choose)


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tier", default="", help="fast, balanced or quality")
    parser.add_argument("--provider", default="", help="a kind, as in [providers.NAME] kind")
    parser.add_argument(
        "--max-price", type=_positive, default=0.0, metavar="USD", help="of a million tokens, mixed 3 to 1"
    )
    parser.add_argument("--on", type=_day, metavar="DAY", help="prices of that day (default today)")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def _tokens(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a day such as 2027-01-01, got {text}") from error


def run(parsed: argparse.Namespace) -> int:
    """Print the rows that fit. Raises ConfigError for names that are not known, or where none fits."""
    from firsttoken.placement.models import catalogue, today

    on = parsed.on or today()
    _check(parsed)
    offers = _offers(parsed.region) if parsed.region else {}
    rows = [
        row
        for row in catalogue().models
        if parsed.tier in ("", row.tier) and parsed.provider in ("", row.provider)
        if not parsed.region or (row.provider, row.family) in offers
        if not parsed.max_price or _cheap(row, parsed.max_price, on)
    ]
    if not rows:
        raise ConfigError("models: nothing in the catalogue meets all of these conditions")
    if parsed.json:
        _json(
            {
                "checked": catalogue().checked,
                "prices": on,
                "models": [_plain(row, offers, on) for row in rows],
            }
        )
        return 0
    head = ["provider", "model", "tier", *_NUMBERS, "since", "checked"]
    lines = table(head, [_cells(row, offers, on) for row in rows], _NUMBERS)
    known = {row.quality.benchmark for row in rows if row.quality}
    notes = [
        f"list prices on {on}, US dollars for a million tokens; mixed is three of prompt to one of answer",
        "of global endpoints and short prompts: regions and long prompts may cost more; - has no source",
        *([f"scores (--json) are of {', '.join(sorted(known))}"] if known else []),
    ]
    sys.stdout.write("\n".join([*lines, "", *notes]) + "\n")
    return 0


def run_choose(parsed: argparse.Namespace) -> int:
    """Print the choice. Raises ConfigError for unknown names, PlacementError where nothing fits."""
    from firsttoken.placement.choice import Wanted, choose, read_measured

    _check(parsed)
    choice = choose(
        Wanted(
            tier=parsed.tier,
            provider=parsed.provider,
            max_price=parsed.max_price,
            min_quality=parsed.min_quality,
            deadline=parsed.deadline,
            prompt=parsed.prompt,
            answer=parsed.answer,
            measured=read_measured(parsed.measured) if parsed.measured else None,
            on=parsed.on,
        )
    )
    if parsed.json:
        _json(choice)
    else:
        sys.stdout.write("\n".join(_chosen(choice)) + "\n")
    return 0


def _check(parsed: argparse.Namespace) -> None:
    from firsttoken.placement.models import TIERS, catalogue, known

    if parsed.tier:
        known("--tier", parsed.tier, TIERS)
    if parsed.provider:
        known("--provider", parsed.provider, tuple(sorted({row.provider for row in catalogue().models})))


def _offers(region: str) -> dict[tuple[str, str], Offer]:
    """Return what can be called in a region: of one model the offer that stays nearest."""
    from firsttoken.placement.models import known
    from firsttoken.placement.regions import atlas

    known("--region", region, tuple(sorted(one.id for one in atlas().regions)))
    found: dict[tuple[str, str], Offer] = {}
    for offer in atlas().offers:
        if region in offer.regions:
            found.setdefault((offer.provider, offer.family), offer)
    return found


def _cheap(row: Model, limit: float, on: date) -> bool:
    price = row.blended(on=on)
    return price is not None and price <= limit


def _cells(row: Model, offers: dict[tuple[str, str], Offer], on: date) -> list[str]:
    rates = row.rates(on=on)
    offer = offers.get((row.provider, row.family))
    numbers = (rates.input, rates.cached, rates.output) if rates else (None, None, None)
    return [
        row.provider,
        (offer.model if offer else row.model) + (" (preview)" if row.preview else ""),
        row.tier,
        f"{row.context:,}" if row.context else "-",
        *(_money(number) for number in (*numbers, row.blended(on=on))),
        _since(rates),
        str(row.checked),
    ]


def _money(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"


def _since(rates: Rates | None) -> str:
    return str(rates.since) if rates and rates.since > date.min else "-"


def _plain(row: Model, offers: dict[tuple[str, str], Offer], on: date) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(row)
    plain["rates"] = msgspec.to_builtins(row.rates(on=on))
    offer = offers.get((row.provider, row.family))
    return plain | ({"offer": msgspec.to_builtins(offer)} if offer else {})


def _chosen(choice: Choice) -> list[str]:
    fitting = [one for one in choice.considered if not one.why_not]
    others = [one for one in choice.considered if one.why_not]
    head = ("model", "tier", "mixed", "a call", "whole answer", "first token", "score")
    rows = [_candidate(one) for one in sorted(fitting, key=lambda one: (one.price is None, one.price or 0.0))]
    return [
        *choice.reasons,
        "",
        *table(head, rows, head[2:]),
        "",
        f"list prices on {choice.prices}, US dollars; mixed is for a million tokens",
        *([f"score: {choice.quality}"] if choice.quality else []),
        *(f"not {one.name}: {one.why_not}" for one in others),
    ]


def _candidate(one: Candidate) -> tuple[str, ...]:
    seconds = ("-" if s is None else f"{s:g} s" for s in (one.seconds, one.ttft))
    call = "-" if one.call is None else f"{one.call:.6f}"
    score = "-" if one.quality is None else f"{one.quality:g}"
    return one.name, one.tier, _money(one.price), call, *seconds, score


def _json(value: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
