"""``firsttoken models`` and ``firsttoken models choose``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsttoken.cli import main
from firsttoken.placement.models import catalogue

ON = ("--on", "2026-11-22")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run the command and return what it says: its output, or its error."""
    assert main(["models", *arguments]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_the_table_has_every_model_and_the_day_of_its_prices(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a model, under a head, and the day whose prices these are."""
    text = said(capsys, *ON)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["provider", "model", "tier"]
    assert len(lines[1 : lines.index("")]) == len(catalogue().models)
    assert "list prices on 2026-11-22" in text


def test_prices_of_another_day(capsys: pytest.CaptureFixture[str]) -> None:
    """--on shows what will hold then, and from when."""
    text = said(capsys, "--provider", "gemini", "--on", "2027-01-15")
    line = next(line for line in text.splitlines() if "gemini-3.8-flash" in line)
    assert line.split()[4:9] == ["1.5", "0.15", "7.5", "3", "2027-01-01"]


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    """Tier, provider and price leave out what does not fit; a price that is not known fits no cap."""
    found = json.loads(
        said(capsys, "--tier", "fast", "--provider", "azure", "--max-price", "0.3", "--json", *ON)
    )
    assert [row["model"] for row in found["models"]] == ["gpt-6-luna"]
    assert found["prices"] == "2026-11-22"
    assert found["models"][0]["rates"]["input"] == 0.1
    assert found["models"][0]["source"].startswith("https://")


def test_a_region_shows_the_id_to_call_there(capsys: pytest.CaptureFixture[str]) -> None:
    """In a region a model goes by its inference profile, and only what is served there is shown."""
    text = said(capsys, "--region", "eu-central-1", *ON)
    assert "eu.anthropic.claude-sonnet-5-5" in text
    assert "gemini" not in text
    found = json.loads(said(capsys, "--region", "eu-west-2", "--provider", "bedrock", "--json", *ON))
    sonnet = next(row for row in found["models"] if row["family"] == "claude-sonnet-5-5")
    assert sonnet["offer"]["processed"] == ["EU", "UK"]


def test_choose(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The three choices come first, then what fits, then what does not and why."""
    file = tmp_path / "results.json"
    file.write_text(
        '{"models": {"openai/gpt-6-luna": {"ttft": 0.3, "tokens_per_second": 100, "quality": 0.8}}}'
    )
    arguments = ("--tier", "fast", "--max-price", "0.5", "--deadline", "20", "--measured", str(file), *ON)
    lines = said(capsys, "choose", *arguments).splitlines()
    assert lines[0].startswith("cheapest of 1 that fit: openai/gpt-6-luna, 0.2 dollars")
    assert lines[1] == "fastest: openai/gpt-6-luna, 10.3 s for the whole answer"
    assert lines[2] == "best: openai/gpt-6-luna, 0.8 in your measurement"
    assert "not bedrock/amazon.nova-micro-v1:0: no published or measured speed" in lines
    found = json.loads(said(capsys, "choose", *arguments, "--json"))
    assert found["fastest"]["seconds"] == 10.3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--tier", "quick"), 2, "--tier 'quick' is not known; expected one of fast, balanced, quality"),
        (("--provider", "ibm"), 2, "--provider 'ibm' is not known; expected one of anthropic, azure"),
        (("--region", "mars-1"), 2, "--region 'mars-1' is not known; expected one of af-south-1"),
        (("--max-price", "0.0001"), 2, "nothing in the catalogue meets all of these conditions"),
        (("choose", "--tier", "quick"), 2, "--tier 'quick' is not known"),
        (("choose", "--tier", "fast", "--deadline", "1"), 1, "no published or measured speed"),
        (("choose", "--measured", "nowhere.json"), 2, "nowhere.json: expected measurements such as"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value is answered with the right ones, and an exit code above 0."""
    assert message in said(capsys, *arguments, *ON, code=code)


@pytest.mark.parametrize(
    "arguments",
    [("--max-price", "0"), ("--on", "soon"), ("choose", "--prompt", "0"), ("choose", "--deadline", "-1")],
)
def test_values_out_of_range(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no price, day, length or time is refused before anything is looked up."""
    with pytest.raises(SystemExit, match="2"):
        main(["models", *arguments])
    assert "expected" in capsys.readouterr().err
