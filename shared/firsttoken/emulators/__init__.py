"""Each cloud's real runtime on this machine: no docker, no account.

Every cloud's module offers ``serve(host, port)``, which blocks, and ``invoke(event)``, which streams the
answer's bytes.
"""

from __future__ import annotations

from pathlib import Path

from firsttoken import config
from firsttoken.settings import MemoryStore


def project() -> Path:
    """Return the folder that holds ``functions/``: this one, or the checkout of this package."""
    here = Path.cwd()
    return here if (here / "functions").is_dir() else Path(__file__).resolve().parents[3]


def files() -> dict[str, str]:
    """Return what makes a store and a queue of files, where no queue is configured."""
    settings = config.load()
    if settings.queue is not None:
        return {}
    store = {"FIRSTTOKEN_STORE__KIND": "sqlite"} if isinstance(settings.store, MemoryStore) else {}
    return {**store, "FIRSTTOKEN_QUEUE__KIND": "sqlite"}
