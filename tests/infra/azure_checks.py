"""Rules that a deployment to Azure keeps, over what its Bicep files would make, azure.yaml and host.json.

A rule takes a `Deployment` and yields what breaks it, in words. `bicep_check` knows what Azure accepts; these
know what the project needs. Nothing here imports the project: a copy works in any project.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.azure_alerts import dead_letters_are_told, errors_are_told, slowness_is_told, waiting_is_told
from infra.azure_deployment import QUEUES, SECRET, Deployment, deployment, seconds
from infra.bicep_check import check_symbols, check_types
from infra.bicep_syntax import read
from infra.bicep_tree import BicepError, Call, walk
from lark.exceptions import LarkError
from pycep import BicepParser

SCHEMA = Path(__file__).parents[1] / "data" / "azure_schema.json"

_BLOB = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
_QUEUE = "974c5e8b-45b9-4653-ba55-5f855dd0fb88"
_TABLE = "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"
_SECRETS_USER = "4633458b-17de-408a-b874-0445c86b69e6"
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD)$")
_ROLES = {
    "Microsoft.Storage/storageAccounts": {_BLOB, _QUEUE, _TABLE},
    "Microsoft.KeyVault/vaults": {_SECRETS_USER},
    "Microsoft.Insights/components": {"3913510d-42f4-4e42-8a64-420c390055eb"},  # Monitoring Metrics Publisher
    "Microsoft.ServiceBus/namespaces": {
        "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0",  # Data Receiver
        "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39",  # Data Sender
    },
}
_REFUSED = re.compile(
    "FUNCTIONS_(WORKER_RUNTIME|EXTENSION_VERSION|WORKER_PROCESS_COUNT)|ENABLE_ORYX_BUILD|SCM_DO_BUILD.*"
    "|WEBSITE_(RUN_FROM_PACKAGE|CONTENT.*|NODE_.*|MAX_DYNAMIC.*)|WEBSITES_.*"
)


Rule = Callable[[Deployment], Iterator[str]]


def findings(folder: Path) -> dict[str, list[str]]:
    """Every rule that is broken by the azd project in ``folder``, and by what."""
    infra, found = folder / "infra", {}
    for path in sorted(infra.glob("*.bicep")):
        if said := _syntax(path.read_text()):
            return {"syntax": [f"{path.name}: {said}"]}
    try:
        for fault in check_symbols(infra):
            found.setdefault(fault.rule, []).append(fault.message)
        for queue in QUEUES if found.keys() <= {"unused"} else ():
            view = deployment(folder, queue)
            wrong = list(check_types(view.build, json.loads(SCHEMA.read_text())))
            for fault in wrong:
                found.setdefault(fault.rule, []).append(fault.message)
            for rule in RULES if not wrong else ():
                for message in rule(view):
                    found.setdefault(rule.__name__, []).append(f"{queue}: {message}")
    except BicepError as error:
        found.setdefault(error.rule, []).append(str(error))
    return found


@lru_cache(maxsize=256)
def _syntax(text: str) -> str:
    try:
        _parser().parse(text=text)
    except LarkError as error:
        return str(error).splitlines()[0]
    return ""


@lru_cache(maxsize=1)
def _parser() -> BicepParser:
    return BicepParser()


def regions_are_two(view: Deployment) -> Iterator[str]:
    """At least two regions answer, each with what it needs to do so alone, and Front Door knows them all."""
    places = {site.body["location"] for site in view.sites}
    if len(places) < 2:
        yield f"function apps in {sorted(places)}; expected two regions"
    parameters = {s.name: s for s in read(view.folder / "infra" / "main.bicep") if s.kind == "param"}
    if "minLength" not in parameters["locations"].decorators:
        yield "parameter locations: no @minLength"
    for kind in ("Microsoft.Web/serverfarms", "Microsoft.Storage/storageAccounts"):
        if missing := places - {resource.body["location"] for resource in view.of(kind)}:
            yield f"no {kind} in {sorted(missing)}"
    hosts = [o.properties["hostName"] for o in view.of("Microsoft.Cdn/profiles/originGroups/origins")]
    if sorted(hosts) != sorted(f"<{site.id}: properties.defaultHostName>" for site in view.sites):
        yield f"origins of Front Door: {hosts}; expected every function app once"


def answers_stream(view: Deployment) -> Iterator[str]:
    """An instance takes many calls at once, its runtime streams, and an update lets streams end."""
    for site in view.sites:
        config = site.properties.get("functionAppConfig", {})
        runtime = config.get("runtime", {})
        if runtime.get("name") != "python" or tuple(map(int, runtime["version"].split("."))) < (3, 13):
            yield f"{site.name}: runtime {runtime}; expected python 3.13, where streaming needs no switch"
        triggers = config.get("scaleAndConcurrency", {}).get("triggers", {})
        if triggers.get("http", {}).get("perInstanceConcurrency", 1) < 16:
            yield f"{site.name}: fewer than 16 calls an instance"
        if config.get("siteUpdateStrategy", {}).get("type") != "RollingUpdate":
            yield f"{site.name}: an update cuts off its streams"


def answers_pass_through(view: Deployment) -> Iterator[str]:
    """Front Door holds no answer back, gives none up early, and ties nobody to a region."""
    for profile in view.of("Microsoft.Cdn/profiles"):
        if profile.properties.get("originResponseTimeoutSeconds", 60) != 240:
            yield "Front Door gives a call up before 240 s"
    for route in view.of("Microsoft.Cdn/profiles/afdEndpoints/routes"):
        if "cacheConfiguration" in route.properties:
            yield "a route of Front Door caches or compresses"
    for group in view.of("Microsoft.Cdn/profiles/originGroups"):
        if group.properties.get("sessionAffinityState") != "Disabled":
            yield "Front Door ties clients to a region"


def health_is_asked(view: Deployment) -> Iterator[str]:
    """Front Door asks a region whether it can answer, not only whether it is there."""
    groups = view.of("Microsoft.Cdn/profiles/originGroups")
    for group in groups:
        probe = group.properties.get("healthProbeSettings", {})
        if probe.get("probePath") != "/readyz" or probe.get("probeRequestType") != "GET":
            yield f"{group.name}: health probe {probe}"
    if not groups:
        yield "no origin group"


def queue_has_dead_letters(view: Deployment) -> Iterator[str]:
    """What keeps failing goes where it is kept, after enough tries."""
    for site in view.sites:
        settings = view.settings(site)
        name = settings["FIRSTTOKEN_QUEUE__NAME"]
        if view.queue == "service_bus":
            queues = {q.body["name"]: q.properties for q in view.of("Microsoft.ServiceBus/namespaces/queues")}
            if queues.get(name, {}).get("maxDeliveryCount", 10) < 5:
                yield f"{name}: maxDeliveryCount below 5"
            wanted = (name, settings.get("FIRSTTOKEN_QUEUE__DEAD_NAME"))
        else:
            account = settings["AzureWebJobsStorage__accountName"]
            kind = "Microsoft.Storage/storageAccounts/queueServices/queues"
            queues = {q.name: q.properties for q in view.of(kind)}
            wanted = tuple(f"{account}/default/{queue}" for queue in (name, f"{name}-poison"))
        for queue in wanted:
            if queue not in queues:
                yield f"no queue {queue}"
    if view.host["extensions"]["queues"].get("maxDequeueCount", 5) < 5:
        yield "host.json: maxDequeueCount below 5"


def queue_outlasts_function(view: Deployment) -> Iterator[str]:
    """A message stays hidden while the function that answers it may run."""
    longest = seconds(view.host.get("functionTimeout", "00:30:00"))
    renewed = view.host["extensions"].get("serviceBus", {}).get("maxAutoLockRenewalDuration", "00:05:00")
    if seconds(renewed) < longest:
        yield f"host.json: a lock is renewed for {renewed}, a function may run for {longest} s"
    for queue in view.of("Microsoft.ServiceBus/namespaces/queues"):
        jobs = [view.settings(site)["FIRSTTOKEN_QUEUE__NAME"] for site in view.sites]
        if queue.body["name"] in jobs and queue.properties.get("lockDuration") != "PT5M":
            yield f"{queue.name}: lockDuration {queue.properties.get('lockDuration')}; expected PT5M"


def triggers_fit_queue(view: Deployment) -> Iterator[str]:
    """Of the two triggers the one without a queue is off, and the other listens where jobs are sent."""
    unused = "recover" if view.queue == "service_bus" else "recover_bus"
    used = {"recover", "recover_bus"} - {unused}
    for site in view.sites:
        settings = view.settings(site)
        if settings.get(f"AzureWebJobs.{unused}.Disabled") != "true":
            yield f"{site.name}: {unused} has no queue, and is not switched off"
        if any(f"AzureWebJobs.{name}.Disabled" in settings for name in used):
            yield f"{site.name}: {used} is switched off"
        account = settings.get("AzureWebJobsStorage__accountName")
        if view.queue == "storage_queue":
            place, expected = settings.get("FIRSTTOKEN_QUEUE__ACCOUNT_URL"), f"https://{account}.queue."
        else:
            place = settings.get("FIRSTTOKEN_QUEUE__NAMESPACE", "")
            expected = f"https://{settings.get('ServiceBus__fullyQualifiedNamespace')}"
        if not str(place).startswith(expected):
            yield f"{site.name}: jobs go to {place}, the trigger listens at {expected}"


def state_is_shared(view: Deployment) -> Iterator[str]:
    """All regions keep jobs and large answers in one table and one container, which are there."""
    made = {r.name for r in view.build.resources if not r.existing}
    for kind, service, folder in (
        ("STORE", "table", "default/{FIRSTTOKEN_STORE__TABLE}"),
        ("OBJECTS", "blob", "default/{FIRSTTOKEN_OBJECTS__CONTAINER}"),
    ):
        urls = {view.settings(site).get(f"FIRSTTOKEN_{kind}__ACCOUNT_URL", "") for site in view.sites}
        if len(urls) != 1:
            yield f"FIRSTTOKEN_{kind}__ACCOUNT_URL differs between regions: {sorted(urls)}"
            continue
        match = re.match(rf"https://(\w+)\.{service}\.", urls.pop())
        place = f"{match[1] if match else '?'}/{folder.format(**view.settings(view.sites[0]))}"
        if place not in made:
            yield f"there is no {place}"


def settings_are_taken(view: Deployment) -> Iterator[str]:
    """App settings are texts, none of them one that Flex Consumption refuses or that is empty."""
    for site in view.sites:
        if not view.settings(site):
            yield f"{site.name}: no app settings"
        for name, value in view.settings(site).items():
            if not isinstance(value, str) or not value:
                yield f"{site.name}: {name} is {value!r}"
            if _REFUSED.fullmatch(name):
                yield f"{site.name}: Flex Consumption refuses the setting {name}"


def secrets_are_kept(view: Deployment) -> Iterator[str]:
    """Secrets stand in the key vault only: not in a name, another resource or an output."""
    for path in sorted((view.folder / "infra").glob("*.bicep")):
        for statement in read(path):
            secret = statement.kind == "param" and re.search("(?i)secrets?$|password", statement.name)
            if secret and "secure" not in statement.decorators:
                yield f"{path.name}: parameter {statement.name} is not @secure()"
            calls = [node.name for node in walk(statement.value) if isinstance(node, Call)]
            if any(name.lstrip(".").startswith("list") for name in calls):
                yield f"{path.name}: {statement.name} reads a key of a resource"
    for resource in view.build.resources:
        if SECRET in json.dumps(resource.body) and resource.type != "Microsoft.KeyVault/vaults/secrets":
            yield f"{resource.type} {resource.name} contains a secret"
    if SECRET in json.dumps(view.build.outputs):
        yield "an output contains a secret"


def settings_refer_to_secrets(view: Deployment) -> Iterator[str]:
    """A setting that is a secret says where it is kept, and it is kept there."""
    kept = {r.name for r in view.of("Microsoft.KeyVault/vaults/secrets")}
    for site in view.sites:
        for name, value in view.settings(site).items():
            match = re.fullmatch(r"@Microsoft\.KeyVault\(VaultName=([\w-]+);SecretName=([\w-]+)\)", value)
            if match and f"{match[1]}/{match[2]}" not in kept:
                yield f"{site.name}: {name} refers to {value}, which is not kept"
            if _SECRET_NAME.search(name) and not match:
                yield f"{site.name}: {name} stands in the open"


def identities_replace_keys(view: Deployment) -> Iterator[str]:
    """No service takes a key, and nothing is public or unencrypted on the way."""
    wanted: dict[str, dict[str, Any]] = {
        "Microsoft.Storage/storageAccounts": {
            "allowSharedKeyAccess": False,
            "allowBlobPublicAccess": False,
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
        },
        "Microsoft.Storage/storageAccounts/blobServices/containers": {"publicAccess": "None"},
        "Microsoft.ServiceBus/namespaces": {"disableLocalAuth": True},
        "Microsoft.KeyVault/vaults": {"enableRbacAuthorization": True, "enablePurgeProtection": True},
        "Microsoft.Insights/components": {"DisableLocalAuth": True},
        "Microsoft.Web/sites": {"httpsOnly": True},
        "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"allow": False},
        "Microsoft.Cdn/profiles/afdEndpoints/routes": {
            "forwardingProtocol": "HttpsOnly",
            "supportedProtocols": ["Https"],
        },
    }
    for kind, properties in wanted.items():
        for resource in view.of(kind):
            for name, value in properties.items():
                if resource.properties.get(name) != value:
                    yield f"{resource.name}: {name} is {resource.properties.get(name)!r}; expected {value!r}"


def roles_are_narrow(view: Deployment) -> Iterator[str]:
    """An identity may use the data of the resources that it needs, and change no resource."""
    granted = set()
    for assignment in view.of("Microsoft.Authorization/roleAssignments"):
        role = assignment.properties["roleDefinitionId"].rpartition("/")[2]
        scope = assignment.scope.type if assignment.scope else "a whole group"
        if role not in _ROLES.get(scope, set()):
            yield f"{assignment.file}: the role {role} over {scope}"
        if assignment.scope:
            granted.add((assignment.properties["principalId"], assignment.scope.body["name"], role))
    for site in view.sites:
        settings = view.settings(site)
        principal = settings["AZURE_CLIENT_ID"].replace("clientId", "principalId")
        own, shared = settings["AzureWebJobsStorage__accountName"], settings["FIRSTTOKEN_STORE__ACCOUNT_URL"]
        shared = shared.removeprefix("https://").partition(".")[0]
        vaults = [vault.body["name"] for vault in view.of("Microsoft.KeyVault/vaults")]
        needed = {(own, _BLOB), (own, _QUEUE), (shared, _TABLE), (shared, _BLOB)}
        needed |= {(vault, _SECRETS_USER) for vault in vaults}
        for name, role in sorted(needed):
            if (principal, name, role) not in granted:
                yield f"{site.name}: its identity lacks the role {role} on {name}"


def logs_end(view: Deployment) -> Iterator[str]:
    """Logs are kept for a time that somebody chose, and what alerts are made of is logged."""
    for workspace in view.of("Microsoft.OperationalInsights/workspaces"):
        if not 30 <= workspace.properties.get("retentionInDays", 0) <= 730:
            yield f"{workspace.name}: retentionInDays {workspace.properties.get('retentionInDays')}"
    logged = {
        setting.scope.name: {log["category"] for log in setting.properties.get("logs", []) if log["enabled"]}
        for setting in view.of("Microsoft.Insights/diagnosticSettings")
        if setting.scope
    }
    for service in view.of("Microsoft.Storage/storageAccounts/queueServices"):
        if not {"StorageWrite", "StorageDelete"} <= logged.get(service.name, set()):
            yield f"{service.name}: its messages are not logged"


def objects_end(view: Deployment) -> Iterator[str]:
    """Large answers are deleted, but not before the jobs that point to them (a day, unless configured)."""
    kind = "Microsoft.Storage/storageAccounts/managementPolicies"
    rules = [rule for policy in view.of(kind) for rule in policy.properties["policy"]["rules"]]
    for site in view.sites:
        prefix = f"{view.settings(site)['FIRSTTOKEN_OBJECTS__CONTAINER']}/firsttoken/"
        fits = [r for r in rules if r["enabled"] and prefix in r["definition"]["filters"]["prefixMatch"]]
        days = [r["definition"]["actions"]["baseBlob"]["delete"] for r in fits]
        if not days or min(d["daysAfterModificationGreaterThan"] for d in days) < 2:
            yield f"{prefix}: no lifecycle rule of at least 2 days"


def azd_finds_all(view: Deployment) -> Iterator[str]:
    """Each function app is a service of azure.yaml, which deploys what was staged as it is."""
    tags = sorted(site.body["tags"].get("azd-service-name", "") for site in view.sites)
    if tags != sorted(view.azd["services"]):
        yield f"azure.yaml has {sorted(view.azd['services'])}, the apps are {tags}"
    for name, service in view.azd["services"].items():
        if service["host"] != "function" or service.get("remoteBuild") is not False:
            yield f"azure.yaml: {name} is built again on another machine"


RULES: tuple[Rule, ...] = (
    answers_pass_through,
    settings_refer_to_secrets,
    *(regions_are_two, answers_stream, health_is_asked, queue_has_dead_letters, queue_outlasts_function),
    *(triggers_fit_queue, state_is_shared, settings_are_taken, secrets_are_kept, identities_replace_keys),
    *(roles_are_narrow, logs_end, objects_end, dead_letters_are_told, waiting_is_told, errors_are_told),
    *(slowness_is_told, azd_finds_all),
)
