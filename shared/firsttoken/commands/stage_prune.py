"""Take out of packages what no function reads: tests, type stubs, sources of C, AWS's other services."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

_SUFFIXES = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".cpp", ".hpp", ".pyc", ".pyo"}
_KEPT_METADATA = ("METADATA", "entry_points.txt", "licenses", "LICENSE", "NOTICE", "COPYING", "AUTHORS")
_DATA = ("_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json")


def prune(folder: Path, services: Collection[str]) -> None:
    """Delete what is not needed at run time. ``services`` are the AWS services whose descriptions stay.

    Name, version, entry points and licence of each package stay: code asks for the first three, and the
    licence has to go along.
    """
    for unwanted in list(_unwanted(folder)):
        _delete(unwanted)
    for info in folder.glob("*.dist-info"):
        _trim(info)
    for sdk in ("botocore", "boto3"):
        data = folder / sdk / "data"
        if data.is_dir():
            _only_services(data, services)
    for empty in sorted(folder.rglob("*"), reverse=True):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def _unwanted(folder: Path) -> Iterator[Path]:
    yield from (folder / "bin", folder / ".lock")
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if path.name in {"tests", "__pycache__"}:
                yield path
        elif path.suffix in _SUFFIXES or path.name == "py.typed":
            yield path


def _trim(info: Path) -> None:
    """Keep of a package's metadata what may be asked for, without the description of the package."""
    for path in info.iterdir():
        if not path.name.startswith(_KEPT_METADATA):
            _delete(path)
    metadata = info / "METADATA"
    if metadata.is_file():
        headers = metadata.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[0]
        metadata.write_bytes(headers + b"\n")


def _only_services(data: Path, services: Collection[str]) -> None:
    for path in sorted(data.iterdir()):
        if path.name not in _DATA and path.name not in services:
            _delete(path)
    for examples in list(data.rglob("examples-1.json")):
        examples.unlink()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
