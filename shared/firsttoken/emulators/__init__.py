"""Each cloud's real runtime on this machine: no docker, no account.

Every cloud's module offers ``serve(host, port)``, which blocks, and ``invoke(event)``, which streams the
answer's bytes.
"""

from __future__ import annotations

from pathlib import Path


def project() -> Path:
    """Return the folder that holds ``functions/``: this one, or the checkout of this package."""
    here = Path.cwd()
    return here if (here / "functions").is_dir() else Path(__file__).resolve().parents[3]
