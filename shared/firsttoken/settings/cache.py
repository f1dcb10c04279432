"""What is answered from memory: equal requests, similar ones, and prompts that providers keep."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import NotNegative, Positive, Section, Share


class Cache(Section, frozen=True):
    """Answers to equal requests (docs/caching.md). Times in seconds."""

    mode: Literal["off", "on"] = "off"
    ttl: Positive = 3600.0
    """Younger than this an answer is given as it is; older, it is given while one call renews it ..."""
    max_age: Positive = 86_400.0
    """... and from here on it is gone. Until then it also answers when every target fails."""
    sampled: bool = False
    """Whether answers are kept that would differ each time: neither temperature 0 nor a seed."""
    tools: bool = False
    """Whether answers to requests with tools are kept."""
    time_relative: bool = False
    """Whether questions that depend on now (today, latest, weather...) are kept."""
    negative_ttl: NotNegative = 60.0
    """How long the target's refusal of a request (400, content filter) is remembered; 0: not at all."""
    memory_bytes: Annotated[int, Meta(ge=0)] = 32 * 1024 * 1024
    """Of the answers kept in this process, before the store."""
    max_entry_bytes: Annotated[int, Meta(ge=1024)] = 1024 * 1024
    lease: Positive = 30.0
    """Seconds after which another instance may make an answer that one began to make."""
    pace: NotNegative = 0.0
    """Characters a second at which an answer is replayed; 0: all at once."""
    key_secret: str = ""
    """``env:NAME``: keys are made with this secret, so that a store does not tell who asked the same."""
    encryption_key: str = ""
    """``env:NAME`` of 32 bytes in base64: answers are encrypted in the store."""

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Cache(mode={self.mode!r}, ...)"


class Semantic(Section, frozen=True):
    """Answers to similar requests. Off by default; ``shadow`` only measures what would have been answered."""

    mode: Literal["off", "shadow", "on"] = "off"
    embedding: str = "lexical"
    """The name of an embedding model, as in ``[embeddings.NAME]``."""
    threshold: Share = 0.8
    candidates: Annotated[int, Meta(ge=1, le=50)] = 5
    entries: Annotated[int, Meta(ge=16, le=200_000)] = 20_000
    """Kept for one scope (tenant, model, prompt, ...) in one process."""
    index: Literal["memory", "pgvector", "search"] = "memory"
    index_url: str = ""
    """``env:NAME``: the connection of the index, where it is a service."""
    language: Literal["en", "other"] = "en"
    """The language that the guard knows; with ``other`` only nearly equal words are similar."""
    judge: str = ""
    """The name of a model that judges a sample of the hits."""
    sample: Share = 0.02
    precision: Share = 0.99
    """Wilson lower bound that a category of questions must have before it serves hits; needs a judge."""


class Prefix(Section, frozen=True):
    """The providers' own prompt caches."""

    markers: bool = True
    """Whether cache markers are set where a provider wants them and the client set none."""
    reorder: bool = False
    """Whether tools are sorted by name, where a request is translated anyway.

    Models may prefer what comes first.
    """
    ttl: Literal["5m", "1h"] = "5m"
    explicit: bool = False
    """Whether Gemini's explicit caches are made, renewed and deleted where they pay."""
