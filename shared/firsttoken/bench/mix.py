"""What requests ask: lengths of prompts, streamed or not, asked before or new, and whose key they carry."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from firsttoken.bench import load
from firsttoken.bench.arrivals_trace import Entry
from firsttoken.settings.base import Positive, Section, Share

MAX_TOKENS = 200_000
_WORDS = (
    *("what", "how", "why", "region", "token", "stream", "cache", "model", "queue", "retry", "probe", "cost"),
    *("budget", "window", "answer", "prompt", "vector", "index", "tool", "agent", "first", "second", "place"),
    *("time", "data", "load", "test", "user", "call", "text", "word", "line", "page", "order", "list", "key"),
)
_LOOP = 4096


class Prompt(Section, frozen=True):
    """One kind of prompt. A token is taken to be a short English word: servers count a little otherwise."""

    tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] = 200
    spread: Share = 0.5
    """Lengths are even from ``tokens * (1 - spread)`` to ``tokens * (1 + spread)``."""
    max_tokens: Annotated[int, Meta(ge=0)] = 0
    """Of the answer; 0 does not say."""
    share: Positive = 1.0


class Tenant(Section, frozen=True):
    """Somebody who asks, with a key of their own."""

    share: Positive = 1.0
    key_env: str = ""
    """The variable that holds the key; not needed where the run starts its own gateway."""


class Mix(Section, frozen=True):
    """Of what kinds the requests are. Shares of prompts and tenants are weights."""

    streamed: Share = 0.8
    repeated: Share = 0.0
    """Share of the requests that ask one of ``pool`` prompts, which a cache may answer. Each is new once."""
    pool: Annotated[int, Meta(ge=1, le=10_000)] = 20
    prompts: list[Prompt] = field(default_factory=lambda: [Prompt()])
    tenants: dict[str, Tenant] = {}  # noqa: RUF012 - msgspec copies it for each value


class _Asked(Struct, frozen=True):
    text: str
    max_tokens: int


class Requests:
    """Makes the requests of a run, one after the other; the same ones for the same ``seed`` and ``salt``.

    ``salt`` stands at the beginning of every prompt: without a new one for each run, the prompts of an
    earlier run would be in caches. ``keys`` has the key of each tenant, under "" the one of requests without
    a tenant. Holds ``mix.pool`` prompts.
    """

    def __init__(  # noqa: PLR0913 - what requests are made of
        self,
        mix: Mix,
        model: str,
        *,
        seed: int,
        salt: str,
        fields: Mapping[str, Any] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._mix = mix
        self._model = model
        self._fields = dict(fields or {})
        self._rng = random.Random(f"mix {seed}")  # noqa: S311 - load, not secrets
        self._salt = salt
        self._count = 0
        self._loop = self._rng.choices(_WORDS, k=_LOOP)
        self._prompt_weights = [prompt.share for prompt in mix.prompts]
        self._tenants = list(mix.tenants)
        self._tenant_weights = [tenant.share for tenant in mix.tenants.values()]
        self._headers = {
            name: (("authorization", f"Bearer {key}"),) for name, key in (keys or {}).items() if key
        }
        pool = mix.pool if mix.repeated else 0
        self._pool = [self._asked(f"{salt} again {number}") for number in range(pool)]

    def arrival(self, entry: Entry) -> load.Arrival:
        """Return the next request; what the entry says of its lengths wins over the mix."""
        rng, mix = self._rng, self._mix
        self._count += 1
        stream = rng.random() < mix.streamed
        repeated = rng.random() < mix.repeated
        tenant = rng.choices(self._tenants, self._tenant_weights)[0] if self._tenants else ""
        label = f"{self._salt} {self._count}"
        if repeated:
            asked = rng.choice(self._pool)
        elif entry.prompt_tokens:
            asked = _Asked(self._text(label, min(entry.prompt_tokens, MAX_TOKENS)), entry.answer_tokens)
        else:
            asked = self._asked(label)
        limit = {"max_tokens": asked.max_tokens} if asked.max_tokens else {}
        return load.Arrival(
            at=entry.at,
            prompt=asked.text,
            body=load.body(self._model, asked.text, stream=stream, **(limit | self._fields)),
            stream=stream,
            headers=self._headers.get(tenant, ()),
            tenant=tenant,
            repeated=repeated,
        )

    def _asked(self, label: str) -> _Asked:
        kind = self._rng.choices(self._mix.prompts, self._prompt_weights)[0]
        length = kind.tokens * self._rng.uniform(1 - kind.spread, 1 + kind.spread)
        return _Asked(self._text(label, max(round(length), 1)), kind.max_tokens)

    def _text(self, label: str, tokens: int) -> str:
        begin = self._rng.randrange(_LOOP)
        words = self._loop[begin : begin + tokens]
        while len(words) < tokens:
            words += self._loop[: tokens - len(words)]
        return f"{label}: {' '.join(words)}"
