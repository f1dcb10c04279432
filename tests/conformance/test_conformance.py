"""One list of behaviours, run against our server and every cloud's real runtime."""

from __future__ import annotations

import asyncio

import deferring  # noqa: F401 - registers its behaviours
import pytest
from behaviours import BEHAVIOURS, CANNOT, TESTED_AS_POSSIBLE
from endpoints import ROOT, RUNTIMES, Endpoint
from table import page

PAGE = ROOT / "docs" / "conformance.md"


@pytest.mark.parametrize("name", list(BEHAVIOURS))
def test_behaviour(endpoint: Endpoint, name: str, outcomes: dict[tuple[str, str], str]) -> None:
    """Each runtime shows each behaviour, or the reason why it cannot is written down and still true."""
    cell = (endpoint.runtime, name)
    possible = cell not in CANNOT or cell in TESTED_AS_POSSIBLE
    outcomes[cell] = "FAILED"
    asyncio.run(BEHAVIOURS[name](endpoint, possible))
    outcomes[cell] = "cannot" if cell in CANNOT else "holds"


def test_exceptions_name_real_cells() -> None:
    """A reason belongs to a runtime and a behaviour that exist."""
    assert all(runtime in RUNTIMES and name in BEHAVIOURS for runtime, name in CANNOT)


def test_the_page_is_current() -> None:
    """The committed table is the one that these tests hold; tests/conformance/table.py writes it."""
    assert PAGE.read_text("utf-8") == page()
