"""Which exporters there are, what they cost a process that does not use them, and what they never tell."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ask, chat, make_app, simulate

from firsttoken import config
from firsttoken.errors import ConfigError
from firsttoken.settings import Auth, OpenAIProvider, Route, Server, Target, Telemetry
from firsttoken.telemetry.record import Record

ROOT = Path(__file__).resolve().parents[2]
LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "chat"}


def serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], env: dict[str, str], **sections: Any
) -> tuple[str, str]:
    """Answer one call and return what was written to stdout and stderr."""
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    app = make_app(**{"server": Server(), **sections})
    answer = asyncio.run(ask(app, chat("the secret prompt", stream=True)))
    assert answer.status == 200
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("env", "sections", "written"),
    [
        ({}, {}, "json"),
        (LAMBDA, {}, "emf"),
        (LAMBDA, {"telemetry": Telemetry(log="json")}, "json"),
        ({}, {"telemetry": Telemetry(log="emf")}, "emf"),
        ({}, {"telemetry": Telemetry(log="off")}, ""),
        ({}, {"server": Server(log=False)}, ""),
        (LAMBDA, {"server": Server(log=False)}, ""),
        ({}, {"server": Server(log=False), "telemetry": Telemetry(log="emf")}, "emf"),
    ],
)
def test_the_line(
    monkeypatch: Any, capsys: Any, env: dict[str, str], sections: dict[str, Any], written: str
) -> None:
    """JSON on stderr, CloudWatch's format on Lambda, unless the configuration says otherwise."""
    out, err = serve(monkeypatch, capsys, env, **sections)
    assert (bool(out), bool(err)) == (written == "emf", written == "json")
    if written:
        row = json.loads(out or err)
        assert (row["model"], row["status"], row["error"]) == ("m", 200, None)
        assert ("_aws" in row) == (written == "emf")


@pytest.mark.parametrize("spec", ["", "fault=status,status=503"])
def test_no_text_is_ever_told(monkeypatch: Any, capsys: Any, spec: str) -> None:
    """Neither what was asked nor what was answered, nor a key, stands in a line or in the metrics."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "chat")
    app = make_app(server=Server(), telemetry=Telemetry(metrics="on"))
    headers = {"authorization": "Bearer sk-canary", "cookie": "canary", **(simulate(spec) if spec else {})}
    body = chat("a canary sings", user="canary", metadata={"note": "canary"})
    answer = asyncio.run(ask(app, body, headers=headers))
    shown = asyncio.run(ask(app, method="GET", path="/metrics")).body.decode()
    assert ("canary" in answer.body.decode()) == (not spec)
    assert "canary" not in "".join(capsys.readouterr()) + shown


@pytest.mark.parametrize(
    ("target", "known", "cost"),
    [
        ("openai/gpt-4o-mini", {}, None),
        ("openai/gpt-4o-mini", {"openai/gpt-4o-mini": Target(price=2.0)}, 2 * 1.5),
        ("openai/nobody-knows", {}, None),
        ("gone/model", {}, None),
    ],
)
def test_price(target: str, known: dict[str, Target], cost: float | None) -> None:
    """The catalogue's list price, or what the configuration says of a target."""
    from firsttoken.placement.models import rates_of

    app = make_app(
        providers={"openai": OpenAIProvider(base_url="http://127.0.0.1:9/v1")},
        models={"m": Route(target="openai/gpt-4o-mini")},
        targets=known,
    )
    listed = rates_of("openai", target.partition("/")[2], 1_000_000)
    expected = listed.cost(1_000_000, 500_000, 1000) if listed else cost
    assert app._price(target, "m", 1_000_000, 500_000, 1000) == pytest.approx(expected)


def test_list_prices() -> None:
    """A model of the catalogue has one, also behind a route that passes any name on."""
    from firsttoken.placement.models import catalogue

    row = next(row for row in catalogue().models if row.provider == "openai" and row.rates())
    app = make_app(
        providers={"openai": OpenAIProvider(base_url="http://127.0.0.1:9/v1")},
        models={"*": Route(target="openai/*")},
    )
    rates = row.rates(1000)
    assert rates is not None
    assert app._price("openai/*", row.model, 1000, 100, 10) == rates.cost(1000, 100, 10) > 0
    assert app._price(f"openai/{row.model}", "any", 1000, 100, 10) == rates.cost(1000, 100, 10)


def test_a_call_has_its_cost() -> None:
    """It is worked out before the record is told to anybody."""
    records: list[Record] = []
    app = make_app(records, targets={"simulated/m": Target(price=1_000_000.0)})
    asyncio.run(ask(app, chat(stream=True)))
    (record,) = records
    assert record.cost == (record.input_tokens or 0) + (record.output_tokens or 0) > 0
    assert record.summary()["cost"] == record.cost


def test_a_closed_log_harms_nobody(monkeypatch: Any) -> None:
    """A call is answered though nobody reads the log any more."""

    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    assert asyncio.run(ask(make_app(server=Server()), chat())).complete


LOADED = """
import sys
from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.settings import *
settings = Settings(
    providers={"simulated": SimulatedProvider()}, models={"m": Route(target="simulated/m")},
    auth=Auth(mode="off"), telemetry=Telemetry(%s),
)
App(Gateway(settings), deployed=True)
print(*[name for name in sys.modules if name.startswith(("firsttoken.telemetry.", "opentelemetry"))])
"""


@pytest.mark.parametrize(
    ("telemetry", "more"),
    [
        ("log='off'", set()),
        ("", {"lines"}),
        ("metrics='on', log='off'", {"aggregate", "sketch"}),
    ],
)
def test_only_what_is_configured_is_imported(telemetry: str, more: set[str]) -> None:
    """A cold start does not pay for exporters that are not used."""
    command = [sys.executable, "-c", LOADED % telemetry]
    env = {"PYTHONPATH": str(ROOT / "shared")}
    loaded = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert {name.rpartition(".")[2] for name in loaded} == {"exporters", "figures", "head", "record"} | more


def test_otel_needs_its_extra(monkeypatch: Any) -> None:
    """Without the packages the start is stopped with the extra's name."""
    monkeypatch.setitem(sys.modules, "firsttoken.telemetry.otel", None)
    with pytest.raises(ConfigError, match="extra 'otel'"):
        make_app(telemetry=Telemetry(otel=True))


def test_settings_from_file_and_environment(tmp_path: Path) -> None:
    """The section is read like all others."""
    file = tmp_path / "firsttoken.toml"
    file.write_text(
        '[telemetry]\nlog = "emf"\ndimensions = ["model"]\notel_headers = { api-key = "env:KEY" }\n'
    )
    read = config.load(file, {"FIRSTTOKEN_TELEMETRY__SERIES": "7"}).telemetry
    assert (read.log, read.dimensions, read.series) == ("emf", ("model",), 7)
    assert read.otel_headers == {"api-key": "env:KEY"}
    file.write_text('[telemetry]\ndimensions = ["request_id"]\n')
    with pytest.raises(ConfigError, match=r"telemetry\.dimensions"):
        config.load(file, {})


def test_who_may_call_is_not_who_may_read() -> None:
    """A key is asked for where the application is deployed."""
    app = make_app(deployed=True, auth=Auth(mode="on", keys={"a": ["0" * 64]}), telemetry=Telemetry())
    assert asyncio.run(ask(app, method="GET", path="/metrics")).status == 401
