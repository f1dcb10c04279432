"""Compile every module below a folder, in order: ``python stage_compile.py FOLDER ROOT``.

Run as a program by the interpreter that the stage is for, so it imports nothing but the standard library.
The bytecode carries no time and is trusted without a look at its source, so that the same source gives the
same bytes and a read-only cloud never compiles. ROOT is where the folder lies in the cloud, for tracebacks.
"""

import py_compile
import sys
from importlib.util import cache_from_source
from pathlib import Path


def main(folder: str, root: str) -> int:
    """Print ``DONE TOTAL`` now and then and ``! PATH`` for what cannot be compiled; return 0."""
    sources = sorted(Path(folder).rglob("*.py"))
    for number, source in enumerate(sources, 1):
        relative = source.relative_to(folder).as_posix()
        try:
            py_compile.compile(
                str(source),
                cfile=cache_from_source(str(source), optimization=""),
                dfile=f"{root}/{relative}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except (py_compile.PyCompileError, ValueError):  # ValueError: bytes that are no text
            sys.stdout.write(f"! {relative}\n")
        if number % 25 == 0 or number == len(sources):
            sys.stdout.write(f"{number} {len(sources)}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
