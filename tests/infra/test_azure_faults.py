"""Mistakes that people make in Bicep, azure.yaml and host.json, put into the real files and found by name."""

import shutil
from pathlib import Path

import pytest
from infra import azure_checks

FOLDER = Path(__file__).parents[2] / "functions" / "azure"
FAULTS: dict[str, tuple[str, str, str, str]] = {
    # What is wrong: the rule, the file, what stands there, what is put in its place.
    "a brace too few": ("syntax", "app.bicep", "  properties: { reserved: true }\n}", "  properties: {"),
    "a misspelt name": ("undefined-symbol", "app.bicep", "serverFarmId: plan.id", "serverFarmId: pan.id"),
    "a misspelt name in the branch that is not taken": (
        *("undefined-symbol", "app.bicep"),
        *("FIRSTTOKEN_QUEUE__DEAD_NAME: deadQueueName", "FIRSTTOKEN_QUEUE__DEAD_NAME: deadQueue"),
    ),
    "a misspelt function": ("undefined-symbol", "main.bicep", "toLower(", "tolower("),
    "a misspelt output": ("undefined-symbol", "main.bicep", "outputs.hostName]", "outputs.hostname]"),
    "a misspelt file": ("undefined-symbol", "main.bicep", "'vault.bicep'", "'vaults.bicep'"),
    "a misspelt parameter": ("module-parameters", "main.bicep", "retentionDays:", "retentionInDays:"),
    "a missing parameter": ("module-parameters", "main.bicep", "    serviceName: 'chat${i}'\n", ""),
    "a parameter of another type": (
        *("module-parameters", "main.bicep"),
        *("httpConcurrency: httpConcurrency", "httpConcurrency: '32'"),
    ),
    "a parameter that nobody reads": ("unused", "identity.bicep", "param name", "param size int\nparam name"),
    "a misspelt property": (
        "unknown-property",
        "app.bicep",
        "instanceMemoryMB: inst",
        "instanceMemoryMb: inst",
    ),
    "a misspelt property of an alert": ("unknown-property", "alerts.bicep", "metricName:", "metric:"),
    "a misspelt property that is read": (
        *("unknown-property", "app.bicep"),
        *("app.properties.defaultHostName", "app.properties.defaultHostname"),
    ),
    "a value of another type": (
        *("wrong-type", "monitoring.bicep"),
        *("retentionInDays: retentionDays", "retentionInDays: '${retentionDays}'"),
    ),
    "a value that is none of the choices": ("wrong-type", "frontdoor.bicep", "'HttpsOnly'", "'HttpsAlways'"),
    "a criterion of no kind": ("wrong-type", "alerts.bicep", "'StaticThresholdCriterion'", "'Static'"),
    "a required property left out": ("missing-property", "storage.bicep", "  kind: 'StorageV2'\n", ""),
    "a property that only Azure sets": (
        "read-only",
        "frontdoor.bicep",
        "httpPort: 80",
        "deploymentStatus: 'x'",
    ),
    "a version that does not exist": ("unknown-type", "bus.bicep", "queues@2021-11-01", "queues@2021-11-31"),
    "one region allowed": ("regions_are_two", "main.bicep", "@minLength(2)\n", ""),
    "one region twice": (
        *("regions_are_two", "main.parameters.json"),
        *("${AZURE_SECOND_LOCATION=northeurope}", "${AZURE_LOCATION}"),
    ),
    "one region given": (
        *("module-parameters", "main.parameters.json"),
        *(', "${AZURE_SECOND_LOCATION=northeurope}"', ""),
    ),
    "all storage in one region": (
        *("regions_are_two", "main.bicep"),
        *(
            "name: 'st${token}${i}'\n    location: location",
            "name: 'st${token}${i}'\n    location: locations[0]",
        ),
    ),
    "a region that Front Door does not know": (
        *("regions_are_two", "main.bicep"),
        *("hostNames: [for i in range(0, length(locations)):", "hostNames: [for i in range(0, 1):"),
    ),
    "one call an instance": ("answers_stream", "app.bicep", "perInstanceConcurrency: httpConcurrency", ""),
    "a Python that needs a switch": ("answers_stream", "app.bicep", "version: '3.13'", "version: '3.12'"),
    "updates that cut streams off": ("answers_stream", "app.bicep", "'RollingUpdate'", "'Recreate'"),
    "calls given up early": (
        *("answers_pass_through", "frontdoor.bicep"),
        *("originResponseTimeoutSeconds: 240", "originResponseTimeoutSeconds: 30"),
    ),
    "answers cached and compressed": (
        *("answers_pass_through", "frontdoor.bicep", "    httpsRedirect: 'Disabled'\n"),
        "    cacheConfiguration: { queryStringCachingBehavior: 'UseQueryString' }\n",
    ),
    "clients tied to a region": (
        *("answers_pass_through", "frontdoor.bicep"),
        *("sessionAffinityState: 'Disabled'", "sessionAffinityState: 'Enabled'"),
    ),
    "a probe that is always content": ("health_is_asked", "frontdoor.bicep", "'/readyz'", "'/healthz'"),
    "no queue for dead letters": (
        "queue_has_dead_letters",
        "storage.bicep",
        "'${queueName}-poison'",
        "'spare'",
    ),
    "one try": ("queue_has_dead_letters", "../host.json", '"maxDequeueCount": 20', '"maxDequeueCount": 1'),
    "one delivery": ("queue_has_dead_letters", "bus.bicep", "maxDeliveryCount: 20 ", "maxDeliveryCount: 1 "),
    "a lock shorter than the function": (
        *("queue_outlasts_function", "../host.json"),
        *('"maxAutoLockRenewalDuration": "00:10:00"', '"maxAutoLockRenewalDuration": "00:05:00"'),
    ),
    "a lock of half a minute": ("queue_outlasts_function", "bus.bicep", "'PT5M'", "'PT30S'"),
    "a trigger without a queue": (
        *("triggers_fit_queue", "app.bicep"),
        *("  'AzureWebJobs.recover_bus.Disabled': 'true'\n", ""),
    ),
    "jobs where no trigger listens": (
        *("triggers_fit_queue", "app.bicep"),
        *("'https://${accountName}.queue.", "'https://${sharedAccountName}.queue."),
    ),
    "jobs that other regions cannot see": (
        *("state_is_shared", "main.bicep"),
        *("sharedAccountName: accounts[0]", "sharedAccountName: accounts[i]"),
    ),
    "a table that nobody makes": (
        *("state_is_shared", "app.bicep"),
        *("FIRSTTOKEN_STORE__TABLE: tableName", "FIRSTTOKEN_STORE__TABLE: 'jobs'"),
    ),
    "a setting that is refused": (
        *("settings_are_taken", "app.bicep"),
        *("  AZURE_CLIENT_ID:", "  FUNCTIONS_WORKER_RUNTIME: 'python'\n  AZURE_CLIENT_ID:"),
    ),
    "an empty setting": (
        "settings_are_taken",
        "main.bicep",
        "filter(items(settings), setting => !empty(setting.value))",
        "items(settings)",
    ),
    "a secret parameter in the log": ("secrets_are_kept", "vault.bicep", "@secure()\n", ""),
    "a secret in an output": (
        *("secrets_are_kept", "main.bicep", "output AZURE_KEY"),
        "output SECRETS object = secrets\noutput AZURE_KEY",
    ),
    "a key of the storage account": (
        *("secrets_are_kept", "storage.bicep", "output name string = account.name"),
        "output name string = account.name\noutput key string = account.listKeys().keys[0].value",
    ),
    "a secret in a setting": (
        *("settings_refer_to_secrets", "main.bicep"),
        *("union({ FIRSTTOKEN_KEYS: apiKeys }", "union({ FIRSTTOKEN_KEYS: apiKeys, OPENAI_API_KEY: 'sk-1' }"),
    ),
    "a reference to no secret": (
        "settings_refer_to_secrets",
        "vault.bicep",
        "replace(secret.key, '_', '-')",
        "secret.key",
    ),
    "a storage account with keys": (
        *("identities_replace_keys", "storage.bicep"),
        *("allowSharedKeyAccess: false", "allowSharedKeyAccess: true"),
    ),
    "a public container": ("identities_replace_keys", "storage.bicep", "'None'", "'Blob'"),
    "a bus with keys": (
        "identities_replace_keys",
        "bus.bicep",
        "disableLocalAuth: true",
        "disableLocalAuth: false",
    ),
    "plain HTTP": ("identities_replace_keys", "app.bicep", "httpsOnly: true", "httpsOnly: false"),
    "an owner": (
        *("roles_are_narrow", "storage-roles.bicep"),
        *("ba92f5b4-2d11-453d-a403-e96b0029c9fe", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
    ),
    "a role over the whole group": ("roles_are_narrow", "vault.bicep", "  scope: vault\n", ""),
    "a role too few": ("roles_are_narrow", "main.bicep", "['blob', 'table']", "['table']"),
    "logs without an end": ("logs_end", "monitoring.bicep", "    retentionInDays: retentionDays\n", ""),
    "queues that nobody logs": (
        "logs_end",
        "storage.bicep",
        "'StorageDelete', enabled: true",
        "'StorageDelete', enabled: false",
    ),
    "answers for ever": ("objects_end", "storage.bicep", "/firsttoken/']", "/other/']"),
    "answers deleted under their jobs": ("objects_end", "storage.bicep", "GreaterThan: 2", "GreaterThan: 1"),
    "no alert on dead letters": ("dead_letters_are_told", "alerts.bicep", "-poison/", "-dead/"),
    "no alert on the bus's dead letters": (
        *("dead_letters_are_told", "alerts.bicep"),
        *("metric: 'DeadletteredMessages'", "metric: 'Messages'"),
    ),
    "an alert that is off": (
        "dead_letters_are_told",
        "alerts.bicep",
        "enabled: true\n    scopes: [workspaceId]",
        "enabled: false\n    scopes: [workspaceId]",
    ),
    "an alert that tells nobody": (
        "errors_are_told",
        "alerts.bicep",
        "    actions: [for id in actions: { actionGroupId: id }]\n",
        "",
    ),
    "an alert on every waiting job": (
        "waiting_is_told",
        "alerts.bicep",
        "oldJobSeconds int = 900",
        "oldJobSeconds int = 60",
    ),
    "errors counted, not their share": (
        "errors_are_told",
        "alerts.bicep",
        "'Percentage5XX'",
        "'RequestCount'",
    ),
    "errors told at half of all": ("errors_are_told", "alerts.bicep", "threshold: 5\n", "threshold: 50\n"),
    "latency in seconds": (
        "slowness_is_told",
        "main.bicep",
        "slowCallMilliseconds int = 120000",
        "slowCallMilliseconds int = 120",
    ),
    "the mean, not the p99": (
        "slowness_is_told",
        "alerts.bicep",
        "percentile(DurationMs, 99)",
        "avg(DurationMs)",
    ),
    "an app that azd does not find": ("azd_finds_all", "../azure.yaml", "  chat1:", "  chat2:"),
    "built again elsewhere": ("azd_finds_all", "../azure.yaml", "    remoteBuild: false\n", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, tmp_path: Path) -> None:
    """A mistake in the real files is found, under the name of the rule that it breaks."""
    rule, file, old, new = FAULTS[fault]
    shutil.copytree(FOLDER, tmp_path / "azure")
    path = (tmp_path / "azure" / "infra" / file).resolve()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert rule in azure_checks.findings(tmp_path / "azure")


def test_every_rule_is_seeded() -> None:
    """Each rule has a mistake that only it has to find."""
    assert {rule.__name__ for rule in azure_checks.RULES} <= {rule for rule, *_ in FAULTS.values()}
