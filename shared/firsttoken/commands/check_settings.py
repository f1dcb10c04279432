"""Rules of ``firsttoken check`` about settings: models, caches, limits, failover, jobs and the store."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from firsttoken.commands.check_project import CONFIG, Project, Value
from firsttoken.commands.check_result import Finding, Findings, absent, fail, ok, unchecked, warn
from firsttoken.settings import (
    AnthropicProvider,
    AzureProvider,
    BedrockProvider,
    LocalProvider,
    OpenAIProvider,
    Provider,
    Route,
    SimulatedProvider,
    VertexProvider,
)

_SEVERAL_REGIONS = ("global", "eu", "us", "apac")
_OF_ONE_PROCESS = ("memory",)
_OF_ONE_MACHINE = ("sqlite",)


def config_is_valid(project: Project) -> Findings:
    """Check what would stop the start of every function: a wrong key or value."""
    if project.problem:
        yield fail(project.problem, f"correct {CONFIG}; docs/configuration.md has every setting")
    elif project.configured:
        models, providers = len(project.settings.models), len(project.settings.providers)
        yield ok(f"{CONFIG}: {models} models, {providers} providers")
    else:
        yield absent(f"there is no {CONFIG}: variables of the deployment say what is served")


def models_are_real(project: Project) -> Findings:
    """Check that no model is simulated: that is for tests."""
    for name, provider in project.settings.providers.items():
        where = project.at(f"providers.{name}")
        if isinstance(provider, SimulatedProvider) and provider.faults:
            yield fail(f"{where} lets callers choose faults", f"[providers.{name}] faults = false")
    for name, route in _routes(project):
        kinds = [_provider(project, target) for target in _targets(route)]
        where = f"{project.at(f'models.{name}')} models.{name}"
        if any(isinstance(kind, SimulatedProvider) for kind in kinds):
            yield warn(
                f"{where} has a simulated target", "put your provider in its place (docs/providers.md)"
            )
        else:
            yield ok(f"{where}: {', '.join(_targets(route))}")


def exact_cache_is_considered(project: Project) -> Findings:
    """Check that equal questions are answered once, or that somebody decided otherwise."""
    for value in project.in_force("cache.mode"):
        if value.value == "on" or _decided(project, "cache.mode", value):
            yield ok(str(value))
        else:
            yield warn(f"{value}: nobody decided", f'[cache] mode = "on" in {CONFIG}; or "off"')


def semantic_cache_is_considered(project: Project) -> Findings:
    """Check that similar questions are measured before they are answered, or left alone on purpose."""
    for value in project.in_force("semantic.mode"):
        if value.value == "on" and not project.settings.semantic.judge:
            yield warn(
                f"{value}, and nobody judges its hits",
                "[semantic] judge = MODEL; `firsttoken cache eval PAIRS` says how often it is wrong",
            )
        elif value.value in ("on", "shadow") or _decided(project, "semantic.mode", value):
            yield ok(str(value))
        else:
            yield warn(
                f"{value}: nobody decided",
                '[semantic] mode = "shadow" measures what it would answer; or "off"',
            )


def prefix_cache_is_used(project: Project) -> Findings:
    """Check that cache markers are set, and that a conversation stays with the target that has read it."""
    if project.settings.prefix.markers:
        yield ok("prefix.markers = true")
    else:
        yield warn(f"{project.at('prefix', 'markers')} prefix.markers = false", "[prefix] markers = true")
    for name, route in _routes(project):
        if not route.sticky and len(route.all_targets()) > 1:
            yield warn(
                f"{project.at(f'models.{name}', 'sticky')}: conversations change their target",
                f"[models.{name}] sticky = true",
            )


def limits_are_known(project: Project) -> Findings:
    """Check that it is known what a target allows in a minute: calls wait or go elsewhere in time."""
    for target in dict.fromkeys(target for _, route in _routes(project) for target in _targets(route)):
        known, provider = project.settings.targets.get(target), _provider(project, target)
        if isinstance(provider, SimulatedProvider | LocalProvider):
            continue
        if known and (known.rpm or known.tpm):
            yield ok(f'{project.at(f"targets.{target}")} "{target}": rpm {known.rpm}, tpm {known.tpm}')
        elif _tells_limits(provider):
            yield ok(f"{target}: its own headers tell (x-ratelimit-limit-*)")
        else:
            yield warn(
                f"{target}: nothing is known of its limits, and it sends none",
                f'[targets."{target}"] rpm = ..., tpm = ... (your quota with the provider)',
            )


def limits_are_kept(project: Project) -> Findings:
    """Check that calls wait for quota, and are held back as a target refuses more of them."""
    for section in ("limit", "throttle"):
        yield _enabled(project, section)


def calls_are_retried(project: Project) -> Findings:
    """Check that a call that failed is tried again, within a budget."""
    retry = project.settings.retry
    where = project.at("retry", "attempts")
    if retry.attempts < 2:
        yield warn(f"{where} retry.attempts = 1: nothing is tried again", "[retry] attempts = 3")
    elif not retry.budget:
        yield warn(f"{project.at('retry', 'budget')} retry.budget = 0 allows none", "[retry] budget = 10")
    else:
        yield ok(f"retry.attempts = {retry.attempts}, retry.budget = {retry.budget:g}")


def breakers_are_on(project: Project) -> Findings:
    """Check that a target that is down is left alone."""
    yield _enabled(project, "breaker")


def targets_fail_over(project: Project) -> Findings:
    """Check that the loss of one target, or of its region, is not the loss of the model."""
    for name, route in _routes(project):
        targets = [weighted.target for weighted in route.all_targets()]
        places = {_place(project, target) for target in targets}
        where = f"{project.at(f'models.{name}')} models.{name}"
        if len(places) > 1:
            yield ok(f"{where}: {', '.join(targets)}")
        elif _spans_regions(project, targets[0]):
            yield ok(f"{where}: {targets[0]} is answered in several regions")
        elif len(targets) > 1:
            yield warn(f"{where}: its targets are in one place", _ANOTHER.format(name))
        elif _below(project, name, route):
            yield warn(f"{where} has one target, {targets[0]}", _ANOTHER.format(name))
        else:
            yield fail(f"{where} has one target, {targets[0]}, and nothing below it", _ANOTHER.format(name))


_ANOTHER = (
    "[models.{}] targets = [...]: a second provider or region; `firsttoken place --users eu` proposes them"
)


def ladders_are_there(project: Project) -> Findings:
    """Check that something answers when all targets are down: another model, an old answer, a text, a job."""
    for name, route in _routes(project):
        where = f"{project.at(f'models.{name}')} models.{name}"
        if below := _below(project, name, route):
            yield ok(f"{where}: {below}")
        else:
            yield warn(
                f"{where}: an error, when all of its targets are down",
                f'[models.{name}] degrade = [{{ target = "..." }}], or a [queue] and [jobs] defer = "outage"',
            )


def queue_is_shared(project: Project) -> Findings:
    """Check that calls that are answered later wait where every worker finds them."""
    for value in project.in_force("queue.kind"):
        lost = _OF_ONE_PROCESS + (_OF_ONE_MACHINE if value.cloud else ())
        if value.value is None:
            yield warn(
                f"{value.cloud or CONFIG}: queue.kind is not set, so no call can wait",
                '[queue] kind = "sqs", "pubsub", "storage_queue" or "service_bus" (docs/jobs.md)',
            )
        elif value.value in lost:
            yield fail(f"{value}: jobs go with the instance", "[queue] kind = a queue of the cloud")
        else:
            yield ok(str(value))


def jobs_have_dead_letters(project: Project) -> Findings:
    """Check that what no worker can answer is kept."""
    keys = {"sqs": "queue.dead_url", "pubsub": "queue.dead_topic"}
    for value in project.in_force("queue.kind"):
        if value.value in ("storage_queue", "service_bus", "sqlite"):
            yield ok(f"{value}: the queue beside it keeps them")
        elif value.value in keys:
            key = keys[value.value]
            dead = next(one for one in project.in_force(key) if one.cloud == value.cloud)
            if dead.value is None:
                yield fail(f"{value}, and {key} is not set", f"[queue] {key.removeprefix('queue.')} = ...")
            else:
                yield ok(str(dead))
        elif value.value == "":
            yield unchecked(f"{value}: the kind of queue is only known when deploying")


def store_is_shared(project: Project) -> Findings:
    """Check that instances know of each other's breakers, limits, jobs and answers."""
    for value in project.in_force("store.kind"):
        if not value.cloud:
            yield absent("nothing is deployed: one machine shares a file")
        elif value.value in _OF_ONE_MACHINE:
            yield fail(f"{value}: a function's disk goes with its instance", _SHARED)
        elif value.value in _OF_ONE_PROCESS:
            yield warn(f"{value}: each instance knows only what it saw itself", _SHARED)
        else:
            yield ok(str(value))


_SHARED = '[store] kind = "redis", "dynamodb" or "tables" (docs/stores.md)'


def calls_are_logged(project: Project) -> Findings:
    """Check that each call leaves a line with its times, its target and its errors."""
    if project.settings.server.log:
        yield ok("server.log = true: one JSON line a call")
    else:
        yield warn(f"{project.at('server', 'log')} server.log = false", "[server] log = true")


def _routes(project: Project) -> Iterator[tuple[str, Route]]:
    """Yield the routes that the file names: those of variables are only known when deploying."""
    if project.said("models"):
        yield from project.settings.models.items()


def _targets(route: Route) -> list[str]:
    """Return every target that a route may ask."""
    below = [rung.target for rung in route.degrade if rung.target]
    own = [weighted.target for weighted in route.all_targets()]
    return list(dict.fromkeys([*own, *route.context_overflow, *route.content_filter, *below]))


def _provider(project: Project, target: str) -> Provider:
    return project.settings.providers[target.partition("/")[0]]


def _place(project: Project, target: str) -> tuple[str, ...]:
    """Return what must stand for a target to answer."""
    name, _, _ = target.partition("/")
    provider = project.settings.providers[name]
    match provider:
        case BedrockProvider(region=region):
            return ("bedrock", region)
        case VertexProvider(location=location):
            return ("vertex", location)
        case OpenAIProvider() | AzureProvider() | AnthropicProvider():
            return (type(provider).__name__, urlsplit(provider.base_url).netloc)
        case _:
            return (name,)


def _spans_regions(project: Project, target: str) -> bool:
    match _provider(project, target):
        case VertexProvider(location=location):
            return location in _SEVERAL_REGIONS
        case _:
            return False


def _tells_limits(provider: Provider) -> bool:
    """Return whether a provider is known to send its limits with each answer."""
    match provider:
        case OpenAIProvider(base_url=url):
            return urlsplit(url).hostname == "api.openai.com"
        case AzureProvider() | AnthropicProvider():
            return True
        case _:
            return False


def _below(project: Project, name: str, route: Route) -> str:
    """Return what answers when all targets of a route are down; empty where nothing does."""
    if route.degrade:
        return f"degrade = {', '.join(rung.label() for rung in route.degrade)}"
    if (route.defer or project.settings.jobs.defer) == "outage" and all(
        value.value is not None for value in project.in_force("queue.kind")
    ):
        where = project.at(f"models.{name}", "defer") if route.defer else project.at("jobs", "defer")
        return f'{where} defer = "outage": the call becomes a job'
    return ""


def _decided(project: Project, key: str, value: Value) -> bool:
    return project.said(key) or "FIRSTTOKEN_" in value.where


def _enabled(project: Project, section: str) -> Finding:
    if getattr(project.settings, section).enabled:
        return ok(f"{section}.enabled = true")
    where = project.at(section, "enabled")
    return warn(f"{where} {section}.enabled = false", f"[{section}] enabled = true")
