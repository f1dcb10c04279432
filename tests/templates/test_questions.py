"""What the templates ask: little, in words, checked before anything is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.exceptions import FailedHookException
from templates.baking import CLOUDS, ROOT, Case, bake, questions

MENU = json.loads((ROOT / "cookiecutter.json").read_text())["templates"]
REGIONS = json.loads((ROOT / "shared/firsttoken/placement/regions.json").read_text())["regions"]


def asked(cloud: str) -> dict[str, Any]:
    """The questions of a template with their defaults or choices."""
    return {name: value for name, value in questions(cloud).items() if not name.startswith("_")}


def test_menu_has_every_template() -> None:
    """The menu leads to each template, and says what it is."""
    assert {name: entry["path"] for name, entry in MENU.items()} == {c: f"./templates/{c}" for c in CLOUDS}
    assert all(entry["title"] and entry["description"] for entry in MENU.values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_questions_are_few_and_in_words(cloud: str) -> None:
    """At most seven, the same on every cloud; each and each choice is explained, and none is a secret."""
    names, prompts = asked(cloud), questions(cloud)["__prompts__"]
    assert len(names) <= 7
    assert list(names) == list(asked("aws"))
    assert not [name for name in names if re.search("key|secret|password|token", name)]
    assert prompts.keys() == names.keys()
    for name, value in names.items():
        assert isinstance(prompts[name], str) or prompts[name].keys() == {"__prompt__", *value}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_regions_are_those_of_the_catalogue(cloud: str) -> None:
    """A template takes the catalogue's regions in their residency groups; its defaults are two of one."""
    known = questions(cloud)["_regions"]
    listed = {(group, name) for group, names in known.items() for name in names}
    assert listed == {(row["group"], row["id"]) for row in REGIONS if row["cloud"] == cloud}
    defaults = {asked(cloud)[name] for name in ("primary_region", "failover_region")}
    assert len(defaults) == 2
    assert any(defaults <= set(names) for names in known.values())


@pytest.mark.parametrize("hook", ["pre_gen_project.py", "post_gen_project.py"])
def test_hooks_know_no_place(hook: str) -> None:
    """No hook reads the template's own folder, which tools keep in different places."""
    assert "_repo_dir" not in (ROOT / "templates" / "common" / "hooks" / hook).read_text()


WRONG = {
    "same regions": (
        {"primary_region": "eu-west-1", "failover_region": "eu-west-1"},
        "failover_region: it must differ from primary_region, and both are eu-west-1",
    ),
    "another cloud's region": (
        {"primary_region": "westeurope"},
        "primary_region: 'westeurope' is no region of aws",
    ),
    "across a border": (
        {"failover_region": "us-east-1"},
        "failover_region: us-east-1 is in US, eu-central-1 in EU",
    ),
    "no queue for batches": (
        {"shape": "batch-recovery", "recovery_queue": "no"},
        "recovery_queue: the shape batch-recovery is made of it",
    ),
    "queue without a store": ({"cache": "memory"}, "cache: what waits in the recovery queue"),
    "no name": ({"project_name": "!"}, "project_name: '-' is made of '!'"),
    "quotes": ({"project_name": "'\" \\ 7"}, "project_name: '7' is made of"),
}


@pytest.mark.parametrize(("answers", "said"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_refused(
    answers: dict[str, str], said: str, repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was wrong comes first, in words, and nothing is left behind."""
    with pytest.raises(FailedHookException):
        bake(repository, Case("aws", answers), tmp_path / "out")
    assert capfd.readouterr().err.startswith(said)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name != "replay"]


def test_unknown_choice_is_refused(repository: Path, tmp_path: Path) -> None:
    """A shape that does not exist yet is not offered."""
    with pytest.raises(ValueError, match="rag provided for choice variable shape"):
        bake(repository, Case("aws", {"shape": "rag"}), tmp_path)


def test_border_may_be_crossed_on_purpose(repository: Path, tmp_path: Path) -> None:
    """Who allows it gets two regions of different groups, and the settings name both."""
    answers = {"failover_region": "us-east-1", "provider": "bedrock", "_allow_other_residency": "yes"}
    made = bake(repository, Case("aws", answers), tmp_path)
    settings = (made / "firsttoken.toml").read_text()
    assert 'region = "eu-central-1"' in settings
    assert 'region = "us-east-1"' in settings
