"""``firsttoken load``: send requests as they are due, and report what became of them."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from firsttoken.bench.loadtest import Progress
    from firsttoken.bench.loadtest_scenario import LoadScenario

_BAR = 24
_PLAIN_EVERY = 20
_DEFAULT = "steady"


def register(commands: Any) -> None:
    """Add ``load`` to the commands."""
    parser = commands.add_parser("load", help="load an endpoint as users would, and report what they notice")
    parser.add_argument("what", nargs="?", default="", help="a URL, a TOML file, or a name from --list")
    parser.add_argument("--list", action="store_true", help="list the scenarios that come with the package")
    parser.add_argument("--url", default="", help="load this endpoint; else a gateway of the run's own")
    parser.add_argument("--key-env", default="", metavar="NAME", help="the variable that holds the API key")
    parser.add_argument("--model", help="what requests ask for")
    parser.add_argument("--rate", type=_positive, metavar="RPS", help="requests a second, the mean")
    parser.add_argument("--duration", type=_positive, metavar="S", help="seconds; surges are scaled with it")
    parser.add_argument("--process", choices=("poisson", "gamma", "constant"), help="how requests arrive")
    parser.add_argument("--shape", type=_positive, help="of gamma: 1 is Poisson, less comes in bursts")
    parser.add_argument("--trace", metavar="CSV", help="replay the times and token counts of this file")
    parser.add_argument("--speed", type=_positive, help="how much faster than recorded")
    parser.add_argument("--streamed", type=_share, metavar="SHARE", help="of the requests, 0 to 1")
    parser.add_argument("--repeated", type=_share, metavar="SHARE", help="of prompts that were asked before")
    parser.add_argument("--slo-ttft-ms", type=_positive, metavar="MS", help="what a good answer keeps")
    parser.add_argument("--slo-e2e-ms", type=_positive, metavar="MS", help="what a good answer keeps")
    parser.add_argument("--seed", type=int, help="the same seed sends the same load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line a request there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots there")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command; the exit status is 1 when an expectation is not met. Raises ConfigError."""
    import asyncio
    import signal

    from firsttoken.bench import loadreport_text, loadtest, loadtest_scenario

    if parsed.list:
        for name in loadtest_scenario.names():
            _say(f"{name:<10} {loadtest_scenario.read(name).description}")
        return 0
    is_url = parsed.what.startswith(("http://", "https://"))
    if not parsed.what or (is_url and parsed.url):
        expected = ", ".join(loadtest_scenario.names())
        raise ConfigError(f"WHAT: expected one URL, or a file or one of {expected} (and --url)")
    scenario = changed(loadtest_scenario.read(_DEFAULT if is_url else parsed.what), parsed)
    for path in (parsed.json, parsed.csv, parsed.html):
        if path is not None and not path.parent.is_dir():  # before an hour of load, not after it
            raise ConfigError(f"{path}: there is no such folder")
    # Whoever ends the command does not want its processes to stay.
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        url = parsed.what if is_url else parsed.url
        report, samples = asyncio.run(
            loadtest.run(scenario, url=url, key=_key(parsed.key_env), progress=_Line(scenario.name))
        )
    finally:
        signal.signal(signal.SIGTERM, previous)
    report.command = _command(parsed)
    report.machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    _write(parsed, report, samples)
    _say(loadreport_text.render(report))
    return 0 if report.passed else 1


def changed(scenario: LoadScenario, parsed: argparse.Namespace) -> LoadScenario:
    """Return the scenario with what the command line says otherwise."""
    from msgspec.structs import replace

    def given(*names: str, prefix: str = "") -> dict[str, Any]:
        said = {name: getattr(parsed, prefix + name) for name in names}
        return {name: value for name, value in said.items() if value is not None}

    if parsed.duration is not None:
        scenario = scenario.lasting(parsed.duration)
    return replace(
        scenario,
        **given("seed", "model"),
        arrivals=replace(scenario.arrivals, **given("process", "rate", "shape", "trace", "speed")),
        mix=replace(scenario.mix, **given("streamed", "repeated")),
        slo=replace(scenario.slo, **given("ttft_ms", "e2e_ms", prefix="slo_")),
    )


def _write(parsed: argparse.Namespace, report: Any, samples: Any) -> None:
    import msgspec

    from firsttoken.bench import loadreport_html, loadreport_text

    if parsed.json:
        parsed.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if parsed.csv:
        loadreport_text.write_csv(parsed.csv, samples, report.slo)
    if parsed.html:
        parsed.html.write_text(loadreport_html.page(report, samples), "utf-8")


def _command(parsed: argparse.Namespace) -> str:
    """Return the command line, without where results are written."""
    words = ["firsttoken", "load", parsed.what]
    for name, value in vars(parsed).items():
        if name not in {"what", "list", "run", "json", "csv", "html"} and value not in {None, ""}:
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _key(variable: str) -> str:
    if variable and not os.environ.get(variable):
        raise ConfigError(f"--key-env {variable}: expected this variable to be set")
    return os.environ.get(variable, "") if variable else ""


class _Line:
    """The progress: one line that is written anew on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._told = 0

    def __call__(self, progress: Progress) -> None:
        self._told += 1
        share = min(progress.elapsed / progress.duration, 1.0)
        said = f"{self._name}: {progress.elapsed:.0f} of {progress.duration:g} s, {progress.sent} sent,"
        said += f" {progress.ended} ended, {progress.failed} failed"
        if progress.broken:
            said += f"; broken: {', '.join(progress.broken)}"
        if self._terminal:
            full = round(share * _BAR)
            sys.stderr.write(f"\r\033[K[{'#' * full}{'.' * (_BAR - full)}] {said}" + "\n" * progress.over)
        elif self._told % _PLAIN_EVERY == 0 or progress.over:
            sys.stderr.write(said + "\n")
        sys.stderr.flush()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text}")
    return value


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
