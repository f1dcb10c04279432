"""Rules that a deployment to AWS keeps, over the CloudFormation that serverless.yml becomes.

A rule takes the template and yields what breaks it, in words. cfn-lint knows what CloudFormation accepts;
these know what the project needs. Nothing here imports the project: a copy works in any project.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Template = dict[str, Any]
Rule = Callable[[Template], Iterator[str]]

_SECRET = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|CONNECTION)$")
_SECRET_PARAMETER = re.compile(r"(Key|Secret|Token|Password)$")
_REFERENCE = re.compile(r"(\{\{resolve:(secretsmanager|ssm-secure):[^}]+\}\}|env:[A-Z_]+)?")
LONGEST = 1_209_600
"""Seconds that SQS keeps a message at most."""


def findings(template: Template) -> dict[str, list[str]]:
    """Every rule over the template that is broken, and by what."""
    found = {rule.__name__: list(rule(template)) for rule in RULES}
    return {name: said for name, said in found.items() if said}


def of(template: Template, kind: str) -> dict[str, Any]:
    """The properties of all resources of a type, by name."""
    return {n: r["Properties"] for n, r in template["Resources"].items() if r["Type"] == f"AWS::{kind}"}


def named(value: Any) -> str:
    """The name of the resource that a reference points to; empty where it points to none."""
    if isinstance(value, dict):
        target = value.get("Ref") or value.get("Fn::GetAtt") or ""
        return target.split(".")[0] if isinstance(target, str) else target[0]
    return ""


def branches(value: Any) -> list[Any]:
    """The values that a condition chooses from."""
    if isinstance(value, dict) and "Fn::If" in value:
        return [leaf for branch in value["Fn::If"][1:] for leaf in branches(branch)]
    return [value]


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    """What a role allows or denies, under any condition."""
    listed = [s for policy in role.get("Policies", []) for s in policy["PolicyDocument"]["Statement"]]
    return [leaf for statement in listed for leaf in branches(statement) if "Effect" in leaf]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _sources(template: Template) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Each queue that starts a function: its name, its properties, the mapping's, the function's."""
    queues, functions = of(template, "SQS::Queue"), of(template, "Lambda::Function")
    for mapping in of(template, "Lambda::EventSourceMapping").values():
        name = named(mapping["EventSourceArn"])
        if name in queues:
            yield name, queues[name], mapping, functions[named(mapping["FunctionName"])]


def queue_outlasts_function(template: Template) -> Iterator[str]:
    """A message stays hidden for six timeouts: a throttled batch must not come twice."""
    for name, queue, mapping, function in _sources(template):
        least = 6 * function["Timeout"] + mapping.get("MaximumBatchingWindowInSeconds", 0)
        if queue.get("VisibilityTimeout", 30) < least:
            yield f"{name}: VisibilityTimeout {queue.get('VisibilityTimeout', 30)}; expected at least {least}"


def queue_has_dead_letters(template: Template) -> Iterator[str]:
    """What keeps failing goes where it is kept longest, after enough tries."""
    queues = of(template, "SQS::Queue")
    for name, queue, _, _ in _sources(template):
        policy = queue.get("RedrivePolicy", {})
        dead = queues.get(named(policy.get("deadLetterTargetArn")))
        if dead is None:
            yield f"{name}: no dead-letter queue"
            continue
        if policy.get("maxReceiveCount", 0) < 5:
            yield f"{name}: maxReceiveCount below 5"
        if dead.get("MessageRetentionPeriod") != LONGEST:
            yield f"{name}: its dead letters are not kept for 14 days"


def batches_are_partial(template: Template) -> Iterator[str]:
    """One bad message does not repeat its neighbours."""
    for name, _, mapping, _ in _sources(template):
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{name}: no ReportBatchItemFailures"


def workers_leave_room(template: Template) -> Iterator[str]:
    """A queue starts a bounded number of workers, and no more than its function may run."""
    for name, _, mapping, function in _sources(template):
        most = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
        if most is None:
            yield f"{name}: no maximumConcurrency"
        elif most > function.get("ReservedConcurrentExecutions", most):
            yield f"{name}: maximumConcurrency above the function's reservation throttles messages to death"


def _alarms(template: Template, metric: str, dimension: str, name: str) -> list[dict[str, Any]]:
    """The alarms over a metric of a resource that tell somebody."""
    found = []
    for alarm in of(template, "CloudWatch::Alarm").values():
        parts = [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one]
        for part in [alarm, *parts]:
            about = {d["Name"]: named(d["Value"]) for d in part.get("Dimensions", [])}
            if part.get("MetricName") == metric and about == {dimension: name} and alarm.get("AlarmActions"):
                found.append(alarm)
    return found


def dead_letters_are_told(template: Template) -> Iterator[str]:
    """The first dead letter raises an alarm."""
    for name, queue, _, _ in _sources(template):
        dead = named(queue.get("RedrivePolicy", {}).get("deadLetterTargetArn"))
        alarms = _alarms(template, "ApproximateNumberOfMessagesVisible", "QueueName", dead)
        if not any(a["Threshold"] == 0 and a["ComparisonOperator"] == "GreaterThanThreshold" for a in alarms):
            yield f"{name}: no alarm on its first dead letter"


def waiting_is_told(template: Template) -> Iterator[str]:
    """A queue that nobody empties raises an alarm well before its messages are lost."""
    for name, queue, _, _ in _sources(template):
        alarms = _alarms(template, "ApproximateAgeOfOldestMessage", "QueueName", name)
        if not any(a["Threshold"] <= queue.get("MessageRetentionPeriod", 345_600) / 10 for a in alarms):
            yield f"{name}: no alarm on the age of its oldest message"


def errors_are_told(template: Template) -> Iterator[str]:
    """A function that fails one time in a hundred raises an alarm."""
    for name in of(template, "Lambda::Function"):
        rates = [alarm for alarm in _alarms(template, "Errors", "FunctionName", name) if "Metrics" in alarm]
        shares = [a for a in rates if a in _alarms(template, "Invocations", "FunctionName", name)]
        if not any(0 < alarm["Threshold"] <= 1 for alarm in shares):
            yield f"{name}: no alarm on 1 % of errors"


def throttles_are_told(template: Template) -> Iterator[str]:
    """A function whose invocations are turned away raises an alarm."""
    for name in of(template, "Lambda::Function"):
        if not any(a["Threshold"] == 0 for a in _alarms(template, "Throttles", "FunctionName", name)):
            yield f"{name}: no alarm on throttles"


def slowness_is_told(template: Template) -> Iterator[str]:
    """A function raises an alarm when its slowest hundredth takes 80 % of its timeout, in milliseconds."""
    for name, function in of(template, "Lambda::Function").items():
        most = 800 * function["Timeout"]
        alarms = _alarms(template, "Duration", "FunctionName", name)
        if not any(a.get("ExtendedStatistic") == "p99" and 0 < a["Threshold"] <= most for a in alarms):
            yield f"{name}: no alarm on a p99 duration of at most {most} ms"


def logs_end(template: Template) -> Iterator[str]:
    """Each function has a log of its own, which is not kept for ever."""
    groups = {group["LogGroupName"]: group for group in of(template, "Logs::LogGroup").values()}
    for name, function in of(template, "Lambda::Function").items():
        group = groups.get(f"/aws/lambda/{function['FunctionName']}")
        if group is None or "RetentionInDays" not in group:
            yield f"{name}: its log is kept for ever"


def actions_are_named(template: Template) -> Iterator[str]:
    """No role allows a wildcard action, or anything on every resource."""
    for name, role in of(template, "IAM::Role").items():
        if role.get("ManagedPolicyArns"):
            yield f"{name}: a managed policy allows more than is needed"
        for statement in statements(role):
            if statement["Effect"] != "Allow":
                continue
            actions = as_list(statement.get("Action", "*"))
            yield from (f"{name}: allows {action}" for action in actions if "*" in action)
            if "*" in [one for one in as_list(statement.get("Resource", "*")) if isinstance(one, str)]:
                yield f"{name}: allows {', '.join(actions)} on every resource"


def roles_are_apart(template: Template) -> Iterator[str]:
    """Each function has a role of its own, which only Lambda may take."""
    roles, taken = of(template, "IAM::Role"), set()
    for name, function in of(template, "Lambda::Function").items():
        role = named(function["Role"])
        if role in taken or role not in roles:
            yield f"{name}: shares its role"
            continue
        taken.add(role)
        for statement in roles[role]["AssumeRolePolicyDocument"]["Statement"]:
            if statement["Principal"] != {"Service": "lambda.amazonaws.com"}:
                yield f"{role}: may be taken by {statement['Principal']}"


def answers_stream(template: Template) -> Iterator[str]:
    """Whatever stands in front of a function passes its answer on as it comes."""
    functions = of(template, "Lambda::Function")
    for name, url in of(template, "Lambda::Url").items():
        if url.get("InvokeMode") != "RESPONSE_STREAM":
            yield f"{name}: InvokeMode is not RESPONSE_STREAM"
        variables = functions[named(url["TargetFunctionArn"])]["Environment"]["Variables"]
        if "AWS_LAMBDA_EXEC_WRAPPER" not in variables:
            yield f"{name}: its function runs on Lambda's own runtime, which cannot stream"
    for name, method in of(template, "ApiGateway::Method").items():
        integration = method["Integration"]
        if integration.get("ResponseTransferMode") != "STREAM":
            yield f"{name}: ResponseTransferMode is not STREAM"
        if "/response-streaming-invocations" not in str(integration["Uri"]):
            yield f"{name}: does not invoke with a streamed response"
    for name, api in of(template, "ApiGateway::RestApi").items():
        if api.get("EndpointConfiguration", {}).get("Types") != ["REGIONAL"]:
            yield f"{name}: is not regional; others cut a stream that is silent for 30 s"


def public_urls_open(template: Template) -> Iterator[str]:
    """A public Function URL needs two permissions; with one it answers 403."""
    for name, url in of(template, "Lambda::Url").items():
        function = named(url["TargetFunctionArn"])
        public = [
            p for p in of(template, "Lambda::Permission").values()
            if p["Principal"] == "*" and named(p["FunctionName"]) == function
        ]  # fmt: skip
        actions = {p["Action"] for p in public}
        if url["AuthType"] == "NONE" and actions != {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}:
            yield f"{name}: allows only {', '.join(sorted(actions)) or 'nothing'}"
        if any(p["Action"] == "lambda:InvokeFunction" and not p.get("InvokedViaFunctionUrl") for p in public):
            yield f"{name}: anybody may invoke the function past its URL"


def secrets_are_referred_to(template: Template) -> Iterator[str]:
    """No secret stands in the template: variables and parameters refer to where it is kept."""
    for name, function in of(template, "Lambda::Function").items():
        for variable, value in function.get("Environment", {}).get("Variables", {}).items():
            plain = [leaf for leaf in branches(value) if isinstance(leaf, str)]
            if _SECRET.search(variable) and not all(map(_REFERENCE.fullmatch, plain)):
                yield f"{name}: {variable} holds a secret"
    for name, parameter in template.get("Parameters", {}).items():
        if _SECRET_PARAMETER.search(name) and not _REFERENCE.fullmatch(parameter.get("Default", "")):
            yield f"{name}: its default is a secret"


def callers_are_digests(template: Template) -> Iterator[str]:
    """What is known of a caller's key is its SHA-256."""
    for name, function in of(template, "Lambda::Function").items():
        keys = function["Environment"]["Variables"].get("FIRSTTOKEN_KEYS", "")
        pairs = [pair for pair in keys.split(",") if pair] if isinstance(keys, str) else []
        yield from (f"{name}: {p}" for p in pairs if not re.fullmatch(r"[\w.-]+:[0-9a-f]{64}", p.strip()))


def data_survives(template: Template) -> Iterator[str]:
    """Tables expire by themselves and can be brought back; what holds data outlives the stack."""
    for name, table in of(template, "DynamoDB::Table").items():
        if not table.get("TimeToLiveSpecification", {}).get("Enabled"):
            yield f"{name}: nothing expires"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{name}: no point-in-time recovery"
    ours = {n: r for n, r in template["Resources"].items() if not n.startswith("ServerlessDeployment")}
    for name, resource in ours.items():
        kind = resource["Type"].removeprefix("AWS::")
        kept = resource.get("DeletionPolicy") == resource.get("UpdateReplacePolicy") == "Retain"
        if kind in {"DynamoDB::Table", "SQS::Queue", "S3::Bucket"} and not kept:
            yield f"{name}: goes with the stack"


def buckets_are_private(template: Template) -> Iterator[str]:
    """Nobody outside reads a bucket, whatever lies in it is encrypted, and goes by itself."""
    for name, bucket in of(template, "S3::Bucket").items():
        if name.startswith("ServerlessDeployment"):
            continue
        blocks = bucket.get("PublicAccessBlockConfiguration", {})
        if len(blocks) != 4 or not all(blocks.values()):
            yield f"{name}: may be made public"
        if "BucketEncryption" not in bucket:
            yield f"{name}: not encrypted"
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if not any(rule["Status"] == "Enabled" and "ExpirationInDays" in rule for rule in rules):
            yield f"{name}: keeps objects for ever"


def state_is_shared(template: Template) -> Iterator[str]:
    """All functions know the same table and queue: one that does not keeps a state of its own."""
    shared = re.compile(r"FIRSTTOKEN_(STORE|QUEUE|OBJECTS)__").match
    variables = [f["Environment"]["Variables"] for f in of(template, "Lambda::Function").values()]
    known = [{name: value for name, value in each.items() if shared(name)} for each in variables]
    if any(one != known[0] for one in known) or "FIRSTTOKEN_STORE__KIND" not in known[0]:
        yield "functions differ in what they share"


def health_is_asked_here(template: Template) -> Iterator[str]:
    """A record that fails over has a health check, which asks this region whether it can answer."""
    checks = of(template, "Route53::HealthCheck")
    for name, record in of(template, "Route53::RecordSet").items():
        check = checks.get(named(record.get("HealthCheckId")))
        if "Failover" not in record or "SetIdentifier" not in record:
            yield f"{name}: no failover record"
        if check is None:
            yield f"{name}: no health check"
            continue
        config = check["HealthCheckConfig"]
        if not config.get("ResourcePath", "").endswith("/readyz"):
            yield f"{name}: the health check does not ask /readyz"
        if ".execute-api." not in str(config.get("FullyQualifiedDomainName")):
            yield f"{name}: the health check asks the name that it decides on"


RULES: tuple[Rule, ...] = (
    *(queue_outlasts_function, queue_has_dead_letters, batches_are_partial, workers_leave_room),
    *(
        dead_letters_are_told,
        waiting_is_told,
        errors_are_told,
        throttles_are_told,
        slowness_is_told,
        logs_end,
    ),
    *(actions_are_named, roles_are_apart, answers_stream, public_urls_open),
    *(secrets_are_referred_to, callers_are_digests, data_survives, buckets_are_private),
    *(state_is_shared, health_is_asked_here),
)


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags, which are kept as their values."""


def _tagged(loader: _Loader, _tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _tagged)


def read(path: Path) -> dict[str, Any]:
    """A YAML file with CloudFormation's tags."""
    return yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - a safe loader, with tags for strings


def source_findings(source: dict[str, Any]) -> list[str]:
    """What is wrong in serverless.yml that its CloudFormation does not show."""
    said = []
    if source.get("configValidationMode") != "error":
        said.append("configValidationMode: expected error, or misspelt keys pass")
    regions = source.get("custom", {}).get("regions", {})
    if len(regions) < 2:
        said.append("custom.regions: expected at least two")
    for region, here in regions.items():
        partner = regions.get(here["partner"], {})
        if partner.get("partner") != region:
            said.append(f"custom.regions.{region}: {here['partner']} is not its partner in turn")
        elif {here["failover"], partner["failover"]} != {"PRIMARY", "SECONDARY"}:
            said.append(f"custom.regions.{region}: expected one PRIMARY and one SECONDARY")
    if not str(source["params"]["prod"].get("upstreamKey", "")).startswith("{{resolve:"):
        said.append("params.prod.upstreamKey: expected a reference to a secret")
    return said
