"""What functions do that no client waits for: answer queued calls, call webhooks, and probe targets.

A function that answers chats as well imports this at its cold start, so jobs are imported with the first one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from firsttoken.worker.probe import probe_targets

if TYPE_CHECKING:
    from firsttoken.gateway import Gateway

__all__ = ["answer_message", "on_schedule", "probe_targets"]


async def answer_message(
    gateway: Gateway,
    body: str | bytes,
    *,
    delivered: int = 1,
    extend: Callable[[float], Awaitable[object]] | None = None,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Handle one delivery and return what came of it, as a flat row.

    Its ``status``: done, failed, cancelled, expired, later (it was sent again), duplicate (the job had ended
    before, or was deleted), dead (buried), or what `firsttoken.worker.notify` says. ``delivered`` is how
    often the message came, as far as the queue tells; ``extend`` keeps it hidden from other workers for so
    many seconds from now on; ``deadline`` is when the platform stops us, on the event loop's clock.
    Cancelled, it hands the job back. Raises StoreError and QueueError: have it delivered again.
    """
    from firsttoken.worker import answer

    return await answer.answer_message(gateway, body, delivered=delivered, extend=extend, deadline=deadline)


async def on_schedule(gateway: Gateway) -> dict[str, Any]:
    """Probe the targets and move the batches on; return what came of both."""
    from firsttoken.worker import batches

    return await batches.scheduled(gateway)
