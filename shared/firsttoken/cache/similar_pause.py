"""What failed is left alone for a while: a slow index or embedder must not cost every call its time limit."""

from __future__ import annotations

import asyncio

FIRST_SECONDS = 1.0
MAX_SECONDS = 30.0


class Pause:
    """After a failure nobody asks for `FIRST_SECONDS`, after each further one twice as long."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0

    @property
    def on(self) -> bool:
        """Return whether to leave it alone now."""
        return self._seconds > 0 and asyncio.get_running_loop().time() < self._until

    def failed(self) -> None:
        """Note a failure; those of calls that were under way at the first one do not count again."""
        if not self.on:
            self._seconds = min(self._seconds * 2, MAX_SECONDS) or FIRST_SECONDS
            self._until = asyncio.get_running_loop().time() + self._seconds

    def worked(self) -> None:
        """Note a success."""
        self._seconds = 0.0
