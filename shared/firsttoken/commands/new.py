"""``firsttoken new CLOUD``: make a project of one of the templates, with cookiecutter asking its questions.

It does what ``cookiecutter SOURCE --directory templates/CLOUD`` does, finds the templates of this checkout by
itself, and checks names of answers before anything is made.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from firsttoken.errors import ConfigError

CLOUDS = ("aws", "gcp", "azure")


def register(commands: Any) -> None:
    """Add ``new`` to the commands."""
    parser = commands.add_parser("new", help="make a project from a template: questions, then files")
    parser.add_argument("cloud", nargs="?", choices=CLOUDS, help="asked for where it is not given")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=ANSWER",
        help="the answer to a question, for example project_name=helpdesk; may be given again",
    )
    parser.add_argument("--defaults", action="store_true", help="ask nothing, take the defaults")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where it is made (here)")
    parser.add_argument(
        "--source", default="", metavar="PATH_OR_URL", help="of firsttoken's repository (this checkout)"
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Make the project and say what comes next. Raises ConfigError for what cannot be made."""
    answers = _answers(parsed.set)
    cookiecutter, errors = _cookiecutter()
    source = parsed.source or str(_checkout())
    if parsed.defaults and not parsed.cloud:
        raise ConfigError(f"--defaults: expected a cloud before it, one of {', '.join(CLOUDS)}")
    cloud = parsed.cloud or _asked()
    _check_names(Path(source, "templates", cloud, "cookiecutter.json"), answers)
    parsed.out.mkdir(parents=True, exist_ok=True)
    try:
        made = cookiecutter(
            source,
            directory=f"templates/{cloud}",
            no_input=parsed.defaults,
            extra_context=answers or None,
            output_dir=str(parsed.out),
        )
    except errors.OutputDirExistsException as error:
        raise ConfigError(f"{error}; expected a new folder: another project_name, or --out") from error
    except errors.FailedHookException as error:
        raise ConfigError("nothing was made, for the reasons above") from error
    except (errors.CookiecutterException, ValueError) as error:
        raise ConfigError(str(error)) from error
    _say(Path(made))
    return 0


def _answers(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, answer = pair.partition("=")
        if not name or not equals:
            raise ConfigError(f"--set {pair}: expected NAME=ANSWER")
        found[name] = answer
    return found


def _cookiecutter() -> tuple[Any, Any]:
    """Return cookiecutter's function and its errors. Raises ConfigError where it is not installed."""
    try:
        from cookiecutter import exceptions, main
    except ImportError as error:
        raise ConfigError("cookiecutter is missing; expected `pip install 'firsttoken[new]'`") from error
    # It would print tracebacks of its hooks, which have said themselves what is wrong.
    logging.getLogger("cookiecutter").addHandler(logging.NullHandler())
    return main.cookiecutter, exceptions


def _checkout() -> Path:
    root = Path(__file__).resolve().parents[3]
    if not (root / "templates").is_dir():
        raise ConfigError("templates are not in the package; expected --source with firsttoken's repository")
    return root


def _asked() -> str:
    """Ask for the cloud. Raises ConfigError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ConfigError(f"expected a cloud: one of {', '.join(CLOUDS)}")
    for number, cloud in enumerate(CLOUDS, 1):
        sys.stdout.write(f"  {number} - {cloud}\n")
    while True:
        sys.stdout.write(f"Which cloud? [1-{len(CLOUDS)}] (1): ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        said = line.strip() or "1"
        if not line:
            raise ConfigError(f"expected a cloud: one of {', '.join(CLOUDS)}")
        if said in CLOUDS:
            return said
        if re.fullmatch(rf"[1-{len(CLOUDS)}]", said):
            return CLOUDS[int(said) - 1]


def _check_names(questions: Path, answers: dict[str, str]) -> None:
    """Refuse answers that nobody asks for, where the template is on this machine."""
    if not questions.is_file():
        return
    asked = msgspec.json.decode(questions.read_bytes(), type=dict[str, Any])
    known = [name for name, value in asked.items() if not name.startswith("_")]
    hidden = [name for name, value in asked.items() if re.match("_[a-z]", name) and isinstance(value, str)]
    for name in answers:
        if name not in known and name not in hidden:
            raise ConfigError(f"--set {name}: nobody asks for it; expected one of {', '.join(known)}")


def _say(made: Path) -> None:
    files = sum(path.is_file() for path in made.rglob("*"))
    sys.stdout.write(f"{made}: {files} files. Next:\n\n  cd {made}\n  make serve\n")
