"""``firsttoken place``."""

from __future__ import annotations

import json
import tomllib

import pytest

from firsttoken.cli import main

UNION = ("--users", "eu", "--residency", "eu", "--cloud", "aws")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run the command and return what it says: its output, or its error."""
    assert main(["place", *arguments]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_the_table_says_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Regions, targets in order, what is kept, what is estimated, and the day of the catalogue."""
    text = said(capsys, *UNION, "--failover")
    assert text.startswith("aws: nova-micro (fast), ~")
    assert "1. eu.amazon.nova-micro-v1:0" in text
    assert "stands by" in text
    assert "residency: functions, endpoints and processing are kept in EU" in text
    assert "are estimated from the distance" in text
    assert "catalogue of 2026-11-22" in text


def test_other_clouds_are_named_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --cloud the others are named, with what they would give."""
    text = said(capsys, "--users", "us")
    assert text.count("instead: ") == 2


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: the functions with their targets, and the reasons."""
    plan = json.loads(said(capsys, *UNION, "--json"))
    assert {placed["group"] for placed in plan["placed"]} == {"EU"}
    assert len({placed["region"] for placed in plan["placed"]}) == 2
    assert plan["placed"][0]["targets"][0]["processed"] == ["EU"]
    assert len(plan["why"]) == 4


def test_toml_is_the_part_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """The targets of the first function, or of the one that is named, in their order."""
    plan = json.loads(said(capsys, *UNION, "--json"))
    for arguments, placed in zip(
        [("--toml",), ("--toml", plan["placed"][1]["region"])], plan["placed"], strict=True
    ):
        written = tomllib.loads(said(capsys, *UNION, *arguments))
        targets = [target.partition("/")[2] for target in written["models"]["fast"]["targets"]]
        assert targets == [target["model"] for target in placed["targets"]]
        assert {provider["kind"] for provider in written["providers"].values()} == {"bedrock"}


def test_shares(capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of users are numbers after an equals sign; the case of names does not matter."""
    plan = json.loads(said(capsys, "--users", "EU=9, us=1", "--cloud", "aws", "--failover", "--json"))
    assert plan["placed"][0]["group"] == "EU"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--users", "moon"), 2, "users 'moon' is not known; expected one of eu, us"),
        (("--users", "eu=many"), 2, "--users eu=many: expected a number after =, as in eu=3"),
        (("--users", "eu=0"), 2, "users eu: expected a share above 0"),
        (("--users", "eu", "--residency", "mars"), 2, "residency 'MARS' is not known; expected one of AE"),
        (("--users", "eu", "--cloud", "ibm"), 2, "cloud 'ibm' is not known; expected one of aws, azure, gcp"),
        (("--users", "eu", "--model", "quick"), 2, "expected a tier (fast, balanced, quality) or one of"),
        (("--users", "eu", "--residency", "no"), 1, "azure: only one region of the catalogue in NO"),
        ((*UNION, "--toml", "us-east-1"), 2, "region 'us-east-1' is not in the plan; expected eu-"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value is answered with the right ones; what cannot be kept is refused with the reason."""
    assert message in said(capsys, *arguments, code=code)
