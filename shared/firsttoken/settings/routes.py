"""Public model names, the targets behind them, and what is known of a target."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import NotNegative, Positive, Section

TargetName = Annotated[str, Meta(pattern="^[^/]+/.+$")]
"""``provider/model``; the model ``*`` passes the client's name on."""


class Target(Section, frozen=True):
    """What is known of one target; its section is named like it, for example ``[targets."eu/gpt-4o"]``."""

    rpm: Annotated[int, Meta(ge=0)] = 0
    """Requests a minute, 0 for what the target's own headers say."""
    tpm: Annotated[int, Meta(ge=0)] = 0
    """Tokens a minute, likewise. Where the provider counts them apart (Anthropic), those of the prompt."""
    output_tpm: Annotated[int, Meta(ge=0)] = 0
    """Tokens of answers a minute, where the provider counts them apart; likewise."""
    max_output: Annotated[int, Meta(ge=0)] = 0
    """What the provider sets aside for an answer whose request names no limit (Bedrock: the model's own)."""
    burndown: NotNegative = 0.0
    """Tokens of quota that one token of an answer uses up; 0 for what is known of the model (Bedrock)."""
    price: NotNegative = 0.0
    """Of a million tokens, any currency; for ``balance = "cost"``."""
    continues: Literal["auto", "prefill", "ask", "no"] = "auto"
    """How it goes on with an answer that broke off: from an assistant's turn, when asked to, or not."""


class Weighted(Section, frozen=True):
    """A target of a route with its share of the calls."""

    target: TargetName
    weight: Positive = 1.0


class Rung(Section, frozen=True):
    """A step of the ladder below a route's targets: another target, an old answer, or a fixed text."""

    target: Annotated[str, Meta(pattern="^([^/]+/.+)?$")] = ""
    text: str = ""
    stale: bool = False
    """An answer of the cache that is too old otherwise."""
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{0,40}$")] = ""

    def label(self) -> str:
        """Return what answers from this step are marked with."""
        return self.name or self.target or ("stale" if self.stale else "text")


class Embedding(Section, frozen=True):
    """A public name of an embedding model and the target behind it."""

    target: TargetName
    window: NotNegative = 0.003
    """Seconds that a call may wait for others while some are on their way, to be sent with them; 0: never."""
    batch: Annotated[int, Meta(ge=1, le=2048)] = 64
    """Texts that are sent in one call at most, where they come from several."""
    concurrent: Annotated[int, Meta(ge=1)] = 4
    """Such calls on their way at once."""


class Route(Section, frozen=True):
    """A public model name and what is behind it: one ``target``, or several ``targets``.

    A fixed text as a rung is labelled as such; so is everything below the first rung.
    """

    target: Annotated[str, Meta(pattern="^([^/]+/.+)?$")] = ""
    targets: list[TargetName | Weighted] = []
    balance: Literal["order", "weight", "least_busy", "latency", "cost", "quota"] = "order"
    sticky: bool = True
    """Whether a conversation stays with its target, for its prompt cache (not with ``cost``)."""
    context_overflow: list[TargetName] = []
    content_filter: list[TargetName] = []
    degrade: list[Rung] = []
    hedge: bool = True
    resume: bool = True
    coalesce: bool = True
    cache: bool = True
    semantic: bool = True
    defer: Literal["", "off", "asked", "outage"] = ""
    """Which calls may become jobs, where this differs from ``jobs.defer``."""
    version: str = ""
    """Of the prompt, the corpus or whatever stands behind this name: a new one has a cache of its own."""
    tags: list[str] = []
    """Under which the answers of this route can be purged, besides its name."""

    def all_targets(self) -> tuple[Weighted, ...]:
        """Return the targets in the order of preference."""
        listed = [Weighted(target=item) if isinstance(item, str) else item for item in self.targets]
        return tuple(listed) if listed else (Weighted(target=self.target),)
