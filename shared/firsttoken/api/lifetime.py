"""How long the work for a request may go on: until its deadline, or until its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

from firsttoken.api.exchange import Exchange, header_seconds
from firsttoken.errors import DeadlineError
from firsttoken.gateway import Gateway

TIMEOUT_HEADER = "x-firsttoken-timeout"


def deadline_of(exchange: Exchange, gateway: Gateway) -> float:
    """Return the nearest of the client's, the configured and the platform's deadline, on the loop's clock."""
    limits = [gateway.settings.timeouts.total]
    if (wanted := header_seconds(exchange.headers, TIMEOUT_HEADER)) is not None:
        limits.append(wanted)
    now = asyncio.get_running_loop().time()
    deadline = now + min(limits)
    platform: float | None = exchange.scope.get("extensions", {}).get("firsttoken", {}).get("deadline")
    if platform is None:
        return deadline
    reserve = min(gateway.settings.timeouts.reserve, max(platform - now, 0) / 4)
    return min(deadline, platform - reserve)


async def until_the_client_leaves(exchange: Exchange, deadline: float, work: Awaitable[None]) -> None:
    """Do ``work``; cancel it at once when the client leaves. Raises DeadlineError when time is up."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    watcher = exchange.watch(leave)
    try:
        async with asyncio.timeout_at(deadline):
            await work
    except TimeoutError as error:
        raise DeadlineError("The time for this call is used up.") from error
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
        exchange.record.disconnected = True
    finally:
        watcher.cancel()
