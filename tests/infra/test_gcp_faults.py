"""Mistakes that people make in Google's files, each put into the real ones and each found by name."""

import json
import shutil
from pathlib import Path

import pytest
from infra import gcp_checks, gcp_schema
from infra.gcp_deployment import Deployment

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests" / "data" / "google_schema.json").read_text())

FAULTS = {
    # What the provider and Cloud Run do not accept.
    "misspelt argument": (
        "schema",
        "queue.tf",
        "ack_deadline_seconds       = 600",
        "ack_deadline_secs = 600",
    ),
    "misspelt block": ("schema", "queue.tf", "dead_letter_policy {", "deadletter_policy {"),
    "misspelt dynamic block": ("schema", "services.tf", 'dynamic "readiness_probe"', 'dynamic "ready_probe"'),
    "argument for block": ("schema", "queue.tf", "  retry_policy {", "  retry_policy = {"),
    "wrong type": ("schema", "queue.tf", "max_delivery_attempts = 20", 'max_delivery_attempts = "many"'),
    "text for list": (
        "schema",
        "monitoring.tf",
        '= ["resource.label.location"]',
        '= "resource.label.location"',
    ),
    "unknown value": ("schema", "services.tf", '"PRIVATE_RANGES_ONLY"', '"PRIVATE"'),
    "missing argument": (
        "schema",
        "frontend.tf",
        "  url_map          = google_compute_url_map.this.id\n",
        "",
    ),
    "block twice": ("schema", "queue.tf", "  retry_policy {", "  retry_policy {\n  }\n  retry_policy {"),
    "computed argument": ("schema", "queue.tf", "  topic ", '  id = "a"\n  effective_labels = {}\n  topic '),
    "unknown resource": (
        "schema",
        "frontend.tf",
        '"google_compute_url_map" "this"',
        '"google_compute_urls" "this"',
    ),
    "undeclared variable": ("references", "outputs.tf", "var.domain", "var.host"),
    "undeclared local": ("references", "access.tf", "each = local.roles", "each = local.role"),
    "undeclared resource": (
        "references",
        "queue.tf",
        "google_pubsub_topic.dead.id",
        "google_pubsub_topic.gone.id",
    ),
    "unknown attribute": ("references", "queue.tf", '"].uri', '"].url'),
    "unused variable": ("references", "variables.tf", 'variable "vertex"', 'variable "gemini"'),
    "unbound name": ("references", "access.tf", "each.value.role]", "row.value.role]"),
    "misspelt field": ("service", "service.yaml", "containerConcurrency: 80", "containerConcurency: 80"),
    "text for number": ("service", "service.yaml", "timeoutSeconds: 300 #", "timeoutSeconds: 300s #"),
    "unknown annotation": ("service", "service.yaml", "/invoker-iam-disabled:", "/invoker-disabled:"),
    "placeholder without value": ("service", "service.yaml", "image: ${image}", "image: ${picture}"),
    # What the project needs.
    "one region": ("regions_are_two", "variables.tf", '["europe-west1", "europe-west4"]', '["europe-west1"]'),
    "no check of regions": ("regions_are_two", "variables.tf", "length(distinct(var.regions)) >= 2 &&", ""),
    "backend of one region": (
        "regions_are_two",
        "frontend.tf",
        "each = toset(var.regions)\n    c",
        'each = ["a"]\n    c',
    ),
    "other topic": ("names_agree", "queue.tf", '"${var.name}-jobs"\n\n', '"${var.name}-calls"\n\n'),
    "other bucket": ("names_agree", "store.tf", '"${var.project}-${var.name}"', '"${var.name}-objects"'),
    "shared account": ("names_agree", "service.yaml", "${name}-recover@", "${name}-chat@"),
    "messages anywhere": ("residency_is_followed", "queue.tf", "message_storage_policy", "labels"),
    "store of one instance": (
        "state_is_shared",
        "service.yaml",
        "__KIND, value: redis",
        "__KIND, value: memory",
    ),
    "no dead letters": ("queue_has_dead_letters", "queue.tf", "  dead_letter_policy {", "  labels = {"),
    "dead letters lost": (
        "queue_has_dead_letters",
        "queue.tf",
        "topic                      = google_pubsub_topic.dead.id",
        "topic                      = google_pubsub_topic.jobs.id",
    ),
    "dead letters refused": (
        "queue_has_dead_letters",
        "access.tf",
        "google_pubsub_subscription.jobs.name",
        '"jobs"',
    ),
    "deadline before timeout": ("queue_outlasts_function", "queue.tf", "= 600 #", "= 300 #"),
    "timeout before deadline": (
        "queue_outlasts_function",
        "service.yaml",
        "timeoutSeconds: 600",
        "timeoutSeconds: 60",
    ),
    "queue expires": ("queue_is_kept", "queue.tf", 'ttl = "" #', 'ttl = "2678400s" #'),
    "no backoff": ("queue_is_kept", "queue.tf", '    maximum_backoff = "600s"\n', ""),
    "workers without bound": ("workers_leave_room", "service.yaml", "maxScale: '3'", "maxScale: '100'"),
    "one stream an instance": (
        "answers_stream",
        "service.yaml",
        "containerConcurrency: 80",
        "containerConcurrency: 1",
    ),
    "held back by a CDN": (
        "answers_stream",
        "frontend.tf",
        '  protocol              = "HTTPS"',
        "  enable_cdn = true",
    ),
    "app misses its timeout": (
        "answers_stream",
        "service.yaml",
        "_SECONDS, value: '300' } #",
        "_SECONDS, value: '60' } #",
    ),
    "no readiness": ("health_is_asked", "service.yaml", "readinessProbe:", "livenessProbe:"),
    "readiness of the process": ("health_is_asked", "service.yaml", "path: /readyz", "path: /healthz"),
    "no warm instance": ("health_is_asked", "service.yaml", "minScale: '1'", "minScale: '0'"),
    "HTTP": ("traffic_is_encrypted", "frontend.tf", '"443"', '"80"'),
    "old TLS": ("traffic_is_encrypted", "frontend.tf", '"TLS_1_2"', '"TLS_1_0"'),
    "open worker": ("calls_are_signed", "service.yaml", "ingress: internal #", "ingress: all #"),
    "past the load balancer": (
        "calls_are_signed",
        "service.yaml",
        "internal-and-cloud-load-balancing",
        "all",
    ),
    "no API keys": ("calls_are_signed", "service.yaml", "FIRSTTOKEN_KEYS", "KEYS"),
    "unsigned push": ("calls_are_signed", "queue.tf", "oidc_token {", "no_wrapper {"),
    "editor": ("roles_are_narrow", "access.tf", '"roles/pubsub.publisher"', '"roles/editor"'),
    "wildcard": ("roles_are_narrow", "access.tf", '"roles/run.invoker"', '"roles/run.*"'),
    "public secret": (
        "roles_are_narrow",
        "access.tf",
        "google_service_account.service[each.value.role].member",
        '"allUsers"',
    ),
    "whole project": (
        "roles_are_narrow",
        "access.tf",
        'resource "google_storage_bucket_iam_member" "objects"',
        'resource "google_project_iam_member" "objects"',
    ),
    "secret as text": (
        "secrets_are_kept",
        "service.yaml",
        "valueFrom: { secretKeyRef: { name: '${name}-upstream-key', key: latest } }",
        "value: sk-abc",
    ),
    "secret in Terraform": (
        "secrets_are_kept",
        "store.tf",
        'resource "google_storage_bucket" "objects" {',
        """
resource "google_secret_manager_secret_version" "key" {
  secret      = "key"
  secret_data = "sk-abc"
}

resource "google_storage_bucket" "objects" {""",
    ),
    "no alert of dead letters": (
        "dead_letters_are_told",
        "monitoring.tf",
        "num_undelivered_messages",
        "byte_cost",
    ),
    "no alert of waiting": (
        "waiting_is_told",
        "monitoring.tf",
        "oldest_unacked_message_age",
        "push_request_count",
    ),
    "no alert of errors": ("errors_are_told", "monitoring.tf", '\\"5xx\\"', '\\"2xx\\"'),
    "no alert of slowness": (
        "slowness_is_told",
        "monitoring.tf",
        "REDUCE_PERCENTILE_99",
        "REDUCE_PERCENTILE_50",
    ),
    "alerts to nobody": (
        "alarms_reach_somebody",
        "monitoring.tf",
        "  notification_channels = local.channels\n",
        "",
    ),
    "logs without end": ("logs_end", "monitoring.tf", "  retention_days = var.log_days\n", ""),
    "logs elsewhere": (
        "logs_end",
        "monitoring.tf",
        "google_logging_project_bucket_config.services.id",
        "var.name",
    ),
    "objects without end": ("objects_end", "store.tf", 'type = "Delete"', 'type = "SetStorageClass"'),
    "objects gone early": ("objects_end", "store.tf", "age            = 31", "age            = 2"),
    "public bucket": ("objects_end", "store.tf", '"enforced"', '"inherited"'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A mistake in the real files breaks the rule that is about it."""
    rule, file, old, new = FAULTS[fault]
    shutil.copytree(ROOT / "functions" / "gcp", tmp_path / "gcp", ignore=shutil.ignore_patterns(".terraform"))
    path = tmp_path / "gcp" / ("" if file == "service.yaml" else "terraform") / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    deployment = Deployment(tmp_path / "gcp")
    assert rule in {**gcp_checks.findings(deployment), **gcp_schema.findings(deployment, SCHEMA)}


def test_every_rule_is_tried() -> None:
    """No rule is without a mistake that it must find."""
    assert {rule.__name__ for rule in gcp_checks.RULES} <= {rule for rule, *_ in FAULTS.values()}
