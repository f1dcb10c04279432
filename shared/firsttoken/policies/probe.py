"""Synthetic probes: one token, asked for by ourselves, finds out whether a target is well again.

No client's call is used as the test. Of all instances one probes a target, by lease; the others hear of it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from msgspec import Struct

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.errors import FirstTokenError, StoreError, UpstreamTimeoutError
from firsttoken.model import Call, Model, Source
from firsttoken.policies.circuit import Circuit
from firsttoken.policies.opened import open_model
from firsttoken.policies.stats import is_failure
from firsttoken.telemetry.record import Attempt, Record

_PING = (Message("user", (Text("ping"),)),)
_STORE_SECONDS = 1.0
"""What telling the others may add to the time of a probe that is leased."""


class ProbeResult(Struct, frozen=True):
    """What a probe found: ``healthy``: it was answered; ``seconds`` that took; ``error``, else, and its code.

    ``failed`` is what a circuit counts: a target that refuses a probe (4xx, 429) is there.
    """

    target: str
    healthy: bool
    failed: bool = False
    seconds: float = 0.0
    error: str = ""
    code: str = ""


async def probe(circuit: Circuit, model: Model, name: str) -> ProbeResult:
    """Ask ``model`` for one token as the model ``name`` and tell its circuit, which tells the others.

    In no more than the circuit's ``probe_timeout`` plus the store's time. A target that cools down is not
    asked. Nothing is raised.
    """
    refusal = circuit.refusal()
    if refusal is not None and circuit.cooling:
        return _result(circuit, refusal, 0.0)
    term = circuit.term
    now = asyncio.get_running_loop().time
    started = now()
    error: FirstTokenError | None = None
    limit = circuit.settings.probe_timeout
    try:
        async with asyncio.timeout(limit):
            await _ask(model, _ping(circuit.name, name, started + limit))
    except TimeoutError:
        error = UpstreamTimeoutError(f"The probe had no answer in {limit:g} s.")
    except FirstTokenError as broken:
        error = broken
    seconds = now() - started
    await circuit.probed(error, term)
    return _result(circuit, error, seconds)


async def elected_probe(circuit: Circuit, model: Model, name: str) -> None:
    """Probe the target if no other instance does or just did. To be run beside the calls.

    Where the store is down each instance probes for itself.
    """
    if circuit.probing:
        return
    circuit.probing = True
    board = circuit.board
    elected = True
    try:
        with suppress(StoreError):
            elected = await board.elect(circuit.name, circuit.settings.probe_timeout + _STORE_SECONDS)
            if elected and circuit.settled(await board.get(circuit.name)):
                return
        if elected:
            await probe(circuit, model, name)
    finally:
        circuit.probing = False
        if elected and not board.alone:
            with suppress(StoreError):
                await board.resign(circuit.name)


async def _ask(model: Model, call: Call) -> None:
    opened = await open_model(model, call)
    async with aclosing(opened.chunks()) as chunks:
        async for _ in chunks:
            pass


def _ping(target: str, name: str, deadline: float) -> Call:
    attempt = Attempt(target=target, kind="probe")
    record = Record(id="probe", model=name, target=target)
    # No format has this source, so every target writes the request anew.
    source = Source("", b"")
    request = ChatRequest(model=name, messages=_PING, max_tokens=1)
    return Call(
        request, source, "probe", deadline, tenant="probe", record=record, attempt=attempt, kind="probe"
    )


def _result(circuit: Circuit, error: FirstTokenError | None, seconds: float) -> ProbeResult:
    if error is None:
        return ProbeResult(circuit.name, healthy=True, seconds=seconds)
    code = error.code or error.type
    failed = is_failure(error)
    return ProbeResult(
        circuit.name, healthy=False, failed=failed, seconds=seconds, error=str(error), code=code
    )
