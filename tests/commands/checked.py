"""A small project for three clouds that meets every rule of ``firsttoken check``."""

from __future__ import annotations

import json
from pathlib import Path

from firsttoken.commands.check_project import read
from firsttoken.commands.check_result import Result
from firsttoken.commands.check_rules import audit

NOW = 1_800_000_000.0
CONFIG = """# What is served.
[models.chat]
targets = ["one/eu.amazon.nova-lite", "two/eu.amazon.nova-lite"]
degrade = [{ text = "Later, please." }]

[providers.one]
kind = "bedrock"
region = "eu-central-1"

[providers.two]
kind = "bedrock"
region = "eu-west-1"
api_key = "env:BEDROCK_KEY"

[targets."one/eu.amazon.nova-lite"]
rpm = 500
[targets."two/eu.amazon.nova-lite"]
tpm = 100000

[cache]
mode = "on"

[semantic]
mode = "shadow"

[retry]
attempts = 3
budget = 10

[breaker]
enabled = true

[limit]
enabled = true

[prefix]
markers = true

[server]
log = true

[auth]
mode = "auto"
"""
SERVERLESS = """
service: demo
custom:
  regions:
    eu-central-1: { partner: eu-west-1 }
    eu-west-1: { partner: eu-central-1 }
provider:
  name: aws
  logRetentionInDays: 30
  environment:
    FIRSTTOKEN_KEYS: ${env:FIRSTTOKEN_KEYS}
    FIRSTTOKEN_STORE__KIND: dynamodb
    FIRSTTOKEN_QUEUE__KIND: sqs
    FIRSTTOKEN_QUEUE__URL: !Ref Jobs
    FIRSTTOKEN_QUEUE__DEAD_URL: !Ref Dead
functions:
  chat:
    timeout: 300
    environment: { AWS_LAMBDA_EXEC_WRAPPER: /var/task/functions/aws/bootstrap }
    url: { invokeMode: RESPONSE_STREAM }
  recover:
    timeout: 300
    events:
      - sqs: { arn: !GetAtt Jobs.Arn }
resources:
  - ${file(functions/aws/state.yml)}
  - Resources:
      Alarms:
        Type: AWS::CloudWatch::Alarm
        Properties:
          AlarmActions: [!Ref Topic]
          Metrics:
            - MetricStat: { Metric: { MetricName: Errors } }
            - MetricStat: { Metric: { MetricName: Duration } }
            - MetricStat: { Metric: { MetricName: ApproximateNumberOfMessagesVisible } }
      Role:
        Type: AWS::IAM::Role
        Properties:
          Policies:
            - PolicyDocument: { Statement: [{ Effect: Allow, Action: ['sqs:SendMessage'], Resource: '*' }] }
"""
STATE = """
Resources:
  Jobs:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 1800
      RedrivePolicy: { deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 20 }
  Dead: { Type: AWS::SQS::Queue, Properties: {} }
"""
SERVICE = """
env:
  - { name: FIRSTTOKEN_STORE__KIND, value: redis }
  - { name: FIRSTTOKEN_QUEUE__KIND, value: pubsub }
  - { name: FIRSTTOKEN_QUEUE__DEAD_TOPIC, value: 'projects/p/topics/dead' }
  - name: FIRSTTOKEN_KEYS
    valueFrom: { secretKeyRef: { name: keys, key: latest } }
"""
TERRAFORM = """
variable "regions" {
  type    = list(string)
  default = ["europe-west1", "europe-west4"]
}
resource "google_pubsub_subscription" "jobs" {
  push_config { push_endpoint = "${local.url}/" }
  dead_letter_policy { max_delivery_attempts = 20 }
}
resource "google_monitoring_alert_policy" "all" {
  conditions { filter = "num_undelivered_messages request_count request_latencies" }
}
resource "google_logging_project_bucket_config" "logs" { retention_days = 30 }
resource "google_project_iam_member" "chat" { role = "roles/aiplatform.user" }
"""
BICEP = """
@description('At least two.')
@minLength(2)
@maxLength(4)
param locations array
var settings = {
  FIRSTTOKEN_STORE__KIND: 'tables'
  FIRSTTOKEN_QUEUE__KIND: 'storage_queue'
  FIRSTTOKEN_KEYS: apiKeys
}
resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  properties: { retentionInDays: 30 }
}
resource alerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [for alert in metrics: { name: alert.name }]
var role = '00000000-0000-0000-0000-000000000000'
"""
ENTRYPOINT = """
from firsttoken.app import create_app

app = create_app(deployed=True)
answer = AsgiResponse(app)
answer_message(gateway)
on_schedule(gateway)
"""
MEASURED = {name: {"ttft": 0.3, "quality": 0.9} for name in ("bedrock/amazon.nova-lite", "bedrock/other")}
STREAMED = '{"body": "{\\"stream\\": true}"}'
STAGED = '{"bytecode": true}'
FILES = {
    "firsttoken.toml": CONFIG,
    "serverless.yml": SERVERLESS,
    "functions/aws/state.yml": STATE,
    "functions/aws/chat.py": ENTRYPOINT,
    "functions/gcp/main.py": ENTRYPOINT,
    "functions/gcp/service.yaml": SERVICE,
    "functions/gcp/terraform/main.tf": TERRAFORM,
    "functions/azure/function_app.py": ENTRYPOINT,
    "functions/azure/host.json": '{"extensions": {"queues": {"maxDequeueCount": 20}}}',
    "functions/azure/infra/main.bicep": BICEP,
    "events/aws/chat.stream.json": STREAMED,
    "events/gcp/chat.stream.json": STREAMED,
    "events/azure/chat.stream.json": STREAMED,
    "tests/test_events.py": "EVENTS = 'events'",
    "prompts/system.md": "You are kind.",
    "benchmarks/results/models.json": json.dumps({"models": MEASURED}),
    "benchmarks/results/load.json": '{"requests": 9000, "passed": true, "date": "2027-01-10"}',
    "dist/aws/firsttoken-stage.json": STAGED,
    "dist/gcp/firsttoken-stage.json": STAGED,
    "dist/azure/firsttoken-stage.json": STAGED,
}


def written(root: Path, files: dict[str, str]) -> Path:
    """The folder with files in it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def checked(root: Path) -> dict[str, Result]:
    """What came of each rule, by its id."""
    return {result.rule: result for result in audit(read(root, NOW))}
