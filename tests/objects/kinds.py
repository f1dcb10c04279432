"""What a kind of object storage tells the conformance suite about itself.

A file ``kinds_<name>.py`` in this directory with ``KINDS = [Kind(...), ...]`` puts its kinds to the tests of
test_conformance.py; nothing else needs to know of it. Kinds start their server once for the process (skipping
where it is not installed) and give each test a bucket or a prefix of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from firsttoken.objects import Objects


@dataclass(frozen=True)
class Kind:
    """A kind of object storage: how to open one, in a directory for its files, and one that is away."""

    name: str
    open: Callable[[Path], AbstractAsyncContextManager[Objects]]
    unreachable: Callable[[Path], Objects] | None = None
