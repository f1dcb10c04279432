"""What happened to one call, as data: policies write here, exporters turn it into metrics and log lines."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Record(Struct):
    """Times are seconds on the event loop's clock; None means that the moment never came."""

    id: str = ""
    tenant: str = ""
    model: str = ""
    target: str = ""
    stream: bool = False
    status: int = 0
    error: str | None = None
    started: float = 0.0
    first_chunk: float | None = None
    finished: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    disconnected: bool = False
    notes: dict[str, str] = field(default_factory=dict)
    """What a provider said of its answer: region, deployment, lane."""

    def summary(self) -> dict[str, Any]:
        """Return one flat, JSON-ready row without any text of the prompt or the answer.

        Durations are milliseconds.
        """
        return {
            **self.notes,  # first, so that none of them replaces a word of ours
            "request_id": self.id,
            "tenant": self.tenant,
            "model": self.model,
            "target": self.target,
            "stream": self.stream,
            "status": self.status,
            "error": self.error,
            "ttft_ms": _milliseconds(self.started, self.first_chunk),
            "ttlt_ms": _milliseconds(self.started, self.finished),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "disconnected": self.disconnected,
        }


def _milliseconds(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 2)
