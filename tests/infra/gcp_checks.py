"""Rules that a deployment to Google Cloud keeps, over its Terraform and Cloud Run's service.yaml.

A rule takes a `Deployment` and yields what breaks it, in words. `gcp_schema` knows what the provider accepts;
these know what the project needs. Nothing here imports the project: a copy works in any project.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from infra.gcp_deployment import VALUES, Deployment, annotations, block, known, number, spec, target

SECRET = re.compile(r"(KEY|KEYS|TOKEN|SECRET|PASSWORD|STORE__URL|CONNECTION)$")
BROAD = re.compile(r"^roles/(owner|editor|viewer)$|[aA]dmin|\*")
PUBLIC = ("allUsers", "allAuthenticatedUsers")
PROJECT_WIDE = {"roles/aiplatform.user"}  # what has no resource of its own to be granted on
KEPT = {"firsttoken/job-": 3600 + 86_400, "firsttoken/file-": 2_592_000}
"""Seconds that objects are needed, by the beginning of their names: jobs.expires + jobs.keep, batch.keep."""


def findings(deployment: Deployment) -> dict[str, list[str]]:
    """Every rule that is broken, and by what."""
    found = {rule.__name__: list(rule(deployment)) for rule in RULES}
    return {name: said for name, said in found.items() if said}


def regions_are_two(deployment: Deployment) -> Iterator[str]:
    """At least two regions by default, nothing less accepted, and everything regional in each."""
    variable = deployment.variables.get("regions", {})
    if len(set(variable.get("default", ()))) < 2:
        yield "var.regions: expected two regions or more by default"
    if "length(distinct(var.regions)) >= 2" not in str(variable.get("validation")):
        yield "var.regions: expected a validation that asks for two different ones"
    for type_name in ("google_compute_region_network_endpoint_group", "google_compute_subnetwork"):
        for name, body in deployment.all(type_name).items():
            if body.get("for_each") != "${toset(var.regions)}":
                yield f"{type_name}.{name}: expected one for each of var.regions"
    for name, body in deployment.all("google_compute_backend_service").items():
        backends = [row["backend"] for row in body.get("dynamic", ()) if "backend" in row]
        if not backends or "var.regions" not in str(backends[0].get("for_each")):
            yield f"google_compute_backend_service.{name}: expected a backend for each of var.regions"


def queue_has_dead_letters(deployment: Deployment) -> Iterator[str]:
    """What keeps failing goes where it is kept, and Pub/Sub may move it there."""
    subscriptions = deployment.all("google_pubsub_subscription")
    kept = {target(body.get("topic")) for body in subscriptions.values() if "push_config" not in body}
    members = str([body for (kind, _), body in deployment.resources.items() if kind.endswith("_iam_member")])
    for name, body in subscriptions.items():
        if "push_config" not in body:
            continue
        policy = block(body, "dead_letter_policy")
        topic = target(policy.get("dead_letter_topic"))
        if not topic:
            yield f"google_pubsub_subscription.{name}: expected a dead_letter_policy"
            continue
        if topic not in kept:
            yield f"google_pubsub_topic.{topic}: expected a pull subscription, or dead letters are lost"
        if not 5 <= number(policy.get("max_delivery_attempts"), 5) <= 100:
            yield f"google_pubsub_subscription.{name}: expected 5 to 100 max_delivery_attempts"
        for grant in (f"google_pubsub_topic.{topic}.name", f"google_pubsub_subscription.{name}.name"):
            if grant not in members:
                yield f"{grant}: expected a grant to Pub/Sub's own account"


def queue_outlasts_function(deployment: Deployment) -> Iterator[str]:
    """A push is not given up before the function that answers it, nor the other way round."""
    timeout = spec(deployment.services.get("recover", deployment.services["chat"]))["timeoutSeconds"]
    for name, body in deployment.all("google_pubsub_subscription").items():
        deadline = number(body.get("ack_deadline_seconds"), 10)
        if not 10 <= deadline <= 600:
            yield f"google_pubsub_subscription.{name}: expected an ack deadline of 10 to 600 s"
        if "push_config" in body and not deadline == timeout == 600:
            yield f"google_pubsub_subscription.{name}: expected 600 s as in recover: {deadline}, {timeout}"


def queue_is_kept(deployment: Deployment) -> Iterator[str]:
    """Subscriptions do not vanish when idle, and keep messages as long as Pub/Sub does."""
    for name, body in deployment.all("google_pubsub_subscription").items():
        if block(body, "expiration_policy").get("ttl") != "":
            yield f'google_pubsub_subscription.{name}: expected ttl "", or 31 idle days end it'
        if body.get("message_retention_duration") != "604800s":
            yield f"google_pubsub_subscription.{name}: expected messages to be kept for 7 days"
        if "push_config" in body and "maximum_backoff" not in block(body, "retry_policy"):
            yield f"google_pubsub_subscription.{name}: expected a retry_policy with backoff"


def names_agree(deployment: Deployment) -> Iterator[str]:
    """What service.yaml names, Terraform makes."""
    topics = {
        f"projects/{VALUES['project']}/topics/{known(body['name'])}"
        for body in deployment.all("google_pubsub_topic").values()
    }
    buckets = {known(body["name"]) for body in deployment.all("google_storage_bucket").values()}
    accounts = {known(body["account_id"]) for body in deployment.all("google_service_account").values()}
    made = {
        "FIRSTTOKEN_QUEUE__TOPIC": topics,
        "FIRSTTOKEN_QUEUE__DEAD_TOPIC": topics,
        "FIRSTTOKEN_OBJECTS__BUCKET": buckets,
    }
    for role, service in deployment.services.items():
        for name, value in deployment.environment(role).items():
            if value not in made.get(name, (value,)):
                yield f"{role}: {name} is {value}, which Terraform does not make"
        account = spec(service)["serviceAccountName"].partition("@")[0]
        if account != f"{VALUES['name']}-{role}" or f"{VALUES['name']}-${{each.value}}" not in accounts:
            yield f"{role}: expected a service account of its own, made by Terraform"
        network = json.loads(annotations(service)["run.googleapis.com/network-interfaces"])[0]
        networks = {known(body["name"]) for body in deployment.all("google_compute_network").values()}
        if network["network"] not in networks:
            yield f"{role}: expected the network that Terraform makes, found {network['network']}"


def answers_stream(deployment: Deployment) -> Iterator[str]:
    """Nothing holds streams back or cuts them early."""
    chat = deployment.services["chat"]
    if number(spec(chat).get("containerConcurrency"), 80) < 16:
        yield "chat: expected a containerConcurrency of 16 or more: streams mostly wait"
    for role, service in deployment.services.items():
        timeout = number(spec(service).get("timeoutSeconds"), 300)
        if timeout > 3600:
            yield f"{role}: Cloud Run allows 3600 s, found {timeout}"
        if deployment.environment(role).get("CLOUD_RUN_TIMEOUT_SECONDS") != str(timeout):
            yield f"{role}: expected CLOUD_RUN_TIMEOUT_SECONDS to be timeoutSeconds: only it tells the app"
        if annotations(service).get("run.googleapis.com/startup-cpu-boost") != "true":
            yield f"{role}: expected startup-cpu-boost, which shortens cold starts"
    for name, body in deployment.all("google_compute_backend_service").items():
        if body.get("enable_cdn") or body.get("compression_mode", "DISABLED") != "DISABLED":
            yield f"google_compute_backend_service.{name}: expected no CDN and no compression of streams"


def health_is_asked(deployment: Deployment) -> Iterator[str]:
    """The load balancer learns from the breakers which region can answer."""
    chat = deployment.services["chat"]
    probe = spec(chat)["containers"][0].get("readinessProbe", {})
    if probe.get("httpGet", {}).get("path") != "/readyz":
        yield "chat: expected a readinessProbe of /readyz, which knows the breakers"
    if number(annotations(chat).get("run.googleapis.com/minScale")) < 1:
        yield "chat: expected minScale 1 or more: a region without instances has no health"
    for name, body in deployment.all("google_compute_backend_service").items():
        if "health_checks" in body:
            yield f"google_compute_backend_service.{name}: serverless backends take no health_checks"


def workers_leave_room(deployment: Deployment) -> Iterator[str]:
    """A backlog cannot take the quota of those who wait."""
    for role, service in deployment.services.items():
        most = number(annotations(service).get("run.googleapis.com/maxScale"), 100)
        allowed = {"recover": 10, "scheduled": 1}.get(role, 100)
        if most > allowed:
            yield f"{role}: expected a maxScale of at most {allowed}, found {most}"


def calls_are_signed(deployment: Deployment) -> Iterator[str]:
    """Only chat, behind the load balancer, takes calls without a token of Google's."""
    for role, service in deployment.services.items():
        said = annotations(service)
        expected = "internal-and-cloud-load-balancing" if role == "chat" else "internal"
        if said.get("run.googleapis.com/ingress") != expected:
            yield f"{role}: expected the ingress {expected}"
        if role != "chat" and said.get("run.googleapis.com/invoker-iam-disabled") == "true":
            yield f"{role}: only chat may be called without a token of Google's"
    if "FIRSTTOKEN_KEYS" not in deployment.environment("chat"):
        yield "chat: expected FIRSTTOKEN_KEYS: it asks for API keys itself"
    if "FIRSTTOKEN_AUTH" in deployment.text:
        yield "service.yaml: expected FIRSTTOKEN_AUTH to be left alone: deployed, keys are asked for"
    callers = {
        **{f"google_pubsub_subscription.{k}": block(v, "push_config") for k, v in _pushing(deployment)},
        **{
            f"google_cloud_scheduler_job.{name}": block(body, "http_target")
            for name, body in deployment.all("google_cloud_scheduler_job").items()
        },
    }
    for name, body in callers.items():
        if not {"service_account_email", "audience"} <= block(body, "oidc_token").keys():
            yield f"{name}: expected an oidc_token with account and audience"


def _pushing(deployment: Deployment) -> list[tuple[str, dict[str, Any]]]:
    found = deployment.all("google_pubsub_subscription")
    return [(name, body) for name, body in found.items() if "push_config" in body]


def roles_are_narrow(deployment: Deployment) -> Iterator[str]:
    """Accounts get what they need, where they need it."""
    for (kind, name), body in deployment.resources.items():
        role = str(body.get("role", ""))
        if BROAD.search(role):
            yield f"{kind}.{name}: {role} is broader than any service needs"
        if any(word in str(body) for word in PUBLIC):
            yield f"{kind}.{name}: expected a named account, found the public"
        if kind.startswith("google_project_iam") and role not in PROJECT_WIDE:
            yield f"{kind}.{name}: expected {role} on a resource, not on the whole project"
        if kind.endswith(("_iam_policy", "_iam_binding")):
            yield f"{kind}.{name}: expected _iam_member, which takes nothing from others"


def secrets_are_kept(deployment: Deployment) -> Iterator[str]:
    """Secrets come from Secret Manager, and from no file."""
    for role in deployment.services:
        for name, value in deployment.environment(role).items():
            if SECRET.search(name) and not (isinstance(value, dict) and "secretKeyRef" in value):
                yield f"{role}: expected {name} from Secret Manager"
    for name, body in deployment.all("google_secret_manager_secret_version").items():
        if "google_" not in str(body.get("secret_data")):
            yield f"google_secret_manager_secret_version.{name}: expected no secret in a file"
    if not deployment.all("google_secret_manager_secret_iam_member"):
        yield "expected the services to be granted their secrets"


def traffic_is_encrypted(deployment: Deployment) -> Iterator[str]:
    """API keys never cross the network in the clear."""
    if deployment.all("google_compute_target_http_proxy"):
        yield "expected no proxy without TLS: API keys would cross the network in the clear"
    for name, body in deployment.all("google_compute_global_forwarding_rule").items():
        if body.get("port_range") != "443":
            yield f"google_compute_global_forwarding_rule.{name}: expected port 443"
    for name, body in deployment.all("google_compute_target_https_proxy").items():
        if "ssl_policy" not in body:
            yield f"google_compute_target_https_proxy.{name}: expected an ssl_policy"
    for name, body in deployment.all("google_compute_ssl_policy").items():
        if body.get("min_tls_version") not in {"TLS_1_2", "TLS_1_3"}:
            yield f"google_compute_ssl_policy.{name}: expected min_tls_version TLS_1_2 or newer"


def objects_end(deployment: Deployment) -> Iterator[str]:
    """Objects are private, and deleted when nobody can fetch them any more."""
    for name, body in deployment.all("google_storage_bucket").items():
        where = f"google_storage_bucket.{name}"
        deleted = {
            prefix: number(block(row, "condition").get("age")) * 86_400
            for row in body.get("lifecycle_rule", ())
            if block(row, "action").get("type") == "Delete"
            for prefix in block(row, "condition").get("matches_prefix", ())
        }
        for prefix, seconds in KEPT.items():
            if prefix not in deleted:
                yield f"{where}: expected a lifecycle_rule that deletes {prefix}*"
            elif deleted[prefix] < seconds:
                yield f"{where}: {prefix}* is needed for {seconds} s"
        if body.get("public_access_prevention") != "enforced" or not body.get("uniform_bucket_level_access"):
            yield f"{where}: expected public access to be prevented, and one kind of access"


def dead_letters_are_told(deployment: Deployment) -> Iterator[str]:
    """Somebody hears of the first call that is given up."""
    for name, body in deployment.all("google_pubsub_subscription").items():
        if "push_config" not in body:
            yield from _told(
                deployment, "num_undelivered_messages", f"google_pubsub_subscription.{name}.name"
            )


def waiting_is_told(deployment: Deployment) -> Iterator[str]:
    """Somebody hears of jobs that nobody answers."""
    for name, _ in _pushing(deployment):
        yield from _told(deployment, "oldest_unacked_message_age", f"google_pubsub_subscription.{name}.name")


def errors_are_told(deployment: Deployment) -> Iterator[str]:
    """Somebody hears when a share of the answers are errors."""
    yield from _told(deployment, "request_count", "5xx")
    for name, body in _alerts(deployment).items():
        if "5xx" in str(body.get("filter")) and "denominator_filter" not in body:
            yield f"google_monitoring_alert_policy.{name}: expected a share of all answers, found a count"


def slowness_is_told(deployment: Deployment) -> Iterator[str]:
    """Somebody hears when one call in a hundred takes too long."""
    yield from _told(deployment, "request_latencies")
    for name, body in _alerts(deployment).items():
        if "latencies" in str(body.get("filter")) and "PERCENTILE_99" not in str(body.get("aggregations")):
            yield f"google_monitoring_alert_policy.{name}: expected P99"


def alarms_reach_somebody(deployment: Deployment) -> Iterator[str]:
    """Every alert has its notification channels."""
    for name, body in deployment.all("google_monitoring_alert_policy").items():
        if "notification_channels" not in body:
            yield f"google_monitoring_alert_policy.{name}: expected notification_channels"


def _alerts(deployment: Deployment) -> dict[str, dict[str, Any]]:
    found = deployment.all("google_monitoring_alert_policy")
    return {name: block(body, "conditions", "condition_threshold") for name, body in found.items()}


def _told(deployment: Deployment, *words: str) -> Iterator[str]:
    filters = [str(body.get("filter")) for body in _alerts(deployment).values()]
    if not any(all(word in text for word in words) for text in filters):
        yield f"expected an alert for {' of '.join(words)}"


def logs_end(deployment: Deployment) -> Iterator[str]:
    """Logs are kept for a time that somebody has chosen."""
    buckets = deployment.all("google_logging_project_bucket_config")
    sent = str([body.get("destination") for body in deployment.all("google_logging_project_sink").values()])
    if not any("retention_days" in body for body in buckets.values()):
        yield "expected a log bucket with retention_days"
    if not any(f"google_logging_project_bucket_config.{name}." in sent for name in buckets):
        yield "expected a sink that sends the logs of the services to that bucket"


def residency_is_followed(deployment: Deployment) -> Iterator[str]:
    """Messages and logs stay where the regions must be."""
    for name, body in deployment.all("google_pubsub_topic").items():
        if "message_storage_policy" not in str(body):
            yield f"google_pubsub_topic.{name}: expected a message_storage_policy that follows var.residency"
    if "var.residency" not in str(deployment.all("google_logging_project_bucket_config")):
        yield "expected the log bucket to follow var.residency"
    for variable in ("regions", "residency"):
        if "validation" not in deployment.variables.get(variable, {}):
            yield f"var.{variable}: expected a validation"


def state_is_shared(deployment: Deployment) -> Iterator[str]:
    """All services use one store, which more than one instance can reach."""
    kinds = {role: deployment.environment(role).get("FIRSTTOKEN_STORE__KIND") for role in deployment.services}
    for role, kind in kinds.items():
        if kind != "redis" or "FIRSTTOKEN_STORE__URL" not in deployment.environment(role):
            yield f"{role}: expected FIRSTTOKEN_STORE__KIND redis and its URL, found {kind}"


RULES = (
    *(regions_are_two, names_agree, residency_is_followed, state_is_shared),
    *(queue_has_dead_letters, queue_outlasts_function, queue_is_kept, workers_leave_room),
    *(answers_stream, health_is_asked, traffic_is_encrypted),
    *(calls_are_signed, roles_are_narrow, secrets_are_kept),
    *(dead_letters_are_told, waiting_is_told, errors_are_told, slowness_is_told, alarms_reach_somebody),
    *(logs_end, objects_end),
)
