"""``python -m benchmarks [NAME ...]``: run benchmarks, print medians, write results/NAME.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NAMES = (
    *("cold_start", "passthrough", "fidelity", "transcoding"),
    *(
        "caching_exact",
        "caching_similar",
        "caching_prefix",
        "batching_embeddings",
        "jobs_recovery",
        "jobs_outage",
        "package_sizes",
    ),
    *("resilience", "regression", "load_generator", "telemetry"),
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; expected {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for number, name in enumerate(names or NAMES, 1):
        print(f"[{number}/{len(names or NAMES)}] {name} ...", file=sys.stderr, flush=True)
        result = import_module(f"benchmarks.{name}").run()
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        result = {"command": f"make bench ARGS={name}", "machine": machine, **result}
        text = json.dumps(result, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", "utf-8")
        print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
