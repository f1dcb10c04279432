"""``firsttoken stage aws | gcp | azure``: collect what a deployment uploads, in ``dist/<cloud>``.

The packages come from the committed locks, as wheels for the cloud's Python and processor, whatever machine
this is; nothing is built. Bytecode is made too: a cold start that has to compile takes about twice as long.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from firsttoken.commands.stage_plan import ARCHITECTURES, MEGABYTE, PLATFORMS, PYTHONS, Plan, checked
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.commands.stage_build import Report

_SHOWN = 15
_WIDTH = 30


def register(commands: Any) -> None:
    """Add ``stage`` to the commands."""
    parser = commands.add_parser("stage", help="collect what a deployment uploads: code, packages, bytecode")
    parser.add_argument("cloud", choices=tuple(PLATFORMS))
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default dist/<cloud>")
    parser.add_argument("--python", choices=PYTHONS, default="3.13", help="the cloud's (default %(default)s)")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="", help="default arm64 on AWS, else x86_64")
    parser.add_argument("--extras", default="", metavar="A,B", help="more locks, for example redis,cache")
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME",
        help="an AWS service that your own code calls through boto3; may be given again",
    )
    parser.add_argument("--max-mb", type=float, default=0.0, metavar="MB", help="refuse a larger stage")
    parser.add_argument("--remote-build", action="store_true", help="leave the packages to the cloud's build")
    parser.add_argument("--json", action="store_true", help="report as JSON, for programs")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Stage one cloud and print what came of it. Raises ConfigError, FirstTokenError."""
    from firsttoken.commands.stage_build import build

    out = (parsed.out or Path("dist", parsed.cloud)).absolute()
    if parsed.remote_build and parsed.cloud == "aws":
        raise ConfigError("--remote-build: AWS Lambda builds nothing; expected gcp or azure")
    plan = Plan(
        platform=PLATFORMS[parsed.cloud],
        project=Path.cwd(),
        out=out,
        python=parsed.python,
        arch=parsed.arch,
        extras=tuple(sorted({name.strip() for name in parsed.extras.split(",")} - {"", parsed.cloud})),
        services=tuple(parsed.service),
        limit=round(parsed.max_mb * MEGABYTE),
        vendored=not parsed.remote_build,
    )
    steps = Steps()
    try:
        report = build(checked(plan), steps)
    finally:
        steps.end()
    _warn(report)
    if parsed.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        sys.stdout.write(table(report))
    return 0


def _warn(report: Report) -> None:
    if not report.compiled:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.stderr.write(
            f"firsttoken: there is no Python {report.python} here to compile with (this is {here}): the stage"
            " has no bytecode, and its cold starts take about twice as long."
            f" Install Python {report.python}, or stage where there is one.\n"
        )
    if report.not_compiled:
        sys.stderr.write(f"firsttoken: cannot be compiled: {', '.join(report.not_compiled)}\n")


def table(report: Report) -> str:
    """Return the sizes for people, in MB (1,000,000 bytes)."""

    def row(name: str, size: int) -> str:
        return f"{name:<32}{size / MEGABYTE:>9.1f}\n"

    shown = list(report.parts.items())
    rest = sum(size for _, size in shown[_SHOWN:])
    lines = [f"{'PART':<32}{'MB':>9}\n", *[row(*part) for part in shown[:_SHOWN]]]
    lines += [row(f"{len(shown) - _SHOWN} more", rest)] if rest else []
    lines += [row(f"all, {report.files} files", report.bytes), row("  bytecode of it", report.bytecode_bytes)]
    if report.limit:
        lines.append(row("  allowed", report.limit))
    place = report.folder
    if report.archive:
        lines.append(row("as an archive", report.archive_bytes))
        place = report.archive
    return "".join(lines) + f"{place}\nsha256 {report.digest}\n"


class Steps:
    """Says on stderr what is being done: in one line on a terminal, in a line a step elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = ""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show a step, with a bar where its length is known."""
        if self._terminal:
            bar = f" [{'#' * round(done / total * _WIDTH):.<{_WIDTH}}]" if total else " ..."
            sys.stderr.write(f"\r\033[Kstage: {step}{bar}")
        elif step != self._said:
            sys.stderr.write(f"stage: {step}\n")
        self._said = step
        sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._terminal and self._said:
            sys.stderr.write("\r\033[K")
