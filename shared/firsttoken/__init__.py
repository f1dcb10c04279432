"""LLM HTTP endpoints on serverless functions: the first token fast, nothing paid when idle, nothing lost.

Read `firsttoken.model` and `firsttoken.gateway` first: they are the architecture.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Call": "firsttoken.model",
    "Chunk": "firsttoken.model",
    "Model": "firsttoken.model",
    "Usage": "firsttoken.model",
    "ChatRequest": "firsttoken.chat",
    "Message": "firsttoken.chat",
    "FirstTokenError": "firsttoken.errors",
    "Gateway": "firsttoken.gateway",
    "Settings": "firsttoken.settings",
    "create_app": "firsttoken.app",
    "create_gateway": "firsttoken.gateway",
}

__all__ = [
    "Call",
    "ChatRequest",
    "Chunk",
    "FirstTokenError",
    "Gateway",
    "Message",
    "Model",
    "Settings",
    "Usage",
    "create_app",
    "create_gateway",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that a cold start pays only for what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
