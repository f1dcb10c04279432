import ast
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SOURCES = sorted(chain((ROOT / "shared").rglob("*.py"), (ROOT / "functions").rglob("*.py")))
TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts)
EVENTS = sorted((ROOT / "events").rglob("*.json"))


def _path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _name(requirement: str) -> str:
    """The name of the package that a requirement asks for, as locks write it."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def _functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions of a module, the inner ones too."""
    nodes = ast.walk(ast.parse(text))
    return (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _pins(lock: Path) -> dict[str, set[str]]:
    """Each package of a lock and its versions (two where Python versions differ)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        found.setdefault(_name(name), set()).add(version)
    return found


@pytest.mark.parametrize(
    "name",
    ["functions", "shared", "templates", "events", "tests", "serverless.yml", "pyproject.toml", "README.md"],
)
def test_top_level(name: str) -> None:
    """The names that people and tools look for stand at the top."""
    assert (ROOT / name).exists()


@pytest.mark.parametrize("path", SOURCES, ids=_path)
def test_size(path: Path) -> None:
    """No module is longer than 400 lines and no function longer than 50."""
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= 400
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in _functions(text)}
    assert not {name: length for name, length in lengths.items() if length > 50}


@pytest.mark.parametrize("path", sorted((ROOT / "functions").rglob("*.py")), ids=_path)
def test_entrypoint_size(path: Path) -> None:
    """An entrypoint hands an event to the core in at most 40 lines."""
    lines = len(path.read_text().splitlines())
    assert lines <= 40


@pytest.mark.parametrize("path", TESTS, ids=_path)
def test_rules_are_stated(path: Path) -> None:
    """Every test says in its docstring which rule it checks."""
    tests = [node for node in _functions(path.read_text()) if node.name.startswith("test_")]
    assert tests
    assert not [test.name for test in tests if not ast.get_docstring(test)]


@pytest.mark.parametrize("path", EVENTS, ids=_path)
def test_event(path: Path) -> None:
    """An event is one JSON object, filed under its cloud as <endpoint>.<case>.json or <endpoint>.json."""
    assert isinstance(json.loads(path.read_text()), dict)
    assert re.fullmatch(r"events/(aws|gcp|azure)/[a-z]+(\.[a-z0-9-]+)?\.json", _path(path))


@pytest.mark.parametrize("extra", EXTRAS)
def test_lock_covers_extra(extra: str) -> None:
    """What an extra asks for is pinned in the lock of its name, and so is what the core asks for."""
    wanted = {_name(r) for r in (*PROJECT["dependencies"], *EXTRAS[extra])} - {"firsttoken"}
    assert wanted <= _pins(ROOT / "requirements" / f"{extra}.txt").keys()


@pytest.mark.parametrize("lock", LOCKS, ids=_path)
def test_lock_is_reproducible(lock: Path) -> None:
    """A lock has a hash for every package and names no registry, so that it works with any mirror."""
    text = lock.read_text()
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text
    assert "--index" not in text


def test_locks_agree() -> None:
    """Every lock fits into the environment of the tests: no package has another version there."""
    everything = _pins(ROOT / "requirements" / "dev.txt")
    for lock in LOCKS:
        other = {name: v for name, v in _pins(lock).items() if not v <= everything.get(name, v)}
        assert not other, lock.name


@pytest.mark.parametrize("extra", [*EXTRAS, "core"])
def test_dependencies_have_a_reason(extra: str) -> None:
    """Each dependency is listed with its cost and licence in the record of decisions."""
    table = (ROOT / "docs" / "adr" / "0003-dependencies.md").read_text()
    wanted = {_name(r) for r in EXTRAS.get(extra, PROJECT["dependencies"])} - {"firsttoken"}
    assert not [name for name in wanted if f"| {name} " not in table]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=_path)
def test_decision_record(path: Path) -> None:
    """A decision has a number, a title, a date and a status."""
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name)
    title, _, rest = path.read_text().partition("\n")
    assert title.startswith(f"# {int(path.name[:4])}. ")
    assert re.search(r"^(Accepted|Superseded by \d+), \d{4}-\d{2}-\d{2}\.", rest, re.MULTILINE)


@pytest.mark.parametrize("command", ["make serve", "make test"])
def test_readme_names_the_two_commands(command: str) -> None:
    """The README says how to start and how to test."""
    assert re.search(rf"^\s*{command}\b", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_changelog_is_open() -> None:
    """The changelog has a place for what is not released yet."""
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"], ids=_path)
def test_program_is_executable(path: Path) -> None:
    """What make and continuous integration start can be started."""
    assert path.stat().st_mode & 0o100
    assert path.read_text().startswith("#!/bin/sh\n")
