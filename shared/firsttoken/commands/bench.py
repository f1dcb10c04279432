"""``firsttoken bench save|compare``: keep what a run measured, and say whether a later one is slower."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsttoken.commands.tables import table
from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.bench.compare import Finding
    from firsttoken.bench.samples import Samples

FOLDER = Path("benchmarks/baselines")
_HEAD = ("metric", "of", "before", "after", "change", "interval", "p", "effect", "samples", "verdict")
_NUMBERS = ("before", "after", "change", "p", "effect")
_NONE = "-"


def register(commands: Any) -> None:
    """Add ``bench``, with ``save`` and ``compare`` below it, to the commands."""
    parser = commands.add_parser("bench", help="keep measurements, and compare later ones with them")
    group = parser.add_subparsers(required=True, metavar="COMMAND")
    save = group.add_parser("save", help="keep samples as a baseline")
    save.add_argument("name")
    save.add_argument("files", nargs="+", type=Path, metavar="FILE", help=_kinds())
    save.add_argument("--command", default="", metavar="TEXT", help="what made them")
    save.add_argument(
        "--machine", default="", metavar="TEXT", help="where (default: what the files say, or here)"
    )
    save.add_argument("--force", action="store_true", help="replace a baseline of that name")
    _folder(save)
    save.set_defaults(run=run_save)
    compare = group.add_parser(
        "compare", help="ends with 1 where anything is slower, 3 where there are not enough samples"
    )
    compare.add_argument("before", metavar="BASELINE", help="its name, or a file")
    compare.add_argument("after", nargs="+", metavar="RUN", help="names or files; several are put together")
    _rules(compare)
    _folder(compare)
    compare.add_argument("--json", action="store_true", help="as JSON, for programs")
    compare.set_defaults(run=run_compare)


def _kinds() -> str:
    return "samples, a load's CSV, a chaos report, a log of the gateway, JSON lists; several are put together"


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where baselines are kept (default %(default)s)"
    )


def _rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--margin", type=_share, default="5%", help="a shift that nobody minds (default 5%%)")
    parser.add_argument(
        "--tail-margin", type=_share, default="25%", metavar="MARGIN", help="the same of the tail (25%%)"
    )
    parser.add_argument("--tail", type=_tail, default="p99", metavar="pN", help="or 'off' (default p99)")
    parser.add_argument("--confidence", type=_share, default="95%", metavar="SHARE", help="default 95%%")
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this one; may be given again"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the bootstrap (default %(default)s)")


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if not found or not 0 < float(found[1]) < 100:
        raise argparse.ArgumentTypeError(f"expected a share between 0% and 100% such as 5%, got {text}")
    return float(found[1]) / 100


def _tail(text: str) -> float | None:
    if text == "off":
        return None
    found = re.fullmatch(r"p(\d{2}(?:\.\d{1,3})?)", text)
    if not found or not 50 < float(found[1]) < 100:
        raise argparse.ArgumentTypeError(f"expected 'off' or a percentile above p50 such as p99, got {text}")
    return float(found[1]) / 100


def run_save(parsed: argparse.Namespace) -> int:
    """Write a baseline. Raises ConfigError for files that are none, and where it would replace one."""
    import msgspec

    from firsttoken.bench import samples

    file = samples.location(parsed.name, parsed.folder)
    if file.exists() and not parsed.force:
        raise ConfigError(f"{file}: there is a baseline of that name; --force replaces it")
    found = samples.joined([_read(path) for path in parsed.files], parsed.name)
    kept = msgspec.structs.replace(
        found,
        command=parsed.command or found.command,
        machine=parsed.machine or found.machine or _here(),
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(samples.encode(kept))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    counts = ", ".join(f"{len(one.values)} of {metric}" for metric, one in kept.series.items())
    sys.stdout.write(f"{file}: {counts}\n")
    return 0


def run_compare(parsed: argparse.Namespace) -> int:
    """Print what came of each metric. Raises ConfigError for what cannot be read or compared."""
    import msgspec

    from firsttoken.bench import verdict
    from firsttoken.bench.compare import Rules, compare
    from firsttoken.bench.samples import joined

    before = _only(_named(parsed.before, parsed.folder), parsed.metric)
    after = joined([_named(one, parsed.folder) for one in parsed.after], " + ".join(parsed.after))
    rules = Rules(
        margin=parsed.margin,
        tail_margin=parsed.tail_margin,
        tail=parsed.tail,
        alpha=1 - parsed.confidence,
        seed=parsed.seed,
    )
    findings = compare(before, after, rules)
    status = verdict.exit_status(finding.verdict for finding in findings)
    if parsed.json:
        runs = {"before": _origin(before), "after": _origin(after)}
        report = {**runs, "rules": rules, "status": status, "findings": findings}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        sys.stdout.write("\n".join([*_runs(before, after), *shown(findings)]) + "\n")
    return status


def _named(said: str, folder: Path) -> Samples:
    from firsttoken.bench import samples

    path = Path(said)
    return _read(path if path.is_file() else samples.location(said, folder))


def _read(path: Path) -> Samples:
    import msgspec

    from firsttoken.bench import samples, samples_convert

    found = samples_convert.read(samples.contents(path), str(path))
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return msgspec.structs.replace(found, date=found.date or changed)


def _only(before: Samples, metrics: Sequence[str]) -> Samples:
    import msgspec

    if unknown := [metric for metric in metrics if metric not in before.series]:
        raise ConfigError(f"--metric: expected one of {', '.join(before.series)}, got {unknown[0]}")
    kept = {metric: one for metric, one in before.series.items() if not metrics or metric in metrics}
    return msgspec.structs.replace(before, series=kept)


def _here() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _origin(samples: Samples) -> dict[str, str]:
    said = {"name": samples.name, "command": samples.command}
    return {**said, "machine": samples.machine, "date": samples.date}


def _runs(before: Samples, after: Samples) -> list[str]:
    lines = [
        f"{role}: {', '.join(filter(None, [run.name, run.date, run.machine, run.command]))}"
        for role, run in (("before", before), ("after", after))
    ]
    if after.machine and before.machine != after.machine:
        lines.append("The machines differ: a difference may be theirs.")
    return [*lines, ""]


def shown(findings: Sequence[Finding]) -> list[str]:
    """Return the findings as lines for people: a table, and how many there are of each verdict."""
    verdicts = [finding.verdict for finding in findings]
    total = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    return [*table(_HEAD, [_row(finding) for finding in findings], right=_NUMBERS), "", total]


def _row(finding: Finding) -> tuple[str, ...]:
    said: str = finding.verdict
    if finding.wanted:
        said += f" (about {finding.wanted} a side)"
    elif finding.confidence is not None:
        # Never rounded up to certainty.
        said += f" ({min(finding.confidence, 0.999):.1%})"
    low, high = _percent(finding.low), _percent(finding.high)
    return (
        finding.metric,
        finding.statistic,
        _value(finding.before, finding.unit),
        _value(finding.after, finding.unit),
        _percent(finding.change),
        _NONE if finding.low is None else f"{low} to {high}",
        _NONE if finding.p is None else f"{finding.p:.4f}",
        _NONE if finding.effect is None else f"{finding.effect:+.2f}",
        f"{finding.samples[0]}/{finding.samples[1]}",
        said,
    )


def _value(value: float | None, unit: str) -> str:
    return _NONE if value is None else f"{value:.4g} {unit}".rstrip()


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:+.1%}"
