"""Calls to a target that fails are refused before they are sent; see `firsttoken.policies.circuit`."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from firsttoken.errors import FirstTokenError, UpstreamTimeoutError
from firsttoken.model import Call, Model
from firsttoken.policies.circuit import Circuit
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.policies.probe import ProbeResult, elected_probe, probe
from firsttoken.policies.stats import Stats, slow_after

_COUNTED = -1
"""The term of a call that has been counted: no later outcome of it is."""


class Breaker(Policy):
    """A model that is left alone while its circuit is open. About 5 us a call, and constant memory.

    A streamed answer whose first token is late counts as one failure at that moment; once the circuit is
    open, such a call is abandoned, so that it can go elsewhere. So is one for a whole answer that has waited
    as long: it may take its time, but not at a target that is known to fail.
    """

    def __init__(self, model: Model, circuit: Circuit, stats: Stats) -> None:
        self.circuit = circuit
        self._model = model
        self._stats = stats

    async def open(self, call: Call) -> Opened:
        """Open the answer. Raises UnavailableError where the target is not to be called now."""
        circuit = self.circuit
        circuit.board.refresh()
        refusal = circuit.refusal()
        if refusal is not None:
            if circuit.due():
                circuit.board.shadow.run(elected_probe(circuit, self._model, call.request.model))
            raise refusal
        sent = _Sent(circuit, circuit.term)
        try:
            opened = await self._watched(call, sent)
        except FirstTokenError as error:
            circuit.note(error, sent.term)
            raise
        sent.began = circuit.succeeded(sent.term)
        opened.ends.append(sent.ended)
        return opened

    async def probe(self, name: str) -> ProbeResult:
        """Probe the target as the model ``name`` now, whatever its state, and take in what that says."""
        return await probe(self.circuit, self._model, name)

    async def _watched(self, call: Call, sent: _Sent) -> Opened:
        settings, streamed = self.circuit.settings, call.request.stream
        slow = slow_after(self._stats, settings) if streamed else settings.slow
        try:
            async with asyncio.timeout(None) as limit:
                patience = _Patience(sent, slow, limit, counts=streamed)
                try:
                    return await open_model(self._model, call)
                finally:
                    patience.stop()
        except TimeoutError:
            if not limit.expired():
                raise
            what = "first token" if streamed else "answer"
            message = f"The target sent no {what} in {slow:g} s, and others fail as well (slow)."
            raise UpstreamTimeoutError(message) from None


class _Sent:
    """A call on its way, as its circuit counts it."""

    __slots__ = ("began", "circuit", "term")

    def __init__(self, circuit: Circuit, term: int) -> None:
        self.circuit = circuit
        self.term = term
        self.began = -1

    def ended(self, ending: Ending) -> None:
        if ending.error is not None:
            self.circuit.note(ending.error, self.term, self.began)


class _Patience:
    """Watches for what is late: one timer a call. Only a late first token ``counts`` as a failure."""

    __slots__ = ("_counts", "_limit", "_loop", "_sent", "_slow", "_timer")

    def __init__(self, sent: _Sent, slow: float, limit: asyncio.Timeout, *, counts: bool) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._sent = sent
        self._slow = slow
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(slow, self._late)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sent.circuit.late:
            self._sent.circuit.late.discard(self.give_up)

    def give_up(self) -> None:
        """Abandon the call; from any thread, as a circuit may serve several loops."""
        with suppress(RuntimeError):  # that loop is closed, and the call with it
            self._loop.call_soon_threadsafe(self._abandon)

    def _late(self) -> None:
        circuit, term = self._sent.circuit, self._sent.term
        if self._counts:
            self._sent.term = _COUNTED
            circuit.failed(UpstreamTimeoutError(f"No first token in {self._slow:g} s (slow)."), term)
        if circuit.is_open:
            self._abandon()
        else:
            circuit.late.add(self.give_up)

    def _abandon(self) -> None:
        if self._timer is not None:
            self._limit.reschedule(self._loop.time())
