"""Starting, calling and stopping a runtime as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from firsttoken.emulators import child
from firsttoken.emulators.child import Emulator, EmulatorError, encode_body, environment


class Program(Emulator):
    """Runs a line of Python instead of a runtime."""

    def __init__(self, root: Path, code: str) -> None:
        super().__init__(root=root)
        self._code = code

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-c", self._code]


def test_a_program_that_ends_is_reported_with_its_output(tmp_path: Path) -> None:
    """The error holds exit status and output; nothing is left running."""
    program = Program(tmp_path, "import sys; print('the cause', flush=True); sys.exit(3)")
    with pytest.raises(EmulatorError, match=r"(?s)exit status 3.*the cause"):
        program.start()
    with pytest.raises(EmulatorError, match="not running"):
        _ = program.pid
    assert "the cause" in program.log()


def test_a_program_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that does not listen in time is ended and reported."""
    monkeypatch.setattr(child, "START_SECONDS", 0.2)
    program = Program(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(EmulatorError, match="did not answer"):
        program.start()


def test_the_checkout_of_the_functions_is_imported(tmp_path: Path) -> None:
    """A child imports the package beside its functions, in whatever checkout they are."""
    (tmp_path / "shared" / "firsttoken").mkdir(parents=True)
    root = tmp_path / "functions" / "azure"
    root.mkdir(parents=True)
    paths = environment(root, {"PYTHONPATH": "/extra", "SETTING": "1"})["PYTHONPATH"].split(os.pathsep)
    assert (paths[0], paths[-1]) == (str(tmp_path / "shared"), "/extra")


@pytest.mark.parametrize(
    ("body", "encoded"), [(None, b""), ("a", b"a"), (b"b", b"b"), ({"c": [1]}, b'{"c":[1]}')]
)
def test_bodies_of_events_become_bytes(body: object, encoded: bytes) -> None:
    """Text is sent as it stands, nothing as nothing, and anything else as JSON."""
    assert encode_body(body) == encoded
