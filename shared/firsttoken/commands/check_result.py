"""What a rule of ``firsttoken check`` finds, and what follows from several findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from firsttoken.commands.check_project import Project

Status = Literal["fail", "warn", "not checked", "pass", "not applicable"]
STATUSES: tuple[Status, ...] = ("fail", "warn", "not checked", "pass", "not applicable")
"""The worst first."""


class Finding(Struct, frozen=True):
    """One thing that was found, with its evidence, and the setting or command that mends it."""

    status: Status
    evidence: str
    fix: str = ""


Findings = Iterator[Finding]


class Rule(Struct, frozen=True):
    """One line of the checklist."""

    id: str
    title: str
    check: Callable[[Project], Findings]
    """Yields findings; none where there is nothing that the rule is about."""
    about: str = "[models.NAME] in firsttoken.toml"
    """What there is none of, where it finds nothing."""


class Result(Struct, frozen=True):
    """A rule with what came of it; all evidence has its status."""

    rule: str
    title: str
    status: Status
    evidence: tuple[str, ...]
    fix: tuple[str, ...] = ()


def ok(evidence: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding("pass", evidence)


def warn(evidence: str, fix: str) -> Finding:
    """Return a step that nobody took."""
    return Finding("warn", evidence, fix)


def fail(evidence: str, fix: str) -> Finding:
    """Return what loses calls, breaks the stream or gives a secret away."""
    return Finding("fail", evidence, fix)


def unchecked(evidence: str) -> Finding:
    """Return what cannot be said from here."""
    return Finding("not checked", evidence)


def absent(evidence: str) -> Finding:
    """Return why a rule has nothing to say."""
    return Finding("not applicable", evidence)


def result_of(rule: Rule, project: Project) -> Result:
    """Return what a rule finds: the worst status, with the evidence and the remedies of that status."""
    found = list(rule.check(project)) or [absent(f"no {rule.about}")]
    worst = min((one.status for one in found), key=STATUSES.index)
    kept = [one for one in found if one.status == worst]
    return Result(
        rule=rule.id,
        title=rule.title,
        status=worst,
        evidence=tuple(dict.fromkeys(one.evidence for one in kept)),
        fix=tuple(dict.fromkeys(one.fix for one in kept if one.fix)),
    )
