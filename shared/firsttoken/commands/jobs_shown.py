"""Jobs and dead letters as lines for people; what clients sent is shown without control characters."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from firsttoken.gateway import Gateway
    from firsttoken.jobs.job import Job
    from firsttoken.queues import Dead, Depth

_PLAIN_EVERY = 20
_WIDTH = 30
_ROW = "{:<36}  {:<9}  {:<20}  {:>6}  {:>8}  {}"
HEAD = _ROW.format("ID", "STATE", "MODEL", "AGE", "ATTEMPTS", "TARGET")


def shown_of(job: Job) -> dict[str, Any]:
    """Return what is shown of a job: its document, and whose it is."""
    from firsttoken.api.jobs import document

    return {**document(job), "tenant": job.tenant}


def letter_of(dead: Dead) -> dict[str, Any]:
    """Return what is shown of a dead letter."""
    return {"body": dead.body.decode("utf-8", "replace"), "reason": dead.reason, "at": dead.at, "id": dead.id}


def letter_line(letter: dict[str, Any]) -> str:
    """Return two lines on a dead letter: when and why, and what it says."""
    when = _when(letter["at"]) if letter["at"] else "unknown time"
    return f"{when}  {_visible(letter['reason']) or 'no reason given'}\n    {_visible(letter['body'][:200])}"


def _visible(text: str) -> str:
    """Return text that came from elsewhere as a terminal may show it."""
    return "".join([character if character.isprintable() else "?" for character in text])


def row_of(job: Job, now: float) -> str:
    """Return a line of the table."""
    whose = "" if job.tenant == "local" else f"  ({job.tenant})"
    target = _visible(job.target) or "-"
    return _ROW.format(
        job.id, job.state, _visible(job.model)[:20], _age(now - job.created), job.attempts, target + whose
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def depth_line(gateway: Gateway, depth: Depth) -> str:
    """Return a line on what the queue holds, as far as it tells."""
    counts = msgspec.to_builtins(depth)
    said = [f"{count} {name}" for name, count in counts.items() if count is not None]
    kind = gateway.settings.queue.__struct_config__.tag if gateway.settings.queue else "none"
    return f"queue {kind}: {', '.join(said) or 'it does not tell how many'}"


def said(name: str, value: Any) -> str:
    """Return a value of a job's document for people."""
    if name.endswith("_at"):
        return _when(value)
    return _visible(
        f"{value['message']} ({value['code'] or value['type']})" if name == "error" else str(value)
    )


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


class Bar:
    """Shows how far it is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._told = 0
        self._terminal = sys.stderr.isatty()

    def step(self, count: int) -> None:
        """Count what was done."""
        self._done += count
        self._told += 1
        share = min(self._done / max(self._total, 1), 1.0)
        if self._terminal:
            sys.stderr.write(f"\r\033[K[{'#' * round(share * _WIDTH):.<{_WIDTH}}] {share:4.0%}")
        elif self._told % _PLAIN_EVERY == 0:
            sys.stderr.write(f"redrive: {share:.0%}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """End the line."""
        if self._terminal and self._told:
            sys.stderr.write("\n")
