"""Mistakes that people make in serverless.yml, each put into the real files and each found by name."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infra import aws_checks, aws_package

Change = Callable[[dict[str, Any]], object]


def _of(template: dict[str, Any], name: str) -> dict[str, Any]:
    return template["Resources"][name]["Properties"]


def _statement(template: dict[str, Any], role: str, number: int) -> dict[str, Any]:
    statement = _of(template, role)["Policies"][0]["PolicyDocument"]["Statement"][number]
    return aws_checks.branches(statement)[0]


def _variables(template: dict[str, Any], name: str) -> dict[str, Any]:
    return _of(template, f"{name}LambdaFunction")["Environment"]["Variables"]


def _without(name: str) -> Change:
    return lambda template: template["Resources"].pop(name)


def _less(name: str, key: str) -> Change:
    return lambda template: _of(template, name).pop(key)


def _with(name: str, **properties: Any) -> Change:
    return lambda template: _of(template, name).update(properties)


MAPPING = "RecoverEventSourceMappingSQSRecoverQueue"
SHARED_ROLE = {"Fn::GetAtt": ["ChatRole", "Arn"]}
FAULTS: dict[str, tuple[str, Change]] = {
    "visibility below six timeouts": (
        "queue_outlasts_function",
        _with("RecoverQueue", VisibilityTimeout=900),
    ),
    "no dead-letter queue": ("queue_has_dead_letters", _less("RecoverQueue", "RedrivePolicy")),
    "dead letters kept too short": (
        "queue_has_dead_letters",
        _with("RecoverDeadLetterQueue", MessageRetentionPeriod=345_600),
    ),
    "too few tries": (
        "queue_has_dead_letters",
        lambda t: _of(t, "RecoverQueue")["RedrivePolicy"].update(maxReceiveCount=1),
    ),
    "whole batches repeated": ("batches_are_partial", _less(MAPPING, "FunctionResponseTypes")),
    "workers without bound": ("workers_leave_room", _less(MAPPING, "ScalingConfig")),
    "reservation below the workers": (
        "workers_leave_room",
        _with("RecoverLambdaFunction", ReservedConcurrentExecutions=2),
    ),
    "no alarm on dead letters": ("dead_letters_are_told", _without("DeadLettersAlarm")),
    "an alarm that tells nobody": ("dead_letters_are_told", _less("DeadLettersAlarm", "AlarmActions")),
    "no alarm on waiting messages": ("waiting_is_told", _without("OldestMessageAlarm")),
    "errors counted, not their share": ("errors_are_told", _less("ChatErrorsAlarm", "Metrics")),
    "errors told at half of all": ("errors_are_told", _with("RecoverErrorsAlarm", Threshold=50)),
    "no alarm on throttles": ("throttles_are_told", _without("ScheduledThrottlesAlarm")),
    "latency in seconds": ("slowness_is_told", _with("ChatDurationAlarm", Threshold=400_000)),
    "the mean, not the p99": (
        "slowness_is_told",
        lambda t: _of(t, "ChatDurationAlarm").update(Statistic="Average", ExtendedStatistic=None),
    ),
    "logs for ever": ("logs_end", _less("ChatLogGroup", "RetentionInDays")),
    "no log of its own": ("logs_end", _without("RecoverLogGroup")),
    "a wildcard action": (
        "actions_are_named",
        lambda t: _statement(t, "ChatRole", 1).update(Action=["dynamodb:*"]),
    ),
    "a wildcard below a condition": (
        "actions_are_named",
        lambda t: _statement(t, "ChatRole", 2).update(Action="s3:*"),
    ),
    "every resource": (
        "actions_are_named",
        lambda t: _statement(t, "RecoverRole", 6).update(Resource="*"),
    ),
    "a managed policy": (
        "actions_are_named",
        _with("ScheduledRole", ManagedPolicyArns=["arn:aws:iam::aws:policy/AdministratorAccess"]),
    ),
    "one role for two": ("roles_are_apart", _with("RecoverLambdaFunction", Role=SHARED_ROLE)),
    "a role for other accounts": (
        "roles_are_apart",
        lambda t: _of(t, "ChatRole")["AssumeRolePolicyDocument"]["Statement"][0].update(
            Principal={"AWS": "*"}
        ),
    ),
    "a buffered URL": ("answers_stream", _with("ChatLambdaFunctionUrl", InvokeMode="BUFFERED")),
    "Lambda's own runtime": (
        "answers_stream",
        lambda t: _variables(t, "Chat").pop("AWS_LAMBDA_EXEC_WRAPPER"),
    ),
    "a buffered API": (
        "answers_stream",
        lambda t: _of(t, "ApiMethod")["Integration"].pop("ResponseTransferMode"),
    ),
    "an edge-optimized API": ("answers_stream", _with("Api", EndpointConfiguration={"Types": ["EDGE"]})),
    "one permission of two": ("public_urls_open", _without("ChatLambdaPermissionFn")),
    "a secret in the template": (
        "secrets_are_referred_to",
        lambda t: _variables(t, "Chat").update(FIRSTTOKEN_UPSTREAM_KEY="sk-live-1"),
    ),
    "a secret below a condition": (
        "secrets_are_referred_to",
        lambda t: _variables(t, "Chat")["FIRSTTOKEN_UPSTREAM_KEY"]["Fn::If"].__setitem__(1, "sk-live-1"),
    ),
    "a key, not its digest": (
        "callers_are_digests",
        lambda t: _variables(t, "Chat").update(FIRSTTOKEN_KEYS="acme:ft-abc"),
    ),
    "nothing expires": ("data_survives", _less("Table", "TimeToLiveSpecification")),
    "data goes with the stack": (
        "data_survives",
        lambda t: t["Resources"]["RecoverQueue"].update(DeletionPolicy="Delete"),
    ),
    "a public bucket": (
        "buckets_are_private",
        lambda t: _of(t, "Bucket")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
    ),
    "objects for ever": ("buckets_are_private", _less("Bucket", "LifecycleConfiguration")),
    "state of its own": (
        "state_is_shared",
        lambda t: _variables(t, "Recover").pop("FIRSTTOKEN_STORE__TABLE"),
    ),
    "no health check": ("health_is_asked_here", _less("Record", "HealthCheckId")),
    "a health check of the name": (
        "health_is_asked_here",
        lambda t: _of(t, "HealthCheck")["HealthCheckConfig"].update(
            FullyQualifiedDomainName={"Ref": "Domain"}
        ),
    ),
    "a health check that is always well": (
        "health_is_asked_here",
        lambda t: _of(t, "HealthCheck")["HealthCheckConfig"].update(ResourcePath="/live/healthz"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(fault: str) -> None:
    """A mistake in what is deployed is found by the rule that it breaks."""
    rule, change = FAULTS[fault]
    template = copy.deepcopy(aws_package.template())
    change(template)
    assert rule in aws_checks.findings(template)


def test_every_rule_has_a_fault() -> None:
    """No rule is there that never found anything."""
    assert {rule.__name__ for rule in aws_checks.RULES} == {rule for rule, _ in FAULTS.values()}


def _replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of one of the project's own files."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


REFUSED = {
    "a misspelt key": (_replace("serverless.yml", "    timeout: 300", "    timeuot: 300"), "timeuot"),
    "an unknown invoke mode": (_replace("serverless.yml", "RESPONSE_STREAM", "STREAM"), "invokeMode"),
    "a wrong type": (_replace("serverless.yml", "batchSize: 10", "batchSize: ten"), "batchSize"),
    "a missing region": (_replace("serverless.yml", "    eu-west-1: {", "    eu-west-9: {"), "custom"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_osls_refuses(fault: str, tmp_path: Path) -> None:
    """A mistake in serverless.yml itself stops the packaging, and is named."""
    change, said = REFUSED[fault]
    with pytest.raises(aws_package.OslsError, match=said):
        aws_package.compile_copy(tmp_path, change)


def test_a_buffered_url_in_the_source_is_found(tmp_path: Path) -> None:
    """What osls accepts and should not be so is found in what it makes."""
    change = _replace("serverless.yml", "RESPONSE_STREAM", "BUFFERED")
    assert "answers_stream" in aws_checks.findings(aws_package.compile_copy(tmp_path, change))


INVALID: dict[str, tuple[str, Change]] = {
    "a misspelt property": (
        "VisibilityTimeuot",
        _with("RecoverQueue", VisibilityTimeuot=1800),
    ),
    "a missing property": ("KeySchema", _less("Table", "KeySchema")),
    "text for a number": ("'six hundred'", _with("ChatLambdaFunction", Timeout="six hundred")),
    "a reference to nothing": ("'Tabel'", lambda t: _variables(t, "Chat").update(TABLE={"Ref": "Tabel"})),
    "a value that is none": ("'ON_DEMAND'", _with("Table", BillingMode="ON_DEMAND")),
}  # fmt: skip


def test_cfn_lint_finds(tmp_path: Path) -> None:
    """A mistake that CloudFormation would refuse is found before, and named."""
    for number, (_, change) in enumerate(INVALID.values()):
        template = copy.deepcopy(aws_package.template())
        change(template)
        (tmp_path / f"{number}.json").write_text(json.dumps(template))
    command = [Path(sys.executable).with_name("cfn-lint"), "--format", "json", "--ignore-checks", "W3005"]
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([*command, "--", *files], capture_output=True, text=True, timeout=120, check=False)
    matches = json.loads(done.stdout)
    for number, (said, _) in enumerate(INVALID.values()):
        own = [match for match in matches if Path(match["Filename"]).stem == str(number)]
        assert [match for match in own if match["Level"] == "Error" and said in match["Message"]], said


SOURCES: dict[str, tuple[str, Change]] = {
    "lenient": ("configValidationMode", lambda s: s.update(configValidationMode="warn")),
    "one region": (
        "at least two",
        lambda s: [s["custom"]["regions"].pop(name) for name in list(s["custom"]["regions"])[1:]],
    ),
    "a stranger as partner": (
        "partner in turn",
        lambda s: s["custom"]["regions"]["eu-west-1"].update(partner="us-east-1"),
    ),
    "two primaries": ("SECONDARY", lambda s: s["custom"]["regions"]["eu-west-1"].update(failover="PRIMARY")),
    "a secret of the shell": ("upstreamKey", lambda s: s["params"]["prod"].pop("upstreamKey")),
}


@pytest.mark.parametrize("fault", SOURCES)
def test_source_fault_is_found(fault: str) -> None:
    """A mistake that the template does not show is found in serverless.yml."""
    said, change = SOURCES[fault]
    source = aws_checks.read(aws_package.ROOT / "serverless.yml")
    change(source)
    assert any(said in finding for finding in aws_checks.source_findings(source))
