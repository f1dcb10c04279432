"""Where functions and models are best placed, from dated catalogues of models and of regions.

A cold start imports nothing of it; the catalogues are read when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firsttoken.placement.choice import Choice, Figures, Measured, Wanted, choose
    from firsttoken.placement.models import Model, Rates, catalogue, find, rates_of
    from firsttoken.placement.plan import Placed, PlacementError, Plan, Wish, place
    from firsttoken.placement.regions import Offer, Region, atlas

__all__ = [
    "Choice",
    "Figures",
    "Measured",
    "Model",
    "Offer",
    "Placed",
    "PlacementError",
    "Plan",
    "Rates",
    "Region",
    "Wanted",
    "Wish",
    "atlas",
    "catalogue",
    "choose",
    "find",
    "place",
    "rates_of",
]

_HOME = {
    "choice": ("Choice", "Figures", "Measured", "Wanted", "choose"),
    "models": ("Model", "Rates", "catalogue", "find", "rates_of"),
    "plan": ("Placed", "PlacementError", "Plan", "Wish", "place"),
    "regions": ("Offer", "Region", "atlas"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
