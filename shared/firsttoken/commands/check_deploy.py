"""Rules of ``firsttoken check`` about what is deployed: streams, regions, queues, alarms, rights, keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from firsttoken.commands.check_infra import Aws, blocks, name_of, parts_of, read_aws
from firsttoken.commands.check_project import Project
from firsttoken.commands.check_result import Finding, Findings, fail, ok, unchecked, warn
from firsttoken.errors import ConfigError

_ASGI = "AsgiResponse"
_WIDE_ROLES = re.compile(
    "roles/(?:owner|editor)\\b"
    # Azure's Owner and Contributor.
    "|8e3af657-a8ff-443c-a75c-2fe8c4bcb635|b24988ac-6180-42a0-ab88-20f7382dd24c"
)

_LOGS = (
    ("gcp", 'resource "google_logging_project_bucket_config"', "retention_days"),
    ("azure", r"resource \w+ 'Microsoft\.OperationalInsights/workspaces@", "retentionInDays"),
)


def answers_stream(project: Project) -> Findings:
    """Check that whatever stands in front of a function passes its answer on as it comes."""
    yield from _on_aws(project, _aws_streams)
    for cloud in ("gcp", "azure"):
        if names := project.entrypoints(cloud):
            if where := project.mentions(names, _ASGI):
                yield ok(f"{cloud}: {where} answers with {_ASGI}")
            else:
                yield fail(
                    f"{cloud}: no entrypoint answers with {_ASGI}",
                    f"return {_ASGI}(app, ...) of firsttoken.runtimes.starlette in functions/{cloud}",
                )


def _aws_streams(project: Project, aws: Aws) -> Findings:
    for function in aws.functions:
        where = f"{project.mentions([aws.file], function.name) or aws.file} {function.name}"
        for mode in function.urls:
            if mode != "RESPONSE_STREAM":
                yield fail(f"{where}: invoke mode {mode}", "url: { invokeMode: RESPONSE_STREAM }")
            elif not (function.wrapper or function.image):
                yield fail(
                    f"{where} runs on Lambda's own runtime, which cannot stream from Python",
                    "AWS_LAMBDA_EXEC_WRAPPER: /var/task/functions/aws/bootstrap",
                )
            else:
                yield ok(f"{where}: invoke mode {mode}, runtime of its own")
        if function.buffered:
            yield fail(f"{where}: an HTTP API buffers the whole answer", "a Function URL, or a REST API")
    for name, method in aws.of("ApiGateway::Method").items():
        integration = method.get("Integration") or {}
        if (
            integration.get("ResponseTransferMode") != "STREAM"
            and str(integration.get("Type")) == "AWS_PROXY"
        ):
            yield fail(f"{aws.file} {name}: buffers", "Integration: { ResponseTransferMode: STREAM }")


def regions_are_two(project: Project) -> Findings:
    """Check that it is made to run in two regions."""
    yield from _on_aws(project, _aws_regions)
    if project.infrastructure("gcp"):
        yield _gcp_regions(project)
    if project.infrastructure("azure"):
        where = _after(project, "azure", r"@minLength\(([2-9])\)[^\n]*\n(?:@[^\n]*\n)*param locations array")
        yield (
            ok(f"azure: {where} asks for two locations or more")
            if where
            else unchecked("azure: no `param locations array` with @minLength(2)")
        )


def _aws_regions(_project: Project, aws: Aws) -> Findings:
    where = f"aws: {aws.file}"
    if len(aws.regions) > 1:
        yield ok(f"{where}: {', '.join(aws.regions)}")
    elif aws.regions:
        yield warn(f"{where}: only {aws.regions[0]}", "custom.regions with a partner of each region")
    else:
        yield unchecked(f"{where} does not say which regions it goes to")


def _gcp_regions(project: Project) -> Finding:
    for where, body in blocks(project, "gcp", 'variable "regions"'):
        listed = re.search(r"default\s*=\s*\[([^\]]*)\]", body)
        regions = re.findall(r'"([^"]+)"', listed[1]) if listed else []
        if len(set(regions)) > 1:
            return ok(f"gcp: {where}: {', '.join(regions)}")
        if regions:
            return warn(f"gcp: {where}: only {regions[0]}", 'variable "regions": default = [two regions]')
    return unchecked('gcp: no variable "regions" with a default')


def queues_have_dead_letters(project: Project) -> Findings:
    """Check that what keeps failing leaves the queue for where it is kept."""
    yield from _on_aws(project, _aws_dead_letters)
    for where, body in blocks(project, "gcp", 'resource "google_pubsub_subscription"'):
        if "push_config" in body:
            yield (
                ok(f"gcp: {where} has a dead_letter_policy")
                if "dead_letter_policy" in body
                else fail(
                    f"gcp: {where}: no dead_letter_policy", "dead_letter_policy { dead_letter_topic = ... }"
                )
            )
    host = next((name for name in project.infrastructure("azure") if name.endswith("host.json")), "")
    if host:
        yield _azure_dead_letters(project, host)


def _aws_dead_letters(_project: Project, aws: Aws) -> Findings:
    queues = aws.of("SQS::Queue")
    for function in aws.functions:
        for name in function.queues:
            where = f"aws: {aws.file} {name}"
            if name not in queues:
                yield unchecked(f"aws: {function.name}: its queue is not made here")
            elif name_of((queues[name].get("RedrivePolicy") or {}).get("deadLetterTargetArn")) in queues:
                yield ok(f"{where} has a RedrivePolicy")
            else:
                yield fail(f"{where}: no RedrivePolicy", "RedrivePolicy: { deadLetterTargetArn: ... }")


def _azure_dead_letters(project: Project, host: str) -> Finding:
    try:
        said: Any = json.loads(project.text(host))
        tries = said["extensions"]["queues"]["maxDequeueCount"]
    except (ValueError, LookupError, TypeError):
        return warn(
            f"azure: {host}: extensions.queues.maxDequeueCount is not set: 5 tries",
            '"maxDequeueCount": 20: only the loss of the store or of the queue uses tries up',
        )
    return ok(f"azure: {host}: maxDequeueCount {tries}, then the -poison queue")


def queues_outlast_functions(project: Project) -> Findings:
    """Check that a message stays hidden for six timeouts of its function: it must not come twice."""
    yield from _on_aws(project, _aws_visibility)


def _aws_visibility(_project: Project, aws: Aws) -> Findings:
    queues = aws.of("SQS::Queue")
    for function in aws.functions:
        for name in (name for name in function.queues if name in queues):
            hidden = queues[name].get("VisibilityTimeout", 30)
            where = f"aws: {aws.file} {name}: VisibilityTimeout {hidden}"
            if not isinstance(hidden, int) or not isinstance(function.timeout, int):
                yield unchecked(f"{where}: only known when deploying")
            elif hidden < 6 * function.timeout:
                least = 6 * function.timeout
                yield fail(
                    f"{where} for a function of {function.timeout} s", f"VisibilityTimeout: {least} or more"
                )
            else:
                yield ok(f"{where}, function {function.timeout} s")


def somebody_is_told(project: Project) -> Findings:
    """Check that errors, slowness and dead letters raise alarms."""
    yield from _on_aws(project, _aws_alarms)
    if project.infrastructure("gcp"):
        policies = [body for _, body in blocks(project, "gcp", 'resource "google_monitoring_alert_policy"')]
        wanted = {
            "dead letters": "num_undelivered_messages",
            "errors": "request_count",
            "latency": "request_latencies",
        }
        missing = [name for name, word in wanted.items() if not any(word in body for body in policies)]
        yield _alarms("gcp", f"{len(policies)} google_monitoring_alert_policy", missing)
    if project.infrastructure("azure"):
        kinds = r"resource \w+ 'Microsoft\.Insights/(?:metricAlerts|scheduledQueryRules)@"
        found = [where for where, _ in blocks(project, "azure", kinds)]
        yield (
            ok(f"azure: {', '.join(found)}; what they ask is not checked")
            if found
            else _alarms("azure", "", ["anything"])
        )


def _aws_alarms(_project: Project, aws: Aws) -> Findings:
    told = {
        part["MetricName"]: alarm
        for alarm in aws.of("CloudWatch::Alarm").values()
        if alarm.get("AlarmActions")
        for part in parts_of(alarm)
        if isinstance(part.get("MetricName"), str)
    }
    wanted = {"errors": "Errors", "latency": "Duration"}
    if any(function.queues for function in aws.functions):
        wanted["dead letters"] = "ApproximateNumberOfMessagesVisible"
    missing = [name for name, metric in wanted.items() if metric not in told]
    yield _alarms("aws", f"{aws.file}: {', '.join(sorted(told))}", missing)


def _alarms(cloud: str, found: str, missing: list[str]) -> Finding:
    if missing:
        return warn(
            f"{cloud}: no alarm that tells somebody of {', '.join(missing)}",
            "alarms on dead letters, errors and the 99th percentile, with somebody to tell",
        )
    return ok(f"{cloud}: {found}")


def logs_end(project: Project) -> Findings:
    """Check that logs are not kept, and paid for, for ever."""
    yield from _on_aws(project, _aws_logs)
    for cloud, opening, word in _LOGS:
        if project.infrastructure(cloud):
            where = next((where for where, body in blocks(project, cloud, opening) if word in body), "")
            yield (
                ok(f"{cloud}: {where} {word}")
                if where
                else warn(f"{cloud}: nothing sets {word}", f"{word} = 30 or what you need")
            )


def _aws_logs(_project: Project, aws: Aws) -> Findings:
    groups = [group for group in aws.of("Logs::LogGroup").values() if "RetentionInDays" in group]
    if aws.retention or (groups and len(groups) >= len(aws.functions)):
        yield ok(f"aws: {aws.file}: all logs end")
    elif aws.functions:
        yield warn(f"aws: {aws.file}: logs are kept for ever", "provider.logRetentionInDays: 30")


def rights_are_narrow(project: Project) -> Findings:
    """Check that no role allows every action of a service, or everything in an account."""
    yield from _on_aws(project, _aws_rights)
    for cloud in ("gcp", "azure"):
        wide = list(_matches(project, cloud, _WIDE_ROLES))
        for where in wide:
            yield fail(f"{cloud}: {where}: owner, editor or contributor", "the roles of what it does only")
        if not wide and project.infrastructure(cloud):
            yield ok(f"{cloud}: no owner, editor or contributor")


def _aws_rights(_project: Project, aws: Aws) -> Findings:
    wide = {
        action
        for part in parts_of(aws.source if not aws.resources else [aws.source, aws.resources])
        if part.get("Effect") == "Allow"
        for action in _listed(part.get("Action"))
        if isinstance(action, str) and action.endswith("*")
    }
    for action in sorted(wide):
        yield fail(f"aws: {aws.file}: a role allows {action}", "name the actions that the function needs")
    if not wide:
        yield ok(f"aws: {aws.file}: no wildcard action")


def callers_are_known(project: Project) -> Findings:
    """Check that a deployed endpoint asks for API keys, and knows some."""
    for value in project.in_force("auth.mode"):
        if value.value == "off":
            yield (fail if value.cloud else warn)(f"{value}: anybody may call", '[auth] mode = "auto"')
        else:
            yield ok(str(value))
    for cloud in project.clouds():
        if where := project.mentions(project.entrypoints(cloud), "deployed=False"):
            yield fail(f"{cloud}: {where} deployed=False: no key is asked for", "create_app(deployed=True)")
    for value in project.in_force("auth.keys"):
        if value.cloud and value.value is None:
            yield warn(
                f"{value.cloud}: no key is configured, so a deployed endpoint does not start",
                "`firsttoken key TENANT`; then FIRSTTOKEN_KEYS in the deployment",
            )


def workers_are_deployed(project: Project) -> Findings:
    """Check that, where calls wait in a queue, a function takes them out."""
    for value in project.in_force("queue.kind"):
        if value.cloud and value.value is not None and project.entrypoints(value.cloud):
            yield _calls(project, value.cloud, "answer_message", "recover")


def targets_are_probed(project: Project) -> Findings:
    """Check that a schedule asks every target for a token: an outage is seen before callers see it."""
    for cloud in project.clouds():
        if project.entrypoints(cloud):
            yield _calls(project, cloud, "on_schedule", "scheduled")


def _calls(project: Project, cloud: str, function: str, name: str) -> Finding:
    if where := project.mentions(project.entrypoints(cloud), function):
        return ok(f"{cloud}: {where} {function}")
    say = fail if name == "recover" else warn
    return say(f"{cloud}: no function calls {function}", f"functions/{cloud}: `{name}`, as in the templates")


def _on_aws(project: Project, rule: Callable[[Project, Aws], Findings]) -> Findings:
    """Apply a rule to what is deployed to AWS, if anything is; say why where it cannot be read."""
    try:
        aws = read_aws(project)
    except ConfigError as error:
        yield unchecked(f"aws: {error}")
        return
    if aws:
        yield from rule(project, aws)


def _after(project: Project, cloud: str, pattern: str) -> str:
    return next(_matches(project, cloud, re.compile(pattern)), "")


def _matches(project: Project, cloud: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield where a pattern stands in a cloud's infrastructure, comments aside."""
    for name in project.infrastructure(cloud):
        text = re.sub(r"^[ \t]*(?:#|//)[^\n]*$", "", project.text(name), flags=re.MULTILINE)
        for found in pattern.finditer(text):
            yield f"{name}:{text.count(chr(10), 0, found.start()) + 1}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
