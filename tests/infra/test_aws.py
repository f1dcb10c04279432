"""What serverless.yml deploys: valid, complete, and with settings that the functions understand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from infra import aws_checks, aws_package

from firsttoken import config
from firsttoken.settings import BedrockProvider, DynamodbStore, S3Objects, SqsQueue

ROOT = Path(__file__).parents[2]
FUNCTIONS = {"Chat": 300, "Recover": 300, "Scheduled": 120}
REFERENCES = {
    "Table": "firsttoken",
    "RecoverQueue": "https://sqs.eu-west-1.amazonaws.com/1/jobs",
    "RecoverDeadLetterQueue": "https://sqs.eu-west-1.amazonaws.com/1/dead",
    "Bucket": "a-bucket",
    "UpstreamUrl": "",
}


@pytest.fixture
def template() -> dict[str, Any]:
    """Production in a region."""
    return aws_package.template()


def _resolved(value: Any, conditions: set[str]) -> Any:
    """A value as CloudFormation gives it when ``conditions`` hold; None where there is none."""
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        name, yes, no = value["Fn::If"]
        return _resolved(yes if name in conditions else no, conditions)
    return REFERENCES.get(value["Ref"])


def _settings(template: dict[str, Any], name: str, conditions: set[str], folder: Path) -> Any:
    """The settings that a function reads from its environment."""
    function = template["Resources"][f"{name}LambdaFunction"]["Properties"]
    variables = function["Environment"]["Variables"]
    resolved = {key: _resolved(value, conditions) for key, value in variables.items()}
    (folder / "firsttoken.toml").touch()
    environ = {key: value for key, value in resolved.items() if value is not None}
    return config.load(folder / "firsttoken.toml", environ)


def _allowed(template: dict[str, Any], name: str) -> set[tuple[str, str]]:
    """Each action that a function's role allows, and on what."""
    role = template["Resources"][f"{name}Role"]["Properties"]
    return {
        (action, aws_checks.named(resource) or resource["Fn::Sub"])
        for statement in aws_checks.statements(role)
        for action in statement["Action"]
        for resource in aws_checks.as_list(statement["Resource"])
    }


@pytest.mark.parametrize("stage", ["prod", "dev"])
def test_template_is_valid(stage: str, tmp_path: Path) -> None:
    """CloudFormation's own rules find nothing, but for a needless DependsOn that osls writes (W3005)."""
    file = tmp_path / "template.json"
    file.write_text(json.dumps(aws_package.template(stage)))
    command = [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", "W3005", "--", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("rule", aws_checks.RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(template: dict[str, Any], rule: aws_checks.Rule) -> None:
    """Production keeps each rule of aws_checks."""
    assert list(rule(template)) == []


def test_source_is_sound() -> None:
    """serverless.yml checks itself strictly, and knows each region's partner."""
    assert aws_checks.source_findings(aws_checks.read(ROOT / "serverless.yml")) == []


def test_trials_differ_in_what_they_keep() -> None:
    """A trial stack leaves nothing behind and reserves nothing; in all else it is as production is."""
    trial = aws_package.template("dev")
    assert set(aws_checks.findings(trial)) == {"data_survives"}
    functions = aws_checks.of(trial, "Lambda::Function").values()
    assert not [f for f in functions if "ReservedConcurrentExecutions" in f]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(template: dict[str, Any], name: str) -> None:
    """Each function runs on Python 3.13 on arm64, and its handler is an entrypoint."""
    function = template["Resources"][f"{name}LambdaFunction"]["Properties"]
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["arm64"]
    assert function["Timeout"] == FUNCTIONS[name]
    assert function["MemorySize"] == 1024
    assert (ROOT / (function["Handler"].rpartition(".")[0].replace(".", "/") + ".py")).is_file()


def test_chat_runs_our_runtime(template: dict[str, Any]) -> None:
    """Only chat runs on our streaming runtime."""
    wrappers = {
        name: function["Environment"]["Variables"].get("AWS_LAMBDA_EXEC_WRAPPER")
        for name, function in aws_checks.of(template, "Lambda::Function").items()
    }
    wrapper = wrappers.pop("ChatLambdaFunction")
    assert (ROOT / wrapper.removeprefix("/var/task/")).is_file()
    assert set(wrappers.values()) == {None}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_role_allows_only_what_is_needed(template: dict[str, Any], name: str) -> None:
    """A function logs, keeps state, asks models and sends jobs; `recover` takes them too; that is all."""
    table = ("GetItem", "BatchGetItem", "PutItem", "UpdateItem", "DeleteItem")
    expected = {(action, f"{name}LogGroup") for action in ("logs:CreateLogStream", "logs:PutLogEvents")}
    expected |= {(f"dynamodb:{action}", "Table") for action in table}
    expected |= {(f"s3:{one}Object", "${Bucket.Arn}/firsttoken/*") for one in ("Get", "Put", "Delete")}
    expected |= {("s3:ListBucket", "Bucket"), ("sqs:SendMessage", "RecoverQueue")}
    for action in ("bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"):
        profiles = "arn:${AWS::Partition}:bedrock:*:${AWS::AccountId}:inference-profile/*"
        expected |= {(action, profiles), (action, "arn:${AWS::Partition}:bedrock:*::foundation-model/*")}
    if name == "Recover":
        taking = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "ChangeMessageVisibility")
        expected |= {(f"sqs:{action}", "RecoverQueue") for action in taking}
        expected.add(("sqs:SendMessage", "RecoverDeadLetterQueue"))
    assert _allowed(template, name) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_share_state(template: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Every function's environment gives settings with the table, the queues, the bucket and the keys."""
    settings = _settings(template, name, {"HasBucket"}, tmp_path)
    assert settings.store == DynamodbStore(table="firsttoken")
    assert settings.queue == SqsQueue(
        url=REFERENCES["RecoverQueue"], dead_url=REFERENCES["RecoverDeadLetterQueue"]
    )
    assert settings.objects == S3Objects(bucket="a-bucket")
    assert list(settings.auth.keys) == ["acme"]


def test_bedrock_of_two_regions(tmp_path: Path) -> None:
    """With a Bedrock model the region's own is asked first, then that of the partner region."""
    settings = _settings(aws_package.template(model=aws_package.MODEL), "Chat", {"HasBedrock"}, tmp_path)
    assert settings.models["chat"].targets == [
        f"here/{aws_package.MODEL}",
        f"partner/{aws_package.MODEL}",
    ]
    assert settings.providers["here"] == BedrockProvider(region="eu-west-1")
    assert settings.providers["partner"] == BedrockProvider(region="eu-central-1")


def test_upstream_key_is_given_only_with_its_url(template: dict[str, Any], tmp_path: Path) -> None:
    """Without an upstream no secret is read: the key would not be accepted alone, and need not exist."""
    variables = template["Resources"]["ChatLambdaFunction"]["Properties"]["Environment"]["Variables"]
    reference = "{{resolve:secretsmanager:firsttoken-prod:SecretString:upstream_key}}"
    assert variables["FIRSTTOKEN_UPSTREAM_KEY"] == {"Fn::If": ["HasUpstream", reference, ""]}
    assert "upstream" not in _settings(template, "Chat", set(), tmp_path).providers


def test_entry_is_optional(template: dict[str, Any]) -> None:
    """The entry of two regions is made where a domain is named, and nothing of it elsewhere."""
    kinds = ("AWS::ApiGateway::", "AWS::Route53::")
    entry = {n: r for n, r in template["Resources"].items() if r["Type"].startswith(kinds)}
    assert {resource.get("Condition") for resource in entry.values()} == {"HasDomain"}
    assert template["Parameters"]["Domain"]["Default"] == ""


def test_table_is_what_the_store_expects(template: dict[str, Any]) -> None:
    """One string key ``pk``, and DynamoDB deletes what has expired."""
    table = template["Resources"]["Table"]["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


def test_objects_outlive_what_needs_them(template: dict[str, Any], tmp_path: Path) -> None:
    """The bucket keeps objects for longer than jobs and batches may be asked for."""
    settings = _settings(template, "Chat", {"HasBucket"}, tmp_path)
    (rule,) = template["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert rule["Prefix"] == settings.objects.prefix
    assert rule["ExpirationInDays"] * 86_400 > settings.batch.keep
    assert rule["ExpirationInDays"] * 86_400 > settings.jobs.expires + settings.jobs.keep
