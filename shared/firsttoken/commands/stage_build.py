"""Build a stage: packages from the locks, the core, the entrypoints and the settings, with their bytecode.

It is built beside its place and moved there at the end, so that a run that fails leaves the last stage as it
was. The same project, Python and packages give the same bytes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import firsttoken
from firsttoken.commands import stage_compile
from firsttoken.commands.stage_plan import MEGABYTE, SERVICES, Plan, interpreter, uv
from firsttoken.commands.stage_prune import prune
from firsttoken.errors import ConfigError, FirstTokenError

MANIFEST = "firsttoken-stage.json"
_LEFT_BEHIND = ("__pycache__", "bench", "cli.py", "commands", "emulators", "py.typed")
"""Parts of the core that no function imports."""

Tell = Callable[[str, int, int], None]
"""Called with a step, how much of it is done, and how much there is (0: not known)."""


class Report(Struct, frozen=True, kw_only=True):
    """What was staged. Sizes are bytes, unpacked but for ``archive_bytes``."""

    cloud: str
    python: str
    arch: str
    folder: str
    archive: str
    files: int
    bytes: int
    fetched_bytes: int
    """The packages before they were pruned."""
    bytecode_bytes: int
    archive_bytes: int
    limit: int
    digest: str
    """SHA-256 over the names, modes and contents of all files: two equal stages have the same."""
    compiled: bool
    not_compiled: list[str]
    parts: dict[str, int]
    """Bytes of each folder, the largest first; a package's bytecode counts."""


def build(plan: Plan, tell: Tell) -> Report:
    """Build the stage, and its archive where the cloud takes one.

    Raises ConfigError for a place that holds something else, FirstTokenError for a fetch that failed and for
    a stage that is too large.
    """
    _check_place(plan.out)
    python = interpreter(plan.python)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plan.out.parent, prefix=".stage-") as parent:
        stage = Path(parent) / "stage"
        packages = stage / plan.platform.packages
        packages.mkdir(parents=True)
        fetched = _packages(plan, packages, tell) if plan.vendored else 0
        tell("copy the core and the entrypoints", 0, 0)
        _sources(plan, stage)
        not_compiled = _compile(python, stage, plan.platform.root, tell) if python else []
        _manifest(plan, stage, packages, compiled=bool(python))
        report = _measure(plan, stage, fetched, compiled=bool(python), not_compiled=not_compiled)
        _check_size(plan, report)
        archive = Path(parent) / "stage.zip"
        if plan.platform.archive:
            tell("pack the archive", 0, 0)
            pack(stage, archive)
        if plan.out.exists():
            shutil.rmtree(plan.out)
        stage.rename(plan.out)
        if not plan.platform.archive:
            return report
        packed = archive.stat().st_size
        archive.replace(place := plan.out.with_name(plan.out.name + ".zip"))
    return msgspec.structs.replace(report, archive=str(place), archive_bytes=packed)


def pack(stage: Path, archive: Path) -> None:
    """Write a zip file of a folder that is the same whenever the folder is."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for path in _files(stage):
            info = zipfile.ZipInfo(path.relative_to(stage).as_posix(), (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, on whatever this runs: the modes are Unix's
            info.external_attr = (0o100000 | _mode(path)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, path.read_bytes())


def _check_place(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ConfigError(f"--out {out}: holds other files; expected a new folder or an earlier stage")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; expected a folder")


def _packages(plan: Plan, folder: Path, tell: Tell) -> int:
    """Install the locked packages and prune them; return how many bytes they had before."""
    tell("fetch the packages", 0, 0)
    command = [uv(), "pip", "install", "--system-certs", "--python", sys.executable]
    command += ["--target", str(folder)]
    # Copied, not linked: what is pruned must not change uv's cache.
    command += ["--link-mode", "copy", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python-version", plan.python, "--python-platform", plan.wheels()]
    for lock in plan.locks():
        command += ["--requirement", str(lock)]
    done = subprocess.run(  # noqa: S603 - fixed, but for names of files
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FirstTokenError(f"uv could not fetch the packages: {done.stderr.strip()[-2000:]}")
    fetched = sum(path.stat().st_size for path in _files(folder))
    tell("prune the packages", 0, 0)
    prune(folder, {*SERVICES, *plan.services})
    return fetched


def _sources(plan: Plan, stage: Path) -> None:
    core = Path(firsttoken.__file__).parent
    shutil.copytree(core, stage / "firsttoken", ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
    own = plan.project / "functions" / plan.platform.cloud
    files = (*plan.platform.files, *(() if plan.vendored else ("requirements.txt",)))
    for source in sorted({path for pattern in files for path in own.glob(pattern) if path.is_file()}):
        if "__pycache__" not in source.parts:
            _copy(source, stage / plan.platform.entrypoints / source.relative_to(own))
    if (settings := plan.project / "firsttoken.toml").is_file():
        _copy(settings, stage / settings.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    if data.startswith(b"#!"):
        data = data.replace(b"\r\n", b"\n")  # a checkout on Windows
    target.write_bytes(data)
    target.chmod(_mode(source))


def _compile(python: str, stage: Path, root: str, tell: Tell) -> list[str]:
    """Compile all modules and return those that cannot be."""
    command = [python, "-I", "-S", "-W", "ignore", "-X", "utf8"]
    command += [str(Path(stage_compile.__file__)), str(stage), root]
    bad = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - an interpreter
        for line in child.stdout or ():
            first, _, rest = line.strip().partition(" ")
            if first == "!":
                bad.append(rest)
            else:
                tell("compile", int(first), int(rest))
    if child.returncode:
        raise FirstTokenError(f"{python} could not compile the stage; expected a working Python")
    return bad


def _manifest(plan: Plan, stage: Path, packages: Path, *, compiled: bool) -> None:
    names = [re.fullmatch(r"(.+)-([^-]+)\.dist-info", path.name) for path in packages.glob("*.dist-info")]
    versions = sorted((found[1], found[2]) for found in names if found)
    said: dict[str, Any] = {
        "cloud": plan.platform.cloud,
        "python": plan.python,
        "arch": plan.arch,
        "extras": plan.extras,
        "firsttoken": firsttoken.__version__,
        "bytecode": compiled,
        "packages": dict(versions),
    }
    (stage / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")


def _measure(plan: Plan, stage: Path, fetched: int, *, compiled: bool, not_compiled: list[str]) -> Report:
    parts: dict[str, int] = {}
    digest, total, bytecode, count = sha256(), 0, 0, 0
    packages = plan.platform.packages
    for path in _files(stage):
        name, data = path.relative_to(stage).as_posix(), path.read_bytes()
        digest.update(f"{name}\0{_mode(path):o}\0{sha256(data).hexdigest()}\n".encode())
        total, count = total + len(data), count + 1
        bytecode += len(data) if path.suffix == ".pyc" else 0
        part = name.removeprefix(f"{packages}/").partition("/")[0]
        part = "licences and metadata" if part.endswith(".dist-info") else part
        parts[part] = parts.get(part, 0) + len(data)
    return Report(
        cloud=plan.platform.cloud,
        python=plan.python,
        arch=plan.arch,
        folder=str(plan.out),
        archive="",
        files=count,
        bytes=total,
        fetched_bytes=fetched,
        bytecode_bytes=bytecode,
        archive_bytes=0,
        limit=min(filter(None, (plan.limit, plan.platform.limit)), default=0),
        digest=digest.hexdigest(),
        compiled=compiled,
        not_compiled=not_compiled,
        parts=dict(sorted(parts.items(), key=lambda item: -item[1])),
    )


def _check_size(plan: Plan, report: Report) -> None:
    if report.limit and report.bytes > report.limit:
        largest = ", ".join(f"{name} {size / MEGABYTE:.1f}" for name, size in list(report.parts.items())[:5])
        raise FirstTokenError(
            f"the stage for {plan.platform.cloud} has {report.bytes / MEGABYTE:.1f} MB; expected at most"
            f" {report.limit / MEGABYTE:.1f}. The largest parts, in MB: {largest}"
        )


def _files(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _mode(path: Path) -> int:
    """Return the mode that a file has in the cloud: programs can be executed, nothing else can."""
    with path.open("rb") as file:
        return 0o755 if file.read(2) == b"#!" and path.suffix in {"", ".sh"} else 0o644
