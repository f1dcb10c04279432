"""Profiles: how a fault is asked for, and how a wrong wish is refused."""

from __future__ import annotations

import pytest

from firsttoken.errors import RequestError
from firsttoken.simulator.profile import HEADER, Profile


def test_a_header_changes_what_it_names() -> None:
    """Values are converted to their types; the rest stays."""
    profile = Profile(seed=7).changed("fault=cut, after=5,itl_ms=2.5")
    assert (profile.fault, profile.after, profile.itl_ms, profile.seed) == ("cut", 5, 2.5, 7)
    assert Profile().changed("") == Profile()


@pytest.mark.parametrize(
    "spec", ["fault", "fault=explode", "after=x", "after=-1", "color=red", "jitter=2", "status=200"]
)
def test_a_wrong_wish_is_refused(spec: str) -> None:
    """The answer names the header and what is possible."""
    with pytest.raises(RequestError) as caught:
        Profile().changed(spec)
    assert caught.value.param == HEADER
    assert HEADER in str(caught.value)
