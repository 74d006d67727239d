"""A Slurm that plays a part."""

from pathlib import Path

import pytest

from launch.slurm import states
from tests.launch.slurm.played_slurm import PlayedSlurm


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedSlurm:
    """The commands of Slurm alone on the PATH."""
    monkeypatch.setattr(states, "PAUSE_S", 0.01)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return PlayedSlurm(tmp_path / "bin")
