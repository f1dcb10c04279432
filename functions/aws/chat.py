"""Chat over HTTP, streamed: what our Lambda runtime and ``run.sh`` serve."""

from __future__ import annotations

from firsttoken.app import create_app

app = create_app(deployed=True)
