"""Rules about alerts on Azure: what somebody must hear of, and that somebody hears of it."""

from collections.abc import Iterator
from typing import Any

from infra.azure_deployment import Deployment, seconds
from infra.bicep_build import Resource


def _told(view: Deployment, kind: str) -> list[tuple[Resource, dict[str, Any]]]:
    """The alerts of a kind that are on and tell somebody, with each of their criteria."""
    groups = {group.id for group in view.of("Microsoft.Insights/actionGroups")}
    found = []
    for alert in view.of(f"Microsoft.Insights/{kind}"):
        actions = alert.properties.get("actions") or []
        listed = actions.get("actionGroups", []) if isinstance(actions, dict) else actions
        told = {entry["actionGroupId"] if isinstance(entry, dict) else entry for entry in listed}
        if alert.properties.get("enabled") and told & groups:
            found += [(alert, criterion) for criterion in alert.properties["criteria"]["allOf"]]
    return found


def _queries(view: Deployment, *words: str) -> list[dict[str, Any]]:
    rules = _told(view, "scheduledQueryRules")
    return [criterion for _, criterion in rules if all(word in criterion["query"] for word in words)]


def _metrics(view: Deployment, metric: str, queue: str = "") -> list[dict[str, Any]]:
    found = [criterion for _, criterion in _told(view, "metricAlerts") if criterion["metricName"] == metric]
    return [c for c in found if not queue or any(queue in d["values"] for d in c["dimensions"])]


def dead_letters_are_told(view: Deployment) -> Iterator[str]:
    """The first dead letter raises an alert, whoever gave the job up."""
    settings = view.settings(view.sites[0])
    name = settings["FIRSTTOKEN_QUEUE__NAME"]
    if view.queue == "service_bus":
        dead = settings["FIRSTTOKEN_QUEUE__DEAD_NAME"]
        alerts = [_metrics(view, "ActiveMessages", dead), _metrics(view, "DeadletteredMessages", name)]
    else:
        alerts = [_queries(view, f"/{name}-poison/", "PutMessage")]
    for found in alerts:
        if not any(c["threshold"] == 0 and c["operator"] == "GreaterThan" for c in found):
            yield f"{name}: no alert on its first dead letter"


def waiting_is_told(view: Deployment) -> Iterator[str]:
    """A queue that nobody empties raises an alert, later than jobs wait on purpose (5 minutes)."""
    name = view.settings(view.sites[0])["FIRSTTOKEN_QUEUE__NAME"]
    if view.queue == "service_bus":
        found = [c for c in _metrics(view, "ActiveMessages", name) if c["threshold"] > 0]
    else:
        found = [c for c in _queries(view, f"/{name}/", "DeleteMessage") if 300 < c["threshold"] <= 3600]
    if not found:
        yield f"{name}: no alert on jobs that wait"


def errors_are_told(view: Deployment) -> Iterator[str]:
    """Failed answers raise an alert by their share, and so does a region that is not ready."""
    if not any(0 < c["threshold"] <= 10 for c in _metrics(view, "Percentage5XX")):
        yield "no alert on the share of 5xx"
    if not any(c["operator"] == "LessThan" for c in _metrics(view, "OriginHealthPercentage")):
        yield "no alert on a region that is down"


def slowness_is_told(view: Deployment) -> Iterator[str]:
    """The slowest hundredth of calls raises an alert before the host ends them, in milliseconds."""
    longest = 1000 * seconds(view.host.get("functionTimeout", "00:30:00"))
    if not any(1000 <= c["threshold"] < longest for c in _queries(view, "AppRequests", "99)")):
        yield "no alert on the 99th percentile"
