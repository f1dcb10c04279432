"""What an object storage must be able to do: keep whole values that are too large for a store's entry."""

from __future__ import annotations

from typing import Protocol


class Objects(Protocol):
    """Every method may raise a StoreError, and nothing else, when the storage cannot be had.

    Names are as a store's keys are (`firsttoken.stores.keys`); they hold the tenant.
    """

    async def put(self, name: str, data: bytes, ttl: float) -> None:
        """Write an object, whatever was there. After ``ttl`` seconds nobody asks for it any more.

        A service deletes it by a lifecycle rule of its own; the templates set one.
        """

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object of at most ``limit`` bytes, or None; a larger one is a StoreError."""

    async def delete(self, name: str) -> None:
        """Delete an object, if there is one."""

    async def aclose(self) -> None:
        """Close connections."""
