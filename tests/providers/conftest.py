"""Fixtures of the HTTP client's tests: both event loops, and a certificate authority."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import uvloop

from tests.providers.clients import Run
from tests.providers.hostile import (
    Authority,
    run_on,
)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test on each of the two loops that serve."""
    return partial(run_on, request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority."""
    return Authority(tmp_path_factory.mktemp("tls"))
