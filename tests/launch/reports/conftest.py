"""Runs that a report shows, made once."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """A folder with runs/; not to be changed."""
    from tests.launch.reports.made_runs import make  # Detectron2 takes its seconds only here

    output = tmp_path_factory.mktemp("report")
    make(output)
    return output


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of these runs that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "out", symlinks=True))
