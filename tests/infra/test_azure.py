"""What functions/azure deploys: valid, complete, and with settings that the functions understand."""

import json
import re
from pathlib import Path

import pytest
from infra import azure_checks
from infra.azure_deployment import QUEUES, Deployment, deployment
from infra.bicep_build import build
from infra.bicep_syntax import read

from firsttoken import config
from firsttoken.settings import BlobObjects, ServiceBusQueue, StorageQueue, TablesStore

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "functions" / "azure"
MAIN = FOLDER / "infra" / "main.bicep"
GIVEN = {"environmentName": "prod", "locations": ["westeurope", "northeurope"], "apiKeys": "acme:0"}


@pytest.fixture(params=QUEUES)
def view(request: pytest.FixtureRequest) -> Deployment:
    """What is deployed with each kind of queue."""
    return deployment(FOLDER, request.param)


def test_all_rules_are_kept() -> None:
    """The files are Bicep, fit Azure's types, and keep every rule of the project."""
    assert azure_checks.findings(FOLDER) == {}


def test_core_takes_the_settings(view: Deployment) -> None:
    """The core reads the app settings of every region, and finds its store, queue and objects in them."""
    queue_kind = {"storage_queue": StorageQueue, "service_bus": ServiceBusQueue}[view.queue]
    for site in view.sites:
        environ = {n: v for n, v in view.settings(site).items() if n.startswith("FIRSTTOKEN_")}
        settings = config.load(environ=environ)
        assert isinstance(settings.store, TablesStore)
        assert isinstance(settings.queue, queue_kind)
        assert isinstance(settings.objects, BlobObjects)
        assert settings.auth.keys.keys() == {"acme"}
        assert settings.providers["upstream"]


def test_limits_fit_front_door(view: Deployment) -> None:
    """What Front Door would give up, the core ends before: whole answers, and silence in streams."""
    settings = config.load(environ={})
    (profile,) = view.of("Microsoft.Cdn/profiles")
    limit = profile.properties["originResponseTimeoutSeconds"]
    assert settings.timeouts.whole < limit
    assert settings.server.heartbeat_seconds < limit / 2


def test_alert_waits_longer_than_jobs(view: Deployment) -> None:
    """A job that waits for its targets as long as it may raises no alert; one that is forgotten does."""
    settings = config.load(environ={})
    alerts = view.of("Microsoft.Insights/scheduledQueryRules")
    (age,) = [alert.properties["criteria"]["allOf"][0] for alert in alerts if alert.name == "queue-age"]
    assert settings.jobs.max_delay < age["threshold"] < settings.jobs.expires


def test_objects_outlive_jobs(view: Deployment) -> None:
    """Large answers are deleted after their jobs, at the prefix where the core puts them."""
    settings = config.load(environ={})
    (site, *_), kept = view.sites, settings.jobs.keep
    container = view.settings(site)["FIRSTTOKEN_OBJECTS__CONTAINER"]
    (rule,) = view.of("Microsoft.Storage/storageAccounts/managementPolicies")[0].properties["policy"]["rules"]
    assert rule["definition"]["filters"]["prefixMatch"] == [f"{container}/{BlobObjects().prefix}"]
    days = rule["definition"]["actions"]["baseBlob"]["delete"]["daysAfterModificationGreaterThan"]
    assert days * 86_400 > kept


def test_switched_off_triggers_exist(view: Deployment) -> None:
    """What a setting switches off is a function of the app."""
    functions = set(re.findall(r"^async def (\w+)", (FOLDER / "function_app.py").read_text(), re.MULTILINE))
    for site in view.sites:
        names = [re.fullmatch(r"AzureWebJobs\.(\w+)\.Disabled", name) for name in view.settings(site)]
        assert {match[1] for match in names if match} < functions


def test_latency_is_of_calls(view: Deployment) -> None:
    """The alert about slow calls asks for the function that answers them."""
    text = (FOLDER / "function_app.py").read_text()
    http = re.search(r"@app\.route\(.*\)\nasync def (\w+)", text)[1]
    (slow,) = [a for a in view.of("Microsoft.Insights/scheduledQueryRules") if a.name == "slow-calls"]
    assert f'Name == "{http}"' in slow.properties["criteria"]["allOf"][0]["query"]


def test_three_regions() -> None:
    """A further region needs one more entry: its app, its storage and its place behind Front Door follow."""
    built = build(MAIN, {**GIVEN, "locations": ["westeurope", "northeurope", "swedencentral"]})
    sites = built.of("Microsoft.Web/sites")
    assert [site.body["location"] for site in sites] == ["westeurope", "northeurope", "swedencentral"]
    assert len(built.of("Microsoft.Cdn/profiles/originGroups/origins")) == 3


def test_no_instance_is_kept_warm() -> None:
    """Without instances that are always ready the list is empty, not an entry of none."""
    built = build(MAIN, {**GIVEN, "alwaysReadyInstances": 0})
    config_of = built.of("Microsoft.Web/sites")[0].properties["functionAppConfig"]
    assert config_of["scaleAndConcurrency"]["alwaysReady"] == []


def test_parameters_are_documented() -> None:
    """The page about deployments names every parameter and every variable of the parameters file."""
    page = (ROOT / "docs" / "deploy-azure.md").read_text()
    parameters = [statement.name for statement in read(MAIN) if statement.kind == "param"]
    variables = re.findall(r"\$\{(\w+)", (FOLDER / "infra" / "main.parameters.json").read_text())
    assert not [name for name in (*parameters, *variables) if f"`{name}`" not in page]


def test_parameters_file_fits() -> None:
    """What the file gives is a parameter, and what has no default is given."""
    given = json.loads((FOLDER / "infra" / "main.parameters.json").read_text())["parameters"].keys()
    parameters = {s.name: s.value is None for s in read(MAIN) if s.kind == "param"}
    assert given <= parameters.keys()
    assert {name for name, needed in parameters.items() if needed} <= given


def test_bytecode_is_deployed() -> None:
    """A `.funcignore` is there, which has azd keep the bytecode, and does not name it."""
    lines = (FOLDER / ".funcignore").read_text().splitlines()
    assert not [line for line in lines if "pycache" in line and not line.startswith("#")]
