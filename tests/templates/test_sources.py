"""The ways to the templates: a path, its menu, git, and what is said where links were lost."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException
from templates.baking import CLOUDS, Case, bake

COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")


def _git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def _command(folder: Path, *arguments: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COOKIECUTTER, *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        input=answers,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _same(one: Path, other: Path) -> bool:
    names = [path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file()]
    _, different, missing = filecmp.cmpfiles(one, other, names, shallow=False)
    return not different and not missing


@pytest.mark.parametrize("cloud", CLOUDS)
def test_git_url(cloud: str, repository: Path, tmp_path: Path) -> None:
    """A project made of a git URL is the one made of a checkout, with the core in it."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", repository, source], check=True)
    _git(source, "init")
    _git(source, "add", "--all")
    _git(source, "commit", "--quiet", "--message", "All")
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    arguments = [
        "--no-input",
        "--directory",
        f"templates/{cloud}",
        f"file://{source}",
        "project_name=Help desk",
    ]
    done = _command(there, *arguments)
    assert done.returncode == 0, done.stderr
    assert _same(bake(repository, Case(cloud, {}), here), there / "help-desk")


def test_menu(repository: Path, tmp_path: Path) -> None:
    """Without a folder a menu asks for the cloud, then come its seven questions."""
    done = _command(tmp_path, str(repository), answers="2\nHelp desk\n2\n3\n\n\n\n\n")
    assert done.returncode == 0, done.stderr
    assert "Google Cloud Run functions (chat or batches" in done.stdout.replace("\n", " ")
    settings = (tmp_path / "help-desk" / "firsttoken.toml").read_text()
    assert 'kind = "anthropic"' in settings
    assert 'defer = "outage"' in settings


def test_lost_links(repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where links have become files of text, as in a .zip archive, the reason is said and nothing is made."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", repository, source], check=True)
    link = source / "templates" / "aws" / "{{cookiecutter.__project_slug}}" / "shared" / "firsttoken"
    target = link.readlink()
    link.unlink()
    link.write_text(str(target))
    with pytest.raises(FailedHookException):
        bake(source, Case("aws", {}), tmp_path / "out")
    assert "take the template from git" in capfd.readouterr().err
    assert not (tmp_path / "out" / "help-desk").exists()


def test_changed_file_is_noticed(repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file of the infrastructure that no longer has what a template fills in stops the generation."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", repository, source], check=True)
    file = source / "serverless.yml"
    file.write_text(file.read_text().replace("service: firsttoken", "service: other"))
    with pytest.raises(FailedHookException):
        bake(source, Case("aws", {}), tmp_path / "out")
    assert "serverless.yml: expected 'service: firsttoken' in it" in capfd.readouterr().err
