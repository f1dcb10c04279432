"""Keys that fit into every store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsttoken.stores.keys import fit_key
from firsttoken.stores.store import MAX_KEY_BYTES


@given(st.text(min_size=1, alphabet=st.characters(codec=None)), st.integers(1, 600))
def test_every_text_becomes_a_key(text: str, times: int) -> None:
    """Whatever the text is, lone surrogates included, its key is UTF-8 of at most 512 bytes."""
    assert 0 < len(fit_key(text * times, "p:").encode()) <= MAX_KEY_BYTES


@given(st.text(min_size=1, max_size=100))
def test_a_short_key_stays(text: str) -> None:
    """What fits is used as it is."""
    assert fit_key(text, "p:") == f"p:{text}"


@pytest.mark.parametrize("unit", ["x", "\N{GRINNING FACE}", "\ud800", "\N{EURO SIGN}"])
def test_long_keys_differ(unit: str) -> None:
    """Keys that differ anywhere differ after they were shortened; one that looks shortened is not taken."""
    long = unit * 1000
    keys = [long, long + "a", long + "b", unit + "b" + long]
    fitted = [fit_key(key) for key in keys]
    again = [fit_key(key) for key in fitted]
    assert len({*fitted, *again}) == 2 * len(keys)
    assert fit_key(long) == fit_key(long)


def test_a_key_is_not_empty() -> None:
    """An empty key is a mistake, prefix or not."""
    with pytest.raises(ValueError, match="empty"):
        fit_key("", "p:")
