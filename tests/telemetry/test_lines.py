"""The line a call: what CloudWatch demands of it, and what must not be in it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider
from telemetry.records import attempt, figures, record

from firsttoken.telemetry.lines import UNITS, Emf, row_of, write_json
from firsttoken.telemetry.record import Record

CLOUDWATCH_UNITS = {
    *("Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes"),
    *("Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "None"),
    *("Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second", "Terabytes/Second"),
    *("Bits/Second", "Kilobits/Second", "Megabits/Second", "Gigabits/Second", "Terabits/Second"),
    "Count/Second",
}
CALLS = {
    "streamed": record(cached_tokens=200, cost=0.01, cache="miss"),
    "whole": record(stream=False),
    "hit": record(cache="hit", attempts=[], cost=0.0),
    "failed": record(error="upstream_timeout", status=504, first_chunk=None, output_tokens=None),
    "unknown model": record(model="no/such", target="", error="model_not_found", status=404, attempts=[]),
    "odd names": record(target=":größe\n", tenant=" "),
    "never began": Record(),
}


def emf(dimensions: Any = ("model", "target", "tenant")) -> Emf:
    return Emf("firsttoken", dimensions, wall=lambda: 1_800_000_000.5)


def document(call: Record, **options: Any) -> dict[str, Any]:
    return json.loads(emf(**options).line(call, figures(call)))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_line_is_a_valid_document(call: Record) -> None:
    """Every MUST of AWS's specification of the embedded metric format, and its JSON schema's limits."""
    line = emf().line(call, figures(call))
    assert b"\n" not in line
    assert len(line) < 256 * 1024
    root = json.loads(line)
    assert set(root["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert root["_aws"]["Timestamp"] == 1_800_000_000_500
    (directive,) = root["_aws"]["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert 1 <= len(directive["Namespace"]) <= 255
    assert len(directive["Dimensions"]) >= 1
    for names in directive["Dimensions"]:
        assert len(names) <= 9
        for name in names:  # each is a member of the root, and a string
            assert re.fullmatch(r"[!-~][ -~]{0,1023}", root[name]), root[name]
            assert not root[name].startswith(":")
    assert 1 <= len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        assert 1 <= len(metric["Name"]) <= 255
        assert metric["Unit"] in CLOUDWATCH_UNITS
        value = root[metric["Name"]]
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)


def test_the_structure_is_that_of_powertools() -> None:
    """AWS's own library, given the same metrics, writes the same document, apart from our row beside them."""
    call = CALLS["streamed"]
    ours = json.loads(Emf("firsttoken", ("model", "target", "tenant")).line(call, figures(call)))
    theirs = AmazonCloudWatchEMFProvider(namespace="firsttoken")
    (directive,) = ours["_aws"]["CloudWatchMetrics"]
    own = directive["Dimensions"][1]
    for name in own:
        theirs.add_dimension(name, ours[name])
    for metric in directive["Metrics"]:
        theirs.add_metric(metric["Name"], MetricUnit(metric["Unit"]), ours[metric["Name"]])
    theirs.set_timestamp(ours["_aws"]["Timestamp"])
    expected = json.loads(json.dumps(theirs.serialize_metric_set()))
    theirs.clear_metrics()
    (known,) = expected["_aws"]["CloudWatchMetrics"]
    known["Dimensions"] = [[], *known["Dimensions"]]
    assert ours["_aws"] == expected["_aws"]
    for name in (*own, *(metric["Name"] for metric in directive["Metrics"])):
        said = expected[name]
        assert ours[name] == (said[0] if isinstance(said, list) else said)


def test_metrics_are_those_that_apply() -> None:
    """A failed call has no latency, a whole answer no first token, and what is not known is left out."""
    full = document(CALLS["streamed"])
    assert {name for name in UNITS if name in full} == set(UNITS)
    assert (full["TTFT"], full["TTLT"], full["CacheHits"]) == (200.0, 1200.0, 0)
    failed = document(CALLS["failed"])
    assert (failed["Errors"], failed["Calls"]) == (1, 1)
    assert not {"TTFT", "TTLT", "OutputTokens", "Cost", "CacheHits"} & set(failed)
    assert document(CALLS["unknown model"])["ClientErrors"] == 1
    assert document(CALLS["hit"])["CacheHits"] == 1


@pytest.mark.parametrize("dimensions", [(), ("model",), ("tenant", "model")])
def test_dimensions_are_those_that_are_configured(dimensions: Any) -> None:
    """Each metric is there as a whole, and once for each set of values; never by anything else."""
    (directive,) = document(record(), dimensions=dimensions)["_aws"]["CloudWatchMetrics"]
    own = [name.capitalize() for name in ("model", "tenant") if name in dimensions]
    assert directive["Dimensions"] == ([[], own] if own else [[]])


def test_values_of_dimensions_are_bounded() -> None:
    """A thousand made-up models are one value; the row keeps what was asked for, cut short."""
    said = {document(record(model=f"made-up-{n}"))["Model"] for n in range(1000)}
    assert said == {"other"}
    assert document(record(model="x" * 100_000))["model"] == "x" * 200


def test_the_row_is_the_summary() -> None:
    """All that the log says without metrics stands in the line with them, too."""
    row = row_of(record(attempts=[attempt(), attempt(kind="hedge", outcome="left")]))
    assert row["attempts"] == ["first:openai/gpt-4o-mini:ok", "hedge:openai/gpt-4o-mini:left"]
    assert (
        row.items() <= document(record(attempts=[attempt(), attempt(kind="hedge", outcome="left")])).items()
    )


def test_where_lines_go(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain JSON goes to stderr, metrics to stdout, one line each."""
    call = record()
    write_json(call, figures(call))
    emf()(call, figures(call))
    out, err = capsys.readouterr()
    assert json.loads(err)["request_id"] == json.loads(out)["request_id"] == "req_1"
    assert (out.count("\n"), err.count("\n")) == (1, 1)
    assert "_aws" not in json.loads(err)
