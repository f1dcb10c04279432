from __future__ import annotations

from pathlib import Path

import pytest
from templates.baking import CLOUDS, Case, bake, copy_repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what the templates are made of."""
    return copy_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def projects(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project of each cloud, with the default answers."""
    folder = tmp_path_factory.mktemp("projects")
    return {cloud: bake(repository, Case(cloud, {}), folder / cloud) for cloud in CLOUDS}
