"""Write the part of ``firsttoken.toml`` that one function of a plan needs."""

from __future__ import annotations

import json

from firsttoken.errors import ConfigError
from firsttoken.placement.endpoints import Served
from firsttoken.placement.plan import Placed, Plan

_PROVIDERS = {
    "bedrock": ('kind = "bedrock"', 'region = "{endpoint}"'),
    "azure": (
        'kind = "azure"',
        'base_url = "https://RESOURCE-{endpoint}.openai.azure.com/openai/v1"  # your resource in that region',
    ),
    "vertex": ('kind = "vertex"', 'project = "PROJECT"  # your project', 'location = "{endpoint}"'),
}


def toml_of(plan: Plan, region: str = "", route: str = "") -> str:
    """Return providers and targets, in order, for the function in a region (the first one of the plan).

    ``route`` is the public name of the model; the tier where it is not given. Raises ConfigError for a region
    that the plan does not have.
    """
    placed = _function(plan, region)
    lines = [f"# {plan.cloud}, function in {placed.region}; catalogue of {plan.checked}"]
    for target in {_provider(one): one for one in placed.targets}.values():
        text = "\n".join(_PROVIDERS[target.provider]).format(endpoint=target.endpoint)
        lines += ["", f"[providers.{_provider(target)}]", text]
    targets = [f"    {json.dumps(f'{_provider(one)}/{one.model}')}," for one in placed.targets]
    lines += ["", f"[models.{json.dumps(route or plan.tier)}]", "targets = [", *targets, "]"]
    return "\n".join(lines) + "\n"


def _function(plan: Plan, region: str) -> Placed:
    found = [one for one in plan.placed if region in ("", one.region)]
    if not found:
        raise ConfigError(
            f"region {region!r} is not in the plan; expected {' or '.join(one.region for one in plan.placed)}"
        )
    return found[0]


def _provider(target: Served) -> str:
    return f"{target.provider}-{target.endpoint}"
