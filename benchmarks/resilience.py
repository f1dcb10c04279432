"""What clients notice when targets, streams and stores break: a row for each promise, with its bars.

Full rows take about half an hour together, since breakers and recoveries take their time; every row has a
short variant of a few seconds, which the tests run. Every upstream is simulated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks import resilience_chaos as chaos
from benchmarks import resilience_figure as figure
from benchmarks import resilience_gateway as gateway
from benchmarks import resilience_leaving as leaving
from benchmarks import resilience_outage as outage
from benchmarks.resilience_row import Row

ROWS: dict[str, Callable[..., Row]] = {
    "one of two regions refuses": chaos.region_refused,
    "one of two regions answers 503": chaos.region_503,
    "one of two regions hangs": chaos.region_hang,
    "one of two regions is slow": chaos.region_slow,
    "all targets answer 429": outage.all_429,
    "total outage, 100 instances, one store": outage.shared_breakers,
    "3 % stragglers": chaos.stragglers,
    "streams cut": gateway.cut,
    "streams silent": chaos.silent,
    "streams silent, not resumed": chaos.silent_not_resumed,
    "default, 500": chaos.default_500,
    "default, 503": chaos.default_503,
    "default, refused": chaos.default_refused,
    "default, reset": chaos.default_reset,
    "default, silent": chaos.default_silent,
    "default, slow first token": chaos.default_slow,
    "client leaves": leaving.client_leaves,
    "store down: SQLite removed": chaos.sqlite_removed,
    "store down: SQLite locked": chaos.sqlite_locked,
    "store down: Redis killed": chaos.redis_killed,
    "store down: DynamoDB killed": chaos.dynamodb_killed,
    "store down: Tables killed": chaos.tables_killed,
    "1,000 identical requests": chaos.identical,
    "identical requests, the first client leaves": gateway.leader_leaves,
    "policies, all on": gateway.overhead,
}
PLOTTED = "one of two regions hangs"


def run(names: list[str] | None = None) -> dict[str, Any]:
    """Run all rows in full length."""
    rows: dict[str, Row] = {}
    for name in names or ROWS:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        rows[name] = ROWS[name]()
        print(f"  {rows[name]}", file=sys.stderr, flush=True)
    figure.write(rows.get(PLOTTED))
    return {"upstream": "simulated upstream", "rows": {name: row.plain() for name, row in rows.items()}}
