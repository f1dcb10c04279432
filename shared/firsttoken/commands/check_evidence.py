"""Rules of ``firsttoken check`` about what was measured and made: models, load, prompts, events, packages."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from firsttoken.commands.check_project import CONFIG, Project
from firsttoken.commands.check_result import Findings, absent, fail, ok, warn
from firsttoken.commands.stage_plan import MEGABYTE, PLATFORMS

RESULTS = "benchmarks/results"
_MEASURED = f"{RESULTS}/models.json"
_OF_LOAD = frozenset({"requests", "rate", "concurrency", "scenario"})
"""Keys that a result of calls under load has somewhere."""
_DATES = ("date", "finished", "started", "measured_at")
_PROMPTS = (".md", ".txt", ".j2", ".jinja", ".jinja2", ".toml", ".yml", ".yaml")
_VOLATILE = frozenset(
    [
        *("now", "today", "date", "time", "timestamp", "datetime"),
        *("uuid", "nonce", "random", "request", "session", "id"),
    ]
)
_PLACEHOLDER = re.compile(r"\{\{?\s*([A-Za-z_][\w.]*)[^{}\n]*\}\}?|\$\{?([A-Za-z_]\w*)\}?")
_CACHED_FROM = 4_000
"""Characters that a prompt must have before providers keep its beginning: about 1,024 tokens."""
_DAY = 86_400.0


def models_are_measured(project: Project) -> Findings:
    """Check that models were compared for the task at hand before one was taken."""
    wanted = _models(project)
    if not wanted:
        return
    fix = (
        f"measure the models that come into question, with their quality, into {_MEASURED};"
        f" `firsttoken models choose --measured {_MEASURED}` names the best"
    )
    found = {name: said["models"] for name, said in _results(project) if isinstance(said.get("models"), dict)}
    if not found:
        yield warn(f"no {_MEASURED}: {', '.join(sorted(wanted))} was not compared with any other", fix)
    for name, models in found.items():
        measured = {one.partition("/")[2] for one in models}
        if missing := sorted(model for model in wanted if not any(_same(model, one) for one in measured)):
            yield warn(f"{name} does not have {', '.join(missing)}", fix)
        elif len(models) < 2:
            yield warn(f"{name} has one model, so nothing was compared", fix)
        elif any("quality" not in _table(figures) for figures in models.values()):
            yield warn(f"{name} has speed, but not the quality of every model", fix)
        else:
            yield ok(f"{name}: {len(models)} models, with their quality")


def load_was_tested(project: Project) -> Findings:
    """Check that somebody knows what happens under load, and that it was not long ago."""
    fix = f"`firsttoken load YOUR_ENDPOINT --json {RESULTS}/load.json` (docs/load.md)"
    found = [(name, said) for name, said in _results(project) if _keys(said) & _OF_LOAD]
    if not found:
        yield warn(f"no result of a load test in {RESULTS}", fix)
        return
    for name, said in found:
        if said.get("passed") is False:
            yield fail(f"{name} missed its bars", "see what it says, mend that, and run it again")
    when, how, name = max((*_when(project, name, said), name) for name, said in found)
    day = datetime.fromtimestamp(when, UTC).date()
    if project.now - when > project.max_age:
        yield warn(f"the newest, {name}, is of {day} ({how})", fix)
    else:
        yield ok(f"{len(found)} results, the newest {name} of {day} ({how})")


def prompts_begin_alike(project: Project) -> Findings:
    """Check that what changes from call to call stands at the end of a prompt: what follows is not cached."""
    names = [
        name
        for name in project.files
        if fnmatch(name, "prompts/*") or fnmatch(name, "functions/*/prompts/*")
        if name.endswith(_PROMPTS)
    ]
    if not names:
        yield absent("no prompts/ folder: prompts come with the calls")
    for name in names:
        text = project.text(name)
        for found in _PLACEHOLDER.finditer(text):
            variable = found[1] or found[2]
            after = len(text) - found.end()
            if _VOLATILE.intersection(re.split(r"[._]", variable.lower())) and after > _CACHED_FROM:
                line = text.count("\n", 0, found.start()) + 1
                yield warn(
                    f"{name}:{line} {variable}: the {after:,} characters behind it are never cached",
                    "move what changes to the end, or into the user's message",
                )
                break
        else:
            yield ok(f"{name}: nothing volatile before what is long")


def events_are_there(project: Project) -> Findings:
    """Check that functions have events to be run with, a streamed call among them, and tests of them."""
    clouds = [cloud for cloud in project.clouds() if project.entrypoints(cloud)]
    for cloud in clouds:
        names = [name for name in project.files if fnmatch(name, f"events/{cloud}/*.json")]
        broken = [name for name in names if not _object(project.text(name))]
        streamed = [
            name
            for name in sorted(names, key=_is_stream)
            if re.search(r'\\?"stream\\?":\s*true', project.text(name))
        ]
        if broken:
            yield fail(
                f"{cloud}: {', '.join(broken)}: not a JSON object", "write the event as the cloud sends it"
            )
        elif not streamed:
            yield warn(
                f"{cloud}: {len(names)} events in events/{cloud}, none of a streamed call",
                f"events/{cloud}/chat.stream.json; `firsttoken invoke {cloud} FILE` runs it",
            )
        else:
            yield ok(f"{cloud}: {len(names)} events; `firsttoken invoke {cloud} {streamed[0]}` runs one")
    tests = [name for name in project.files if fnmatch(name, "tests/*.py")]
    if clouds and not project.mentions(tests, "events"):
        yield warn("no test mentions events/", "tests/test_events.py, as in the templates")


def packages_are_staged(project: Project) -> Findings:
    """Check that what is uploaded has bytecode, is as new as its sources, and within the cloud's limit."""
    for cloud in project.clouds():
        if not project.entrypoints(cloud):
            continue
        fix = f"`firsttoken stage {cloud}`"
        manifest = project.root / "dist" / cloud / "firsttoken-stage.json"
        if not manifest.is_file():
            yield warn(f"{cloud}: nothing is staged in dist/{cloud}", fix)
            continue
        said = _object(project.text(f"dist/{cloud}/firsttoken-stage.json"))
        size = sum(path.stat().st_size for path in manifest.parent.rglob("*") if path.is_file())
        limit = PLATFORMS[cloud].limit
        about = f"{cloud}: dist/{cloud}, {size / MEGABYTE:.1f} MB"
        sources = [project.root / name for name in (*project.entrypoints(cloud), CONFIG)]
        newer = [path.name for path in sources if path.is_file() and _mtime(path) > _mtime(manifest)]
        if limit and size > limit:
            yield fail(f"{about} of {limit / MEGABYTE:.0f} that it may have", f"{fix}; fewer --extras")
        elif not said.get("bytecode"):
            yield warn(f"{about}, no bytecode: a cold start takes twice as long", f"{fix} with that Python")
        elif newer:
            yield warn(f"{about}, older than {', '.join(sorted(newer))}", fix)
        else:
            yield ok(
                f"{about} of {limit / MEGABYTE:.0f}, with bytecode" if limit else f"{about}, with bytecode"
            )


def _models(project: Project) -> set[str]:
    """Return the models that routes ask first, without those that are simulated."""
    if not project.said("models"):
        return set()
    found = set()
    for route in project.settings.models.values():
        for weighted in route.all_targets():
            provider, _, model = weighted.target.partition("/")
            kind = project.settings.providers[provider].__struct_config__.tag
            found |= set() if kind in ("simulated", "local") or model == "*" else {model}
    return found


def _same(one: str, other: str) -> bool:
    """Return whether two ids are of one model: inference profiles begin with a region."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _results(project: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in project.files:
        if fnmatch(name, f"{RESULTS}/*.json") and (said := _object(project.text(name))):
            yield name, said


def _is_stream(name: str) -> bool:
    """Return a key that sorts events named so before others."""
    return not name.endswith("stream.json") or name.endswith("nonstream.json")


def _object(text: str) -> dict[str, Any]:
    try:
        return _table(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _keys(value: Any, depth: int = 4) -> frozenset[str]:
    """Return the keys of a JSON value, down to a depth."""
    if depth and isinstance(value, dict):
        return frozenset(value).union(*(_keys(part, depth - 1) for part in value.values()))
    if depth and isinstance(value, list):
        return frozenset().union(*(_keys(part, depth - 1) for part in value[:3]))
    return frozenset()


def _when(project: Project, name: str, said: dict[str, Any]) -> tuple[float, str]:
    """Return when a result was made: as it says itself, as git knows, or as the file's time says."""
    for key in _DATES:
        try:
            found = datetime.fromisoformat(str(said[key]))
        except (KeyError, ValueError):
            continue
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp(), f"its {key}"
    if committed := _committed(project, name):
        return committed, "its commit"
    return _mtime(project.root / name), "the file's time"


def _committed(project: Project, name: str) -> float:
    """Return when a file was committed last, 0 where that is not known or not how it is now."""
    command = ["git", "-C", str(project.root)]
    try:
        changed = subprocess.run(  # noqa: S603 - fixed, but for the name of a file
            [*command, "status", "--porcelain", "--", name], capture_output=True, timeout=10, check=True
        )
        logged = subprocess.run(  # noqa: S603 - as above
            [*command, "log", "-1", "--format=%ct", "--", name], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0.0
    return float(logged.stdout or 0) if not changed.stdout.strip() else 0.0


def _mtime(path: Path) -> float:
    return float(path.stat().st_mtime)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
