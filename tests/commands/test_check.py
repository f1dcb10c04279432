"""``firsttoken check``: what it reads, what it prints, and how it ends."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import sys
from pathlib import Path

import pytest
from commands.checked import FILES, NOW, checked, written

from firsttoken.cli import main
from firsttoken.commands.check_project import read
from firsttoken.commands.check_rules import RULES

ROOT = Path(__file__).parents[2]
SINGLE = """
[models.m]
target = "o/gpt"
[providers.o]
kind = "openai"
base_url = "https://api.openai.com/v1"
"""
SILENT = FILES | {"firsttoken.toml": FILES["firsttoken.toml"].replace("log = true", "log = false")}
DRAWN = base64.b64encode(hashlib.sha512(b"made up").digest() * 2).decode()
LETTERS = DRAWN.replace("+", "a").replace("/", "b")


def drawn(alphabet: str, length: int) -> str:
    """A text that is the same each time, as a key would be drawn."""
    return "".join(random.Random(7).choices(alphabet, k=length))


@pytest.mark.parametrize(
    ("files", "options", "status"),
    [
        (FILES, [], 0),
        (FILES, ["--strict", "--max-age", "1e9"], 0),
        (SILENT, [], 0),
        (SILENT, ["--strict"], 1),
        ({"firsttoken.toml": SINGLE}, [], 1),
    ],
)  # fmt: skip
def test_the_worst_decides(
    files: dict[str, str], options: list[str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure ends with 1, a warning only where that is asked for."""
    assert main(["check", str(written(tmp_path, files)), *options]) == status
    assert capsys.readouterr().out


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a wrong argument, not a bad project."""
    assert main(["check", "absent"]) == 2
    assert "absent: there is no such folder" in capsys.readouterr().err


def test_the_table_names_rule_evidence_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a rule, its evidence with the place, below it what to do, and at the end how many of each."""
    main(["check", str(written(tmp_path, {"firsttoken.toml": SINGLE}))])
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if "failover.targets" in line)
    assert lines[at].startswith("fail ")
    assert "firsttoken.toml:2 models.m has one target, o/gpt" in lines[at]
    assert lines[at + 1].lstrip().startswith("-> [models.m] targets")
    assert "1 fail" in lines[-1]


def test_json_has_a_row_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the same, with nothing shortened."""
    main(["check", str(written(tmp_path, FILES)), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {tuple(row) for row in rows} == {("rule", "title", "status", "evidence", "fix")}
    assert len(rows) == 32


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    """Nothing is said about settings that nobody knows, and the rest is still checked."""
    found = checked(written(tmp_path, FILES | {"firsttoken.toml": "[models"}))
    assert found["config.valid"].status == "fail"
    assert str(tmp_path) not in found["config.valid"].evidence[0]
    assert found["cache.exact"].status == "not checked"
    assert found["stream.on"].status == "pass"


def test_an_empty_folder(tmp_path: Path) -> None:
    """Where nothing is, nothing fails."""
    assert not [one for one in checked(tmp_path).values() if one.status == "fail"]


def test_variables_of_this_machine_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of a project is the same wherever it is said."""
    monkeypatch.setenv("FIRSTTOKEN_AUTH", "off")
    monkeypatch.setenv("FIRSTTOKEN_NOPE", "1")
    assert checked(written(tmp_path, FILES))["auth.on"].status == "pass"


def test_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be parsed is not judged, and it says what is missing."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    found = checked(written(tmp_path, FILES))
    assert found["queue.hidden"].status == "not checked"
    assert "needs PyYAML" in found["queue.hidden"].evidence[0]
    assert found["store.shared"].status == "pass"


@pytest.mark.parametrize(
    "text", ["a: [", "[]", "functions: 3", "resources: [{Resources: [1]}]", "a: &a [*a]"]
)
def test_odd_files_are_no_accident(text: str, tmp_path: Path) -> None:
    """A serverless.yml of another shape than expected is said to be unreadable, or has nothing to find."""
    checked(written(tmp_path, FILES | {"serverless.yml": text}))


SAM = """
Resources:
  Chat:
    Type: AWS::Serverless::Function
    Properties:
      Timeout: 100
      Environment: { Variables: { AWS_LAMBDA_EXEC_WRAPPER: /var/task/bootstrap } }
      FunctionUrlConfig: { AuthType: NONE, InvokeMode: RESPONSE_STREAM }
      Events:
        Jobs: { Type: SQS, Properties: { Queue: !GetAtt Jobs.Arn } }
  Jobs: { Type: AWS::SQS::Queue, Properties: { VisibilityTimeout: 599 } }
  ChatLog: { Type: AWS::Logs::LogGroup, Properties: { RetentionInDays: 30 } }
"""
CLOUDFORMATION = """
Resources:
  Chat: { Type: AWS::Lambda::Function, Properties: { Timeout: 10, PackageType: Image } }
  Url: { Type: AWS::Lambda::Url, Properties: { TargetFunctionArn: !Ref Chat, InvokeMode: BUFFERED } }
  Source:
    Type: AWS::Lambda::EventSourceMapping
    Properties: { FunctionName: !Ref Chat, EventSourceArn: !GetAtt Jobs.Arn }
  Jobs:
    Type: AWS::SQS::Queue
    Properties: { RedrivePolicy: { deadLetterTargetArn: { 'Fn::GetAtt': [Dead, Arn] } } }
  Dead: { Type: AWS::SQS::Queue }
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SAM, {"stream.on": "pass", "queue.hidden": "fail", "queue.redrive": "fail",
               "watch.retention": "pass", "failover.regions": "not checked"}),
        (CLOUDFORMATION, {"stream.on": "fail", "queue.hidden": "fail", "queue.redrive": "pass",
                          "watch.retention": "warn"}),
    ],
)  # fmt: skip
def test_templates_of_cloudformation(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    """They are read as serverless.yml is, those of SAM too."""
    found = checked(written(tmp_path, {"template.yaml": text}))
    assert {rule: found[rule].status for rule in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        f"sk-ant-api03-{LETTERS[:60]}",
        f"AKIA{drawn(string.ascii_uppercase + string.digits, 16)}",
        f'aws_secret_access_key = "{LETTERS[:40]}"',
        f"AIza{LETTERS[:35]}",
        f"DefaultEndpointsProtocol=https;AccountKey={DRAWN[:86]}==;",
        f"-----BEGIN PRIVATE KEY-----\n{DRAWN[:64]}",
        f"ghp_{LETTERS[:36]}",
        f"whsec_{LETTERS[:40]}",
        f"ft-{LETTERS[:43]}",
    ],
)
def test_keys_are_found_and_not_shown(text: str, tmp_path: Path) -> None:
    """What looks like a key is a failure, with its place and its kind, and without itself."""
    found = checked(written(tmp_path, {"a/notes.txt": f"one\n{text}\n"}))["secrets.files"]
    assert found.status == "fail"
    assert found.evidence[0].startswith("a/notes.txt:2 looks like a")
    assert LETTERS[:12] not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefghijklmnopqrstuvwxyz123456",
        "AKIAIOSFODNN7EXAMPLE",
        "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
        "ft-foundry-advanced-intelligence-optimized-for",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    ],
)
def test_made_up_keys_are_left_alone(text: str, tmp_path: Path) -> None:
    """Examples of documents, and those of emulators that everybody knows, are no secrets."""
    assert checked(written(tmp_path, {"notes.txt": text}))["secrets.files"].status == "pass"


@pytest.mark.parametrize(
    ("setting", "status"),
    [
        ('[store]\nkind = "redis"\nurl = "redis://:pw@host/0"', "fail"),
        ('[store]\nkind = "redis"\nurl = "redis://host/0"', "pass"),
        ('[store]\nkind = "tables"\nconnection = "AccountName=a;AccountKey=b"', "fail"),
        ('[webhook]\nsecret = "whsec_x"', "fail"),
        ('[providers.o.headers]\nAuthorization = "Bearer x"', "fail"),
        ('[providers.o.headers]\nx-team = "blue"', "pass"),
    ],
)
def test_secrets_in_settings(setting: str, status: str, tmp_path: Path) -> None:
    """Passwords of addresses, connection strings and headers count; addresses and names do not."""
    found = checked(written(tmp_path, {"firsttoken.toml": SINGLE + setting}))
    assert found["secrets.settings"].status == status


def test_what_git_ignores_is_not_read(tmp_path: Path) -> None:
    """Files of one machine are none of the project's; names at the top count there only."""
    ignored = "# local\n.env\n*.pem\n/out/\ndocs/a.md\n!b\n"
    names = [".env", "x.pem", "out/a", "sub/out/b", "docs/a.md", "node_modules/c", ".venv/d"]
    found = read(written(tmp_path, dict.fromkeys(names, "") | {".gitignore": ignored}), NOW).files
    assert found == (".gitignore", "docs/a.md", "sub/out/b")


def test_many_files(tmp_path: Path) -> None:
    """A folder without end is not read to its end, and the rule that wants all files says so."""
    for number in range(5_002):
        (tmp_path / f"{number}.txt").touch()
    found = checked(tmp_path)["secrets.files"]
    assert found.status == "not checked"
    assert "5,000 files" in found.evidence[0]


def test_evidence_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name cannot write to the terminal."""
    written(tmp_path, {"prompts/\x1b[2J\n.md": "{{ now }}" + "x" * 5000})
    main(["check", str(tmp_path)])
    assert "\x1b" not in capsys.readouterr().out


def test_the_page_has_every_rule() -> None:
    """Whoever sees a rule's id finds it explained."""
    page = (ROOT / "docs" / "check.md").read_text("utf-8")
    assert [rule.id for rule in RULES if f"| `{rule.id}` |" not in page] == []


def test_this_repository() -> None:
    """Nothing that fails is in what everybody starts from."""
    found = checked(ROOT)
    assert {rule: one.evidence for rule, one in found.items() if one.status == "fail"} == {}
    assert found["stream.on"].status == "pass"


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_a_generated_project(cloud: str, tmp_path: Path) -> None:
    """A project as it comes out of its template fails in nothing, and its infrastructure passes."""
    assert main(["new", cloud, "--defaults", "--out", str(tmp_path)]) == 0
    found = checked(next(tmp_path.iterdir()))
    assert {rule: one.evidence for rule, one in found.items() if one.status == "fail"} == {}
    for rule in ("config.valid", "stream.on", "failover.regions", "queue.redrive", "watch.alarms", "auth.on"):
        assert found[rule].status == "pass", found[rule]
