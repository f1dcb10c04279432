"""The checklist of ``firsttoken check``: what a project should have, in the order in which it is shown."""

from __future__ import annotations

from firsttoken.commands import check_deploy as deploy
from firsttoken.commands import check_evidence as evidence
from firsttoken.commands import check_secrets as secrets
from firsttoken.commands import check_settings as settings
from firsttoken.commands.check_project import CONFIG, Project
from firsttoken.commands.check_result import Result, Rule, result_of

_CLOUD = "functions or infrastructure of a cloud"
_QUEUE = "queue"
_MODELS = "[models] of a real provider in firsttoken.toml"

_SETTINGS = (
    Rule("models.real", "models are real", settings.models_are_real),
    Rule("models.measured", "models were compared", evidence.models_are_measured, _MODELS),
    Rule("cache.exact", "equal questions are answered once", settings.exact_cache_is_considered),
    Rule("cache.semantic", "similar questions are decided on", settings.semantic_cache_is_considered),
    Rule("cache.prefix", "providers keep prompts", settings.prefix_cache_is_used),
    Rule("limits.known", "rate limits are known", settings.limits_are_known, _MODELS),
    Rule("limits.kept", "rate limits are kept", settings.limits_are_kept),
    Rule("retry.on", "failed calls are tried again", settings.calls_are_retried),
    Rule("breaker.on", "targets that are down are left alone", settings.breakers_are_on),
    Rule("failover.targets", "another target takes over", settings.targets_fail_over),
    Rule("failover.ladder", "something answers when all are down", settings.ladders_are_there),
    Rule("queue.shared", "calls can wait", settings.queue_is_shared),
    Rule("queue.worker", "waiting calls are answered", deploy.workers_are_deployed, _QUEUE),
    Rule("queue.dead", "calls that are given up are kept", settings.jobs_have_dead_letters, _QUEUE),
    Rule("store.shared", "instances share a store", settings.store_is_shared),
    Rule(
        "secrets.settings", "no secret in the settings", secrets.settings_have_no_secrets, "firsttoken.toml"
    ),
    Rule("auth.on", "callers need keys", deploy.callers_are_known),
    Rule("watch.log", "calls are logged", settings.calls_are_logged),
)
"""Those that have nothing to go by without a valid configuration."""

_OTHERS = (
    Rule("config.valid", "the configuration is valid", settings.config_is_valid),
    Rule("stream.on", "answers stream", deploy.answers_stream, _CLOUD),
    Rule("prompts.stable", "prompts begin alike", evidence.prompts_begin_alike),
    Rule("failover.regions", "two regions", deploy.regions_are_two, "infrastructure"),
    Rule(
        "queue.redrive",
        "the queue gives up, too",
        deploy.queues_have_dead_letters,
        "infrastructure of a queue",
    ),
    Rule(
        "queue.hidden",
        "messages come once",
        deploy.queues_outlast_functions,
        "SQS queue that starts a function",
    ),
    Rule("secrets.files", "no key in any file", secrets.files_have_no_secrets),
    Rule("rights.narrow", "roles are narrow", deploy.rights_are_narrow, "infrastructure"),
    Rule("watch.probe", "targets are probed", deploy.targets_are_probed, _CLOUD),
    Rule("watch.alarms", "alarms tell somebody", deploy.somebody_is_told, "infrastructure"),
    Rule("watch.retention", "logs end", deploy.logs_end, "infrastructure"),
    Rule("load.tested", "load was tested, lately", evidence.load_was_tested),
    Rule("events.run", "events can be run", evidence.events_are_there, _CLOUD),
    Rule("package.staged", "packages are staged", evidence.packages_are_staged, _CLOUD),
)

_GROUPS = (
    *("config", "models", "stream", "cache", "prompts", "limits", "retry", "breaker", "failover"),
    *("queue", "store", "secrets", "auth", "rights", "watch", "load", "events", "package"),
)
RULES = tuple(sorted((*_SETTINGS, *_OTHERS), key=lambda rule: _GROUPS.index(rule.id.partition(".")[0])))
"""All of them, the groups in this order."""


def audit(project: Project) -> list[Result]:
    """Return what came of each rule; those about settings are left out where these cannot be read."""
    return [
        Result(rule.id, rule.title, "not checked", (f"{CONFIG} cannot be read",))
        if project.problem and rule in _SETTINGS
        else result_of(rule, project)
        for rule in RULES
    ]
