"""One promise of the resilience benchmark: what was measured, and the bars that it has to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """``bars`` hold the largest value allowed, or the smallest one for the names in ``least``."""

    measured: dict[str, float | None]
    bars: dict[str, float]
    least: frozenset[str] = frozenset()
    also: dict[str, Any] = field(default_factory=dict)
    """Figures without a bar."""
    timeline: list[Any] = field(default_factory=list)
    """Seconds of a run, for the plot."""

    def failed(self) -> list[str]:
        """Return the names of the bars that are not reached; what was not measured is not reached."""
        return [name for name, bar in self.bars.items() if not self._reaches(name, bar)]

    def plain(self) -> dict[str, Any]:
        """Return what is committed."""
        bars = {
            name: {"measured": self.measured[name], "at least" if name in self.least else "at most": bar}
            for name, bar in self.bars.items()
        }
        return {"passed": not self.failed(), "bars": bars, "also": self.also}

    def _reaches(self, name: str, bar: float) -> bool:
        value = self.measured[name]
        if value is None:
            return False
        return value >= bar if name in self.least else value <= bar
