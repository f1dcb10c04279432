"""The targets of a route, one after the other, until one of them begins to answer.

There is no wait between them: a dead target costs what it takes to see that it is dead. A target that was
tried in this round (`Call.tried`) is left out, so a hedge or a resumed answer gets the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from firsttoken.errors import FirstTokenError, UnavailableError, UnsupportedFieldError
from firsttoken.model import Call
from firsttoken.policies.balance import Balance
from firsttoken.policies.opened import Opened, Policy
from firsttoken.policies.target import Target

CONTEXT_OVERFLOW = "context_length_exceeded"
CONTENT_FILTER = "content_filter"

Failures = list[tuple[str, FirstTokenError]]
"""Who failed, and how, in order."""


class Failover(Policy):
    """A model that is several targets, in the order of ``balance``.

    ``context_overflow`` are asked instead when a target says that the prompt is too long, ``content_filter``
    when a filter refuses the prompt or blocks all of the answer; an answer that none of them betters is
    passed on as it is.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        balance: Balance,
        *,
        context_overflow: Sequence[Target] = (),
        content_filter: Sequence[Target] = (),
    ) -> None:
        self._targets = targets
        self._balance = balance
        self._instead = {CONTEXT_OVERFLOW: context_overflow, CONTENT_FILTER: content_filter}

    async def open(self, call: Call) -> Opened:
        """Open the answer of the first target that gives one. Raises what `most_telling` says."""
        failures: Failures = []
        opened = await self._open_one(self._balance.order(call, self._targets), call, failures)
        if opened is None:
            code = failures[-1][1].code if failures else None
            instead = self._instead.get(code or "", ())
            opened = await self._open_one(instead, call, failures, persist=True)
        elif self._instead[CONTENT_FILTER] and _blocked(opened):
            return await self._unblocked(call, opened)
        if opened is None:
            raise most_telling(failures)
        return opened

    @staticmethod
    async def _open_one(
        targets: Sequence[Target], call: Call, failures: Failures, *, persist: bool = False
    ) -> Opened | None:
        """Open the answer of one of ``targets``; None when all failed.

        An error that another target would repeat ends it as well, unless it should ``persist``.
        """
        tried = call.tried
        for target in targets:
            if target.name in tried:
                continue
            tried.add(target.name)
            try:
                return await target.open(replace(call, kind="failover") if failures else call)
            except FirstTokenError as error:
                failures.append((target.name, error))
                if not (error.failover or persist):
                    return None
        return None

    async def _unblocked(self, call: Call, blocked: Opened) -> Opened:
        """Return another target's answer, or the blocked one where there is none that is better."""
        other: Opened | None = None
        instead = replace(call, kind="failover")
        try:
            other = await self._open_one(self._instead[CONTENT_FILTER], instead, [], persist=True)
            if other is not None:
                await blocked.aclose()
        except BaseException:
            for opened in (blocked, other):
                if opened is not None:
                    await opened.aclose()
            raise
        return other or blocked


def most_telling(failures: Failures) -> FirstTokenError:
    """Return the error that tells the cause; it gets the others as notes.

    That is the first error of a target that was called: what its fallbacks say does not hide it. When none
    was called it is an UnavailableError, with the shortest wait; where all lack a field, that is said.
    """
    called = [
        error for _, error in failures if not isinstance(error, UnavailableError | UnsupportedFieldError)
    ]
    gates = [error for _, error in failures if isinstance(error, UnavailableError)]
    telling: FirstTokenError
    if called:
        telling = called[0]
    elif failures and not gates:
        telling = failures[0][1]
    else:
        waits = [error.retry_after for error in gates if error.retry_after is not None]
        message = "No target of this model can answer now."
        telling = UnavailableError(message, retry_after=min(waits, default=None))
        if gates and all(error.status == 429 for error in gates):
            telling.status, telling.code = 429, gates[0].code
    for name, error in failures:
        if error is not telling:
            telling.add_note(f"{name}: {error}")
    return telling


def _blocked(opened: Opened) -> bool:
    # Only the last chunk of a head has content.
    first = opened.head[-1]
    said = first.text or first.reasoning or first.tool_calls or first.refusal
    return first.finish == CONTENT_FILTER and not said
