"""Answers that were found wrong for a question like theirs: from then on they answer their own only."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

import msgspec

from firsttoken.stores.store import Store

MAX_HERE = 4096


class Quarantine:
    """Keys of answers, by tenant and scope: what one tenant says of an answer harms no other.

    Kept in the store for ``ttl`` seconds, the life of an answer, and `MAX_HERE` of them in this process.
    """

    def __init__(self, store: Store, *, ttl: float) -> None:
        self._store = store
        self._ttl = ttl
        self._here: OrderedDict[str, None] = OrderedDict()

    async def put(self, tenant: str, scope: str, key: str) -> None:
        """Put an answer here. Raises StoreError where only this process knows of it now."""
        name = _name(tenant, scope, key)
        self._remember(name)
        await self._store.put(name, b"1", self._ttl)

    def holds_here(self, tenant: str, scope: str, key: str) -> bool:
        """Return whether this process knows that an answer is here."""
        return _name(tenant, scope, key) in self._here

    async def holds(self, tenant: str, scope: str, key: str) -> bool:
        """Return whether an answer is here. Raises StoreError."""
        name = _name(tenant, scope, key)
        if name in self._here:
            return True
        if await self._store.get(name) is None:
            return False
        self._remember(name)
        return True

    def _remember(self, name: str) -> None:
        self._here[name] = None
        if len(self._here) > MAX_HERE:
            self._here.popitem(last=False)


def _name(tenant: str, scope: str, key: str) -> str:
    return f"quarantine:{sha256(msgspec.msgpack.encode((tenant, scope, key))).hexdigest()[:40]}"
