import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsttoken import config
from firsttoken.settings import DynamodbStore, SqsQueue

ROOT = Path(__file__).parents[1]
FUNCTIONS = {"Chat": 300, "Recover": 300, "Scheduled": 120}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `osls package` makes of serverless.yml for production in a region, without an account."""
    osls = os.environ.get("FIRSTTOKEN_OSLS", str(ROOT / "tests/node/node_modules/.bin/osls"))
    if not shutil.which(osls):
        pytest.skip("osls is missing: install Node 20 or newer, then run `make test`")
    folder = tmp_path_factory.mktemp("package")
    command = [osls, "package", "--stage", "prod", "--region", "eu-west-1", "--package", str(folder)]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path_factory.mktemp("home")),
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "FIRSTTOKEN_KEYS": "acme:" + "0" * 64,
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def template(package: Path) -> Path:
    """The CloudFormation template that a deployment would send."""
    return package / "cloudformation-template-update-stack.json"


@pytest.fixture(scope="module")
def resources(template: Path) -> dict[str, Any]:
    """The resources of the template."""
    return json.loads(template.read_text())["Resources"]


@pytest.fixture(scope="module")
def archive(package: Path) -> dict[str, zipfile.ZipInfo]:
    """The files that a function finds under /var/task."""
    with zipfile.ZipFile(package / "firsttoken.zip") as file:
        return {info.filename: info for info in file.infolist()}


def _properties(resources: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource["Properties"] for resource in resources.values() if resource["Type"] == kind]


def _statements(resources: dict[str, Any], role: str) -> list[dict[str, Any]]:
    policies = resources[role]["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def test_template_is_valid(template: Path) -> None:
    """CloudFormation's own rules find nothing, but for a needless DependsOn that osls writes (W3005)."""
    command = [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", "W3005", "--", template]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(resources: dict[str, Any], archive: dict[str, zipfile.ZipInfo], name: str) -> None:
    """Each function runs on Python 3.13 on arm64, and its handler is in the package."""
    function = resources[f"{name}LambdaFunction"]["Properties"]
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["arm64"]
    assert function["Timeout"] == FUNCTIONS[name]
    assert function["MemorySize"] == 1024
    assert function["Handler"].rpartition(".")[0].replace(".", "/") + ".py" in archive


def test_functions_find_the_core_first(resources: dict[str, Any]) -> None:
    """Python looks into the core and the staged packages before Lambda's own folder."""
    for function in _properties(resources, "AWS::Lambda::Function"):
        path = function["Environment"]["Variables"]["PYTHONPATH"].split(":")
        assert path == ["/var/task/shared", "/var/task/dist/aws", "/var/task", "/var/runtime"]


def test_deployed_functions_know_the_keys(resources: dict[str, Any]) -> None:
    """The keys named at deployment reach the function that asks for them."""
    variables = resources["ChatLambdaFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["FIRSTTOKEN_KEYS"] == "acme:" + "0" * 64


def test_chat_streams(resources: dict[str, Any]) -> None:
    """The chat function answers through a streaming Function URL."""
    (url,) = _properties(resources, "AWS::Lambda::Url")
    assert url["InvokeMode"] == "RESPONSE_STREAM"
    assert url["TargetFunctionArn"] == {"Fn::GetAtt": ["ChatLambdaFunction", "Arn"]}


def test_chat_runs_our_runtime(resources: dict[str, Any], archive: dict[str, zipfile.ZipInfo]) -> None:
    """Only chat runs on our streaming runtime, and the program that starts it can be executed there."""
    wrappers = {
        function["Handler"]: function["Environment"]["Variables"].get("AWS_LAMBDA_EXEC_WRAPPER")
        for function in _properties(resources, "AWS::Lambda::Function")
    }
    wrapper = wrappers.pop("functions.aws.chat.app")
    assert wrapper.startswith("/var/task/")
    assert archive[wrapper.removeprefix("/var/task/")].external_attr >> 16 & 0o100
    assert set(wrappers.values()) == {None}


def test_public_url_has_both_permissions(resources: dict[str, Any]) -> None:
    """A public Function URL needs two permissions; with one it answers 403."""
    public = [p for p in _properties(resources, "AWS::Lambda::Permission") if p["Principal"] == "*"]
    assert {p["Action"] for p in public} == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    (invoke,) = [p for p in public if p["Action"] == "lambda:InvokeFunction"]
    assert invoke["InvokedViaFunctionUrl"] is True


def test_recover_reports_each_message(resources: dict[str, Any]) -> None:
    """A failed message returns to the queue alone, not with its batch."""
    (mapping,) = _properties(resources, "AWS::Lambda::EventSourceMapping")
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["RecoverQueue", "Arn"]}


def test_queue_outlasts_its_function(resources: dict[str, Any]) -> None:
    """A message stays hidden for six times the function's timeout, and is kept when it keeps failing."""
    queue = resources["RecoverQueue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * FUNCTIONS["Recover"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5
    dead = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
    assert resources[dead]["Properties"]["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_role_allows_only_what_is_needed(resources: dict[str, Any], name: str) -> None:
    """A function writes its own log and uses the table; `chat` may send, `recover` take too; that is all."""
    assert resources[f"{name}LambdaFunction"]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    allowed = {
        (action, statement["Resource"]["Fn::GetAtt"][0])
        for statement in _statements(resources, f"{name}Role")
        for action in statement["Action"]
    }
    table = ("GetItem", "BatchGetItem", "PutItem", "UpdateItem", "DeleteItem")
    expected = {(action, f"{name}LogGroup") for action in ("logs:CreateLogStream", "logs:PutLogEvents")}
    expected |= {(f"dynamodb:{action}", "Table") for action in table}
    if name != "Scheduled":
        expected.add(("sqs:SendMessage", "RecoverQueue"))
    if name == "Recover":
        taking = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "ChangeMessageVisibility")
        expected |= {(f"sqs:{action}", "RecoverQueue") for action in taking}
        expected.add(("sqs:SendMessage", "RecoverDeadLetterQueue"))
    assert allowed == expected


def test_functions_share_store_and_queue(resources: dict[str, Any], tmp_path: Path) -> None:
    """Every function's environment gives settings with the table, the queue and its dead letters."""
    references = {
        "Table": "firsttoken",
        "RecoverQueue": "https://sqs.eu-west-1.amazonaws.com/1/jobs",
        "RecoverDeadLetterQueue": "https://sqs.eu-west-1.amazonaws.com/1/dead",
    }
    (tmp_path / "firsttoken.toml").touch()
    for function in _properties(resources, "AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        environ = {
            name: references[value["Ref"]] if isinstance(value, dict) else value
            for name, value in variables.items()
        }
        settings = config.load(tmp_path / "firsttoken.toml", environ)
        assert settings.store == DynamodbStore(table="firsttoken")
        assert settings.queue == SqsQueue(
            url=references["RecoverQueue"], dead_url=references["RecoverDeadLetterQueue"]
        )


def test_table_is_what_the_store_expects(resources: dict[str, Any]) -> None:
    """One string key ``pk``, and DynamoDB deletes what has expired."""
    table = resources["Table"]["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


def test_stage_decides_how_long_logs_stay(resources: dict[str, Any]) -> None:
    """Production keeps its logs for 90 days."""
    assert {group["RetentionInDays"] for group in _properties(resources, "AWS::Logs::LogGroup")} == {90}


def test_archive_is_lean(archive: dict[str, zipfile.ZipInfo]) -> None:
    """A function is deployed with the core and its entrypoints; emulators, tests and caches stay behind."""
    folders = {"/".join(name.split("/")[:2]) for name in archive}
    assert folders <= {"shared/firsttoken", "functions/aws", "dist/aws", "firsttoken.toml"}
    assert not [name for name in archive if "__pycache__" in name or "/emulators/" in name]
