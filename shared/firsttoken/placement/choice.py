"""Choose a model by price, speed and quality, and say why the others were not chosen.

A speed or a quality is only ever one that was published with its source, or the user's own measurement. Where
neither is known the model is not called fast or good: it is left out of what needs to know.
"""

from __future__ import annotations

from datetime import date
from math import inf
from pathlib import Path

import msgspec
from msgspec import Struct

from firsttoken.errors import ConfigError
from firsttoken.placement.models import Model, catalogue, find, known, today
from firsttoken.placement.plan import PlacementError


class Figures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user measured of one model."""

    ttft: float | None = None
    """Seconds to the first token."""
    tokens_per_second: float | None = None
    """After the first."""
    quality: float | None = None
    """On whatever scale; the same for all models of the file."""
    calls: int | None = None


class Measured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's own measurements, by ``provider/model``."""

    models: dict[str, Figures]
    quality: str = ""
    """What the quality says, for example the name of an evaluation."""
    date: str = ""


class Wanted(Struct, frozen=True, kw_only=True):
    """The conditions; 0 or empty is none."""

    tier: str = ""
    provider: str = ""
    max_price: float = 0.0
    """US dollars for a million tokens, of prompt and answer as many as below."""
    min_quality: float = 0.0
    deadline: float = 0.0
    """Seconds for the whole answer."""
    prompt: int = 3000
    answer: int = 1000
    measured: Measured | None = None
    on: date | None = None


class Candidate(Struct, frozen=True, kw_only=True):
    """A model with what counts here."""

    name: str
    tier: str
    price: float | None
    """US dollars for a million tokens, mixed as asked."""
    call: float | None
    """US dollars for one such call."""
    seconds: float | None
    """For the whole answer."""
    ttft: float | None
    quality: float | None
    why_not: str = ""
    """Empty where all conditions are met."""


class Choice(Struct, frozen=True, kw_only=True):
    """The best of each kind among those that meet the conditions, and all that were looked at."""

    cheapest: Candidate | None
    fastest: Candidate | None
    best: Candidate | None
    reasons: tuple[str, ...]
    quality: str
    """What the quality says; empty where nothing is known of it."""
    considered: tuple[Candidate, ...]
    prices: date
    """The day whose prices these are."""


def choose(wanted: Wanted) -> Choice:
    """Return what meets the conditions. Raises PlacementError where nothing does, saying why for each."""
    on = wanted.on or today()
    rows = [
        row
        for row in catalogue().models
        if wanted.tier in ("", row.tier) and wanted.provider in ("", row.provider)
    ]
    if not rows:
        raise PlacementError(f"the catalogue has no model of tier {wanted.tier!r} at {wanted.provider!r}")
    scale = _scale(wanted, rows)
    considered = tuple(_candidate(row, wanted, scale, on) for row in rows)
    fit = [one for one in considered if not one.why_not]
    if not fit:
        raise PlacementError(_nothing(considered))
    cheapest = min(fit, key=lambda one: (_or(one.price, inf), one.name))
    fastest = min(fit, key=lambda one: (_or(one.seconds, inf), one.name))
    best = min(fit, key=lambda one: (-_or(one.quality, -inf), _or(one.price, inf), one.name))
    chosen = [
        cheapest if cheapest.price is not None else None,
        fastest if fastest.seconds is not None else None,
        best if best.quality is not None else None,
    ]
    return Choice(
        cheapest=chosen[0],
        fastest=chosen[1],
        best=chosen[2],
        reasons=_reasons(chosen, wanted, scale, len(fit)),
        quality=scale,
        considered=considered,
        prices=on,
    )


def read_measured(path: Path) -> Measured:
    """Return a user's measurements. Raises ConfigError for a file that is none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Measured)
    except (OSError, msgspec.MsgspecError) as error:
        expected = '{"models": {"bedrock/amazon.nova-micro-v1:0": {"ttft": 0.3, "tokens_per_second": 120}}}'
        raise ConfigError(f"{path}: expected measurements such as {expected}: {error}") from error
    names = tuple(row.name for row in catalogue().models)
    for name in found.models:
        provider, _, model = name.partition("/")
        if find(provider, model) is None:
            known(f"{path}: model", name, names)
    return found


def _nothing(considered: tuple[Candidate, ...]) -> str:
    """Say why none is left, each reason once."""
    reasons: dict[str, list[str]] = {}
    for one in considered:
        reasons.setdefault(one.why_not, []).append(one.name)
    listed = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())
    return f"no model meets all of these conditions: {listed}"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _scale(wanted: Wanted, rows: list[Model]) -> str:
    """Return what quality says here: the user's own where there is any, else the catalogue's benchmark."""
    own = wanted.measured
    if own and any(figures.quality is not None for figures in own.models.values()):
        return own.quality or "your measurement"
    return next((row.quality.benchmark for row in rows if row.quality), "")


def _figures(row: Model, wanted: Wanted) -> Figures:
    """Return what is known of a model: the user's own before what is published; scales are not mixed."""
    own = wanted.measured.models if wanted.measured else {}
    found = {find(*name.split("/", 1)): figures for name, figures in own.items()}.get(row, Figures())
    scaled = any(figures.quality is not None for figures in own.values())
    published = row.quality.score if row.quality and not scaled else None
    return Figures(
        ttft=row.ttft if found.ttft is None else found.ttft,
        tokens_per_second=row.speed if found.tokens_per_second is None else found.tokens_per_second,
        quality=found.quality if scaled else published,
    )


def _candidate(row: Model, wanted: Wanted, scale: str, on: date) -> Candidate:
    figures = _figures(row, wanted)
    rates = row.rates(wanted.prompt, on)
    call = rates.cost(wanted.prompt, wanted.answer) if rates else None
    seconds = None
    if figures.ttft is not None and figures.tokens_per_second:
        seconds = round(figures.ttft + wanted.answer / figures.tokens_per_second, 3)
    price = row.blended(wanted.prompt, wanted.answer, on)
    candidate = Candidate(
        name=row.name,
        tier=row.tier,
        price=None if price is None else round(price, 6),
        call=None if call is None else round(call, 9),
        seconds=seconds,
        ttft=figures.ttft,
        quality=figures.quality,
    )
    return msgspec.structs.replace(candidate, why_not=_why_not(row, candidate, wanted, scale, on))


def _why_not(row: Model, one: Candidate, wanted: Wanted, scale: str, on: date) -> str:
    if row.retires and row.retires <= on:
        return f"was retired on {row.retires}"
    return _size(row, wanted) or _price(one, wanted) or _quality(one, wanted, scale) or _time(one, wanted)


def _size(row: Model, wanted: Wanted) -> str:
    if row.context and wanted.prompt + wanted.answer > row.context:
        return f"takes {row.context:,} tokens"
    if row.output and wanted.answer > row.output:
        return f"answers {row.output:,} tokens at most"
    return ""


def _price(one: Candidate, wanted: Wanted) -> str:
    if not wanted.max_price or (one.price is not None and one.price <= wanted.max_price):
        return ""
    return "no source for its price" if one.price is None else f"costs {one.price:.4g} a million tokens"


def _quality(one: Candidate, wanted: Wanted, scale: str) -> str:
    if not wanted.min_quality or (one.quality is not None and one.quality >= wanted.min_quality):
        return ""
    return f"no score in {scale or 'anything'}" if one.quality is None else f"scores {one.quality:g}"


def _time(one: Candidate, wanted: Wanted) -> str:
    if not wanted.deadline or (one.seconds is not None and one.seconds <= wanted.deadline):
        return ""
    return "no published or measured speed" if one.seconds is None else f"takes {one.seconds:g} s"


def _reasons(chosen: list[Candidate | None], wanted: Wanted, scale: str, fit: int) -> tuple[str, ...]:
    cheapest, fastest, best = chosen
    mix = f"{wanted.prompt} tokens of prompt and {wanted.answer} of answer"
    measure = "measure, and give --measured"
    return (
        f"cheapest of {fit} that fit: {cheapest.name}, {cheapest.price:.4g} dollars a million tokens ({mix})"
        if cheapest
        else f"cheapest: no price is known of the {fit} that fit",
        f"fastest: {fastest.name}, {fastest.seconds:g} s for the whole answer"
        if fastest
        else f"fastest: no speed is published or measured of the {fit} that fit; {measure}",
        f"best: {best.name}, {best.quality:g} in {scale}"
        if best
        else f"best: no score is published or measured of the {fit} that fit; {measure}",
    )
