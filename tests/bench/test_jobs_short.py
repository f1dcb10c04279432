"""The outage benchmark in small: a target that goes away, workers that are killed, and nothing lost."""

from __future__ import annotations

import pytest

from benchmarks import jobs_outage
from benchmarks.jobs_backends import BACKENDS


@pytest.mark.parametrize("name", BACKENDS)
def test_nothing_is_lost_when_targets_go_away_and_workers_are_killed(name: str) -> None:
    """Every call is answered at once or becomes a job that ends once, with the answer to its own question."""
    result = jobs_outage.run(jobs_outage.SHORT, [name])
    row = result["rows"][0]
    assert result["passed"], row
    assert row["jobs"] > 0
    assert row["states"] == {"done": row["jobs"]}
    assert row["answered at once"] + row["jobs"] == jobs_outage.SHORT.requests
    assert row["kills"] == jobs_outage.SHORT.kills
