"""How long a target may take: until its answer begins, between its parts, and for a whole one.

The deadline of the call is nobody's limit but the client's: see `firsttoken.api.lifetime`.
"""

from __future__ import annotations

import asyncio

from firsttoken.errors import UpstreamTimeoutError
from firsttoken.model import Call, Model
from firsttoken.policies.opened import Opened, Policy, open_model
from firsttoken.settings import Timeouts as Limits


class Timeouts(Policy):
    """A model that fails with an UpstreamTimeoutError when it is too slow.

    ``gap`` is silence; behind HTTP, where the client sees every byte, give it the longer ``limits.idle``.
    """

    def __init__(self, model: Model, limits: Limits, gap: float) -> None:
        self._model = model
        self._limits = limits
        self._gap = gap

    async def open(self, call: Call) -> Opened:
        """Open the answer within its limit."""
        streamed = call.request.stream
        limit = self._limits.first_chunk if streamed else self._limits.whole
        try:
            async with asyncio.timeout(limit):
                opened = await open_model(self._model, call)
        except TimeoutError:
            what = "first chunk" if streamed else "whole answer"
            raise UpstreamTimeoutError(f"The target gave no answer in {limit:g} s ({what}).") from None
        opened.gap = self._gap
        return opened
