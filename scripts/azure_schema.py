"""Write tests/data/azure_schema.json: the properties of Azure's resource types, out of Microsoft's packages.

    python scripts/azure_schema.py .venv/bin/uv

The management packages are generated from Azure's own API descriptions, and large. Each is unpacked into a
temporary folder, asked for the models that the Bicep files need, and thrown away: the tests read the JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[1] / "tests" / "data" / "azure_schema.json"

# The package, the module of its models, then each resource type with its API version and its model there.
PACKAGES = {
    "azure-mgmt-resource==23.4.0": (
        "azure.mgmt.resource.resources.v2022_09_01.models",
        {"Microsoft.Resources/resourceGroups@2022-09-01": "ResourceGroup"},
    ),
    "azure-mgmt-msi==7.1.0": (
        "azure.mgmt.msi.v2024_11_30.models",
        {"Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30": "Identity"},
    ),
    "azure-mgmt-web==11.0.1": (
        "azure.mgmt.web.models",
        {
            "Microsoft.Web/serverfarms@2025-05-01": "AppServicePlan",
            "Microsoft.Web/sites@2025-05-01": "Site",
            "Microsoft.Web/sites/config@2025-05-01": "StringDictionary",
            "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01": (
                "CsmPublishingCredentialsPoliciesEntity"
            ),
        },
    ),
    "azure-mgmt-storage==24.0.0": (
        "azure.mgmt.storage.models",
        {
            "Microsoft.Storage/storageAccounts@2025-06-01": "StorageAccountCreateParameters",
            "Microsoft.Storage/storageAccounts/blobServices@2025-06-01": "BlobServiceProperties",
            "Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01": "BlobContainer",
            "Microsoft.Storage/storageAccounts/managementPolicies@2025-06-01": "ManagementPolicy",
            "Microsoft.Storage/storageAccounts/queueServices@2025-06-01": "QueueServiceProperties",
            "Microsoft.Storage/storageAccounts/queueServices/queues@2025-06-01": "StorageQueue",
            "Microsoft.Storage/storageAccounts/tableServices@2025-06-01": "TableServiceProperties",
            "Microsoft.Storage/storageAccounts/tableServices/tables@2025-06-01": "Table",
        },
    ),
    "azure-mgmt-keyvault==12.0.0": (
        "azure.mgmt.keyvault.models",
        {
            "Microsoft.KeyVault/vaults@2024-11-01": "VaultCreateOrUpdateParameters",
            "Microsoft.KeyVault/vaults/secrets@2024-11-01": "SecretCreateOrUpdateParameters",
        },
    ),
    "azure-mgmt-servicebus==9.0.0": (
        "azure.mgmt.servicebus.v2021_11_01.models",
        {
            "Microsoft.ServiceBus/namespaces@2021-11-01": "SBNamespace",
            "Microsoft.ServiceBus/namespaces/queues@2021-11-01": "SBQueue",
        },
    ),
    "azure-mgmt-loganalytics==13.1.1": (
        "azure.mgmt.loganalytics.models",
        {"Microsoft.OperationalInsights/workspaces@2025-07-01": "Workspace"},
    ),
    "azure-mgmt-applicationinsights==4.1.0": (
        "azure.mgmt.applicationinsights.v2020_02_02.models",
        {"Microsoft.Insights/components@2020-02-02": "ApplicationInsightsComponent"},
    ),
    "azure-mgmt-authorization==4.0.0": (
        "azure.mgmt.authorization.v2022_04_01.models",
        {"Microsoft.Authorization/roleAssignments@2022-04-01": "RoleAssignmentCreateParameters"},
    ),
    "azure-mgmt-monitor==7.0.0": (
        "azure.mgmt.monitor.models",
        {
            "Microsoft.Insights/actionGroups@2023-01-01": "ActionGroupResource",
            "Microsoft.Insights/metricAlerts@2018-03-01": "MetricAlertResource",
            "Microsoft.Insights/scheduledQueryRules@2023-12-01": "ScheduledQueryRuleResource",
        },
    ),
    "azure-mgmt-monitor==6.0.2": (
        "azure.mgmt.monitor.v2021_05_01_preview.models",
        {"Microsoft.Insights/diagnosticSettings@2021-05-01-preview": "DiagnosticSettingsResource"},
    ),
    "azure-mgmt-cdn==13.1.1": (
        "azure.mgmt.cdn.models",
        {
            "Microsoft.Cdn/profiles@2024-02-01": "Profile",
            "Microsoft.Cdn/profiles/afdEndpoints@2024-02-01": "AFDEndpoint",
            "Microsoft.Cdn/profiles/afdEndpoints/routes@2024-02-01": "Route",
            "Microsoft.Cdn/profiles/originGroups@2024-02-01": "AFDOriginGroup",
            "Microsoft.Cdn/profiles/originGroups/origins@2024-02-01": "AFDOrigin",
        },
    ),
}
NEEDED = ("azure-common", "azure-core", "azure-mgmt-core", "isodate", "typing-extensions", "msrest")


def main(uv: str) -> None:
    """Write the schema, with the uv at ``uv``; needs a package index."""
    schema: dict[str, Any] = {
        "recipe": "python scripts/azure_schema.py .venv/bin/uv",
        "licence": "names and types out of Microsoft's packages below, which are MIT",
        "packages": list(PACKAGES),
        "resources": {},
        "models": {},
    }
    for package, (module, resources) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            install = [uv, "pip", "install", "--quiet", "--no-deps", "--target", folder, package, *NEEDED]
            subprocess.run(install, check=True)
            reader = str(Path(__file__).with_name("azure_models.py"))
            names = sorted(set(resources.values()))
            done = subprocess.run(
                [sys.executable, "-IS", reader, folder, module, *names], check=True, stdout=subprocess.PIPE
            )
        prefix = package.removeprefix("azure-mgmt-").partition("==")[0]
        prefix = f"{prefix}6" if package.endswith("==6.0.2") else prefix
        models = json.loads(done.stdout.decode().replace("@@", prefix))
        schema["models"] |= models
        schema["resources"] |= {kind: f"{prefix}.{name}" for kind, name in resources.items()}
        print(f"{package}: {len(models)} models")
    # One model a line: a new version of a package is then a readable difference.
    models = schema.pop("models")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models))
    head = json.dumps(schema, indent=1).removesuffix("\n}")
    OUTPUT.write_text(f'{head},\n "models": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1])
