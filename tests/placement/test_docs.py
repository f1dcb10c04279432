"""What docs/models.md and docs/placement.md promise: commands that run, and the catalogue's figures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from firsttoken.cli import main
from firsttoken.placement.models import catalogue
from firsttoken.placement.regions import CLOUDS, atlas

DOCS = Path(__file__).parents[2] / "docs"
MODELS = (DOCS / "models.md").read_text("utf-8")
PLACEMENT = (DOCS / "placement.md").read_text("utf-8")
COMMANDS = re.findall(r"^firsttoken (.*)$", MODELS + PLACEMENT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of the pages works as it stands, with the file of measurements that the page shows."""
    example = re.search(r"```json\n(.*?)```", MODELS, re.DOTALL)
    (tmp_path / "results.json").write_text(example[1], "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command, comments=True)) == 0
    assert capsys.readouterr().out


def test_figures() -> None:
    """The pages say as many models, pairs and constants as there are."""
    line = atlas().estimate
    pairs = sum(map(len, atlas().rtt["azure"].above_diagonal))
    assert f"{len(catalogue().models)} models" in MODELS
    assert f"{pairs} pairs" in PLACEMENT
    assert f"{line.base_ms} + {line.ms_per_1000_km}" in PLACEMENT
    assert f"median it is {line.median_error * 100:.0f} %" in PLACEMENT


def test_models_without_regions_are_those_that_the_page_names() -> None:
    """The page lists every model of a cloud that has a price and no region, and no other."""
    offered = {(offer.provider, offer.family) for offer in atlas().offers}
    missing = {
        row.family
        for row in catalogue().models
        if row.provider in CLOUDS.values() and (row.provider, row.family) not in offered
    }
    listed = re.search(r"- Some models have prices but no regions.*?(?=\n- )", PLACEMENT, re.DOTALL)[0]
    assert set(re.findall(r"`([^`]+)`", listed)) - {"place"} == missing
