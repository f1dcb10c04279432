"""The rules of ``firsttoken check``: one project meets them all, and each fault in it is seen by its rule."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from commands.checked import FILES, checked, written

from firsttoken.commands.check_rules import RULES

KEY = "sk-proj-" + hashlib.sha256(b"made up").hexdigest()
TOML, AWS, TF = "firsttoken.toml", "serverless.yml", "functions/gcp/terraform/main.tf"
BICEP, SERVICE = "functions/azure/infra/main.bicep", "functions/gcp/service.yaml"
QUEUE = "[queue]\nkind = 'sqs'\nurl = 'http://h/q'\n[store]\nkind = 'redis'\n"
RESULT = "benchmarks/results/load.json"
BOTH = '"one/eu.amazon.nova-lite", "two/eu.amazon.nova-lite"'
FAULTS = [
    # rule, file, what stands there, what is put there, what the rule says, part of its evidence
    ("config.valid", TOML, "attempts = 3", 'attempts = "x"', "fail", "retry.attempts"),
    ("models.real", TOML, 'kind = "bedrock"\nregion = "eu-west-1"\napi_key = "env:BEDROCK_KEY"',
     'kind = "simulated"', "warn", "firsttoken.toml:2"),
    ("models.real", TOML, 'kind = "bedrock"\nregion = "eu-west-1"\napi_key = "env:BEDROCK_KEY"',
     'kind = "simulated"\nfaults = true', "fail", "faults"),
    ("models.measured", "benchmarks/results/models.json", "models", "others", "warn", "was not compared"),
    ("models.measured", "benchmarks/results/models.json", "amazon.nova-lite", "a", "warn", "does not have"),
    ("models.measured", "benchmarks/results/models.json", ', "quality": 0.9', "", "warn", "quality"),
    ("stream.on", AWS, "RESPONSE_STREAM", "BUFFERED", "fail", "serverless.yml:17 chat: invoke mode BUFFERED"),
    ("stream.on", AWS, "AWS_LAMBDA_EXEC_WRAPPER", "OTHER", "fail", "Lambda's own runtime"),
    ("stream.on", AWS, "    url: { invokeMode: RESPONSE_STREAM }", "    events: [{ httpApi: '*' }]",
     "fail", "buffers"),
    ("stream.on", "functions/gcp/main.py", "AsgiResponse", "Response", "fail", "gcp"),
    ("cache.exact", TOML, '[cache]\nmode = "on"\n\n[semantic]\nmode = "shadow"', "", "warn",
     "nobody decided"),
    ("cache.semantic", TOML, '[semantic]\nmode = "shadow"', "", "warn", "nobody decided"),
    ("cache.semantic", TOML, 'mode = "shadow"', 'mode = "on"', "warn", "nobody judges"),
    ("cache.prefix", TOML, "markers = true", "markers = false", "warn", "firsttoken.toml:37"),
    ("cache.prefix", TOML, "degrade =", "sticky = false\ndegrade =", "warn", "firsttoken.toml:4"),
    ("prompts.stable", "prompts/system.md", "You", "It is {{ now }}. " + "You" * 2000, "warn",
     "system.md:1 now"),
    ("limits.known", TOML, "rpm = 500", "", "warn", "one/eu.amazon.nova-lite"),
    ("limits.kept", TOML, "[limit]\nenabled = true", "[limit]\nenabled = false", "warn", "limit.enabled"),
    ("retry.on", TOML, "attempts = 3", "attempts = 1", "warn", "firsttoken.toml:27"),
    ("retry.on", TOML, "budget = 10", "budget = 0", "warn", "budget"),
    ("breaker.on", TOML, "[breaker]\nenabled = true", "[breaker]\nenabled = false", "warn",
     "breaker.enabled"),
    ("failover.targets", TOML, f"targets = [{BOTH}]", 'target = "one/eu.amazon.nova-lite"', "warn",
     "one target"),
    ("failover.targets", TOML, 'region = "eu-west-1"', 'region = "eu-central-1"', "warn", "in one place"),
    ("failover.ladder", TOML, 'degrade = [{ text = "Later, please." }]', "", "warn", "an error"),
    ("failover.regions", AWS, "    eu-west-1: { partner: eu-central-1 }\n", "", "warn", "only eu-central-1"),
    ("failover.regions", TF, ', "europe-west4"', "", "warn", "only europe-west1"),
    ("failover.regions", BICEP, "@minLength(2)\n", "", "not checked", "locations"),
    ("queue.shared", BICEP, "storage_queue", "memory", "fail", "azure"),
    ("queue.worker", "functions/gcp/main.py", "answer_message", "nothing", "fail", "gcp"),
    ("queue.dead", AWS, "    FIRSTTOKEN_QUEUE__DEAD_URL: !Ref Dead\n", "", "fail",
     "queue.dead_url is not set"),
    ("queue.dead", SERVICE, "FIRSTTOKEN_QUEUE__DEAD_TOPIC", "OTHER", "fail", "queue.dead_topic is not set"),
    ("queue.redrive", "functions/aws/state.yml", "RedrivePolicy", "Other", "fail", "Jobs: no RedrivePolicy"),
    ("queue.redrive", TF, "dead_letter_policy", "other", "fail", "main.tf:6"),
    ("queue.redrive", "functions/azure/host.json", "maxDequeueCount", "other", "warn", "maxDequeueCount"),
    ("queue.hidden", "functions/aws/state.yml", "1800", "60", "fail", "VisibilityTimeout 60"),
    ("queue.hidden", "functions/aws/state.yml", "1800", "${param:hidden}", "not checked", "when deploying"),
    ("store.shared", AWS, "dynamodb", "sqlite", "fail", "serverless.yml:12"),
    ("store.shared", SERVICE, "FIRSTTOKEN_STORE__KIND", "OTHER", "warn",
     "gcp: store.kind = 'memory' by default"),
    ("secrets.settings", TOML, "env:BEDROCK_KEY", "abc", "fail", "firsttoken.toml:13 providers.two.api_key"),
    ("secrets.files", "tests/test_events.py", "EVENTS", f"KEY = '{KEY}'\nEVENTS", "fail", "test_events.py:1"),
    ("auth.on", TOML, 'mode = "auto"', 'mode = "off"', "fail", "anybody may call"),
    ("auth.on", SERVICE, "FIRSTTOKEN_KEYS", "OTHER", "warn", "gcp: no key"),
    ("auth.on", "functions/aws/chat.py", "deployed=True", "deployed=False", "fail",
     "functions/aws/chat.py:4"),
    ("rights.narrow", AWS, "sqs:SendMessage", "sqs:*", "fail", "sqs:*"),
    ("rights.narrow", TF, "roles/aiplatform.user", "roles/editor", "fail", "main.tf:14"),
    ("rights.narrow", BICEP, "00000000-0000-0000-0000-000000000000",
     "b24988ac-6180-42a0-ab88-20f7382dd24c", "fail", "main.bicep"),
    ("watch.log", TOML, "log = true", "log = false", "warn", "firsttoken.toml:40"),
    ("watch.probe", "functions/azure/function_app.py", "on_schedule", "nothing", "warn", "azure"),
    ("watch.alarms", AWS, "MetricName: Duration", "MetricName: Other", "warn", "latency"),
    ("watch.alarms", AWS, "AlarmActions: [!Ref Topic]", "AlarmActions: []", "warn",
     "errors, latency, dead letters"),
    ("watch.alarms", TF, "num_undelivered_messages", "other", "warn", "dead letters"),
    ("watch.alarms", BICEP, "Microsoft.Insights/metricAlerts", "Other/other", "warn", "azure"),
    ("watch.retention", AWS, "  logRetentionInDays: 30\n", "", "warn", "for ever"),
    ("watch.retention", TF, "retention_days", "other", "warn", "gcp"),
    ("watch.retention", BICEP, "retentionInDays", "other", "warn", "azure"),
    ("load.tested", RESULT, "2027-01-10", "2026-01-10", "warn", "2026-01-10 (its date)"),
    ("load.tested", RESULT, "true", "false", "fail", "missed its bars"),
    ("load.tested", RESULT, "requests", "others", "warn", "no result"),
    ("events.run", "events/gcp/chat.stream.json", "true", "false", "warn", "gcp"),
    ("events.run", "events/aws/chat.stream.json", "{", "", "fail", "not a JSON object"),
    ("events.run", "tests/test_events.py", "'events'", "''", "warn", "no test"),
    ("package.staged", "dist/azure/firsttoken-stage.json", "true", "false", "warn", "no bytecode"),
]  # fmt: skip
NEIGHBOURS = {
    # What a fault breaks besides, because it is the same thing that two rules are about.
    "models.real": {"failover.targets", "models.measured"},
    "cache.exact": {"cache.semantic"},
    "queue.worker": {"watch.probe"},
    "failover.targets": {"limits.known"},
    "stream.on": {"watch.alarms"},
}


def test_a_project_that_meets_every_rule(tmp_path: Path) -> None:
    """Each rule passes, with evidence."""
    found = checked(written(tmp_path, FILES))
    assert {
        rule: (one.status, one.evidence, one.fix) for rule, one in found.items() if one.status != "pass"
    } == {}
    assert all(one.evidence and not one.fix for one in found.values())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[5]}")
def test_a_fault_is_seen_by_its_rule(fault: tuple[str, ...], tmp_path: Path) -> None:
    """The rule says so with its status and its place, names a remedy, and no other rule minds."""
    rule, file, old, new, status, evidence = fault
    assert old in FILES[file]
    found = checked(written(tmp_path, FILES | {file: FILES[file].replace(old, new)}))
    assert found[rule].status == status
    assert evidence in " ".join(found[rule].evidence)
    assert found[rule].fix or status == "not checked"
    if rule != "config.valid":
        others = {one.rule for one in found.values() if one.status in ("warn", "fail")} - {rule}
        assert others <= NEIGHBOURS.get(rule, set())


def test_every_rule_has_a_fault() -> None:
    """No rule is without a project that does not meet it, and no id stands twice."""
    assert {rule.id for rule in RULES} == {fault[0] for fault in FAULTS}
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("changes", "rule", "status"),
    [
        ({"targets": 'target = "v/gemini"'}, "failover.targets", "pass"),
        ({"targets": 'target = "v/gemini"', '"eu"': '"europe-west1"'}, "failover.targets", "fail"),
        ({"targets": 'target = "v/gemini"'}, "limits.known", "warn"),
        ({"targets": 'target = "a/claude"'}, "limits.known", "pass"),
        ({"targets": 'target = "o/gpt"'}, "limits.known", "pass"),
        ({"targets": 'target = "l/llama"'}, "limits.known", "warn"),
        ({"targets": 'targets = ["o/gpt", "o/gpt-mini"]'}, "failover.targets", "warn"),
        ({"targets": 'targets = ["o/gpt", "a/claude"]'}, "failover.targets", "pass"),
        ({"targets": 'target = "o/gpt"\ndefer = "outage"', "#": QUEUE},
         "failover.ladder", "pass"),
    ],
)  # fmt: skip
def test_what_is_known_of_providers(changes: dict[str, str], rule: str, status: str, tmp_path: Path) -> None:
    """Multi-regions stand for two targets, two models of one address do not; some providers tell limits."""
    text = """
[models.m]
targets
[providers.v]
kind = "vertex"
project = "p"
location = "eu"
[providers.a]
kind = "anthropic"
[providers.o]
kind = "openai"
base_url = "https://api.openai.com/v1"
[providers.l]
kind = "openai"
base_url = "http://127.0.0.1:8000/v1"
#"""
    for old, new in changes.items():
        text = text.replace(old, new)
    assert checked(written(tmp_path, {"firsttoken.toml": text}))[rule].status == status


def test_results_are_as_old_as_their_file(tmp_path: Path) -> None:
    """A result that names no day, and no commit knows, is of the day of its file."""
    written(tmp_path, {RESULT: '{"rows": [{"also": {"requests": 1}}]}'})
    os.utime(tmp_path / RESULT, (1_700_000_000, 1_700_000_000))
    found = checked(tmp_path)["load.tested"]
    assert found.status == "warn"
    assert "2023-11-14 (the file's time)" in found.evidence[0]


def test_a_stage_is_not_older_than_its_sources(tmp_path: Path) -> None:
    """What was changed after it was staged is not what is deployed."""
    written(tmp_path, FILES)
    os.utime(tmp_path / "dist/aws/firsttoken-stage.json", (1, 1))
    assert "chat.py" in checked(tmp_path)["package.staged"].evidence[0]


def test_a_stage_has_a_limit(tmp_path: Path) -> None:
    """What the cloud would refuse is a failure."""
    written(tmp_path, FILES)
    with (tmp_path / "dist/aws/large.bin").open("wb") as file:
        file.truncate(300_000_000)
    assert checked(tmp_path)["package.staged"].status == "fail"
