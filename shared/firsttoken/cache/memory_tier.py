"""Answers in this process, decoded: what was asked a moment ago costs no round trip."""

from __future__ import annotations

from collections import OrderedDict

from firsttoken.cache.entry import Entry


class MemoryTier:
    """The answers that were used last. Memory: ``limit`` bytes as `Entry.size` counts them; 0 keeps none.

    Every operation takes constant time. Keys hold the tenant, so all tenants share the room, not answers.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """Return an entry, whatever its age."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, entry: Entry) -> None:
        """Keep an entry in place of the one with its key; what was used least recently makes room."""
        self.drop(entry.key)
        size = entry.size()
        if size > self._limit:
            return
        self._entries[entry.key] = entry, size
        self.bytes += size
        while self.bytes > self._limit:
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        """Forget an entry."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= found[1]
