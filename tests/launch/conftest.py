"""Commands behave as on a machine without Slurm and without a site's settings, unless a test
brings them: an ``sbatch`` of its own, a file or a variable."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from launch.slurm import following, states
from launch.slurm.site import PREFIX
from tests.launch.slurm.fake_slurm import SCRIPTS, FakeSlurm


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    which, installed = shutil.which, shutil.which("sbatch")

    def without(name: str, *others: Any, **options: Any) -> str | None:
        found = which(name, *others, **options)
        return None if name == "sbatch" and found == installed else found

    monkeypatch.setattr(shutil, "which", without)


@pytest.fixture(autouse=True)
def no_site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a test may write its site's settings into; there is none, and no variable."""
    base = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(base))
    for name in os.environ:
        if name.startswith((PREFIX, "SBATCH_")):
            monkeypatch.delenv(name)
    return base / "lewel-transfer" / "slurm.toml"


@pytest.fixture
def fake_slurm(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> FakeSlurm:
    """Slurm's commands, which keep what they were told and say what a test wants them to."""
    slurm = FakeSlurm(tmp_path_factory.mktemp("slurm"), SCRIPTS)
    monkeypatch.setenv("PATH", f"{slurm.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return slurm


@pytest.fixture
def played(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """The commands that a test gives answers to, alone on the PATH."""
    slurm = FakeSlurm(tmp_path_factory.mktemp("played"), {})
    monkeypatch.setattr(states, "PAUSE_S", 0.01)
    monkeypatch.setenv("PATH", str(slurm.folder))
    return slurm


@pytest.fixture
def followed(fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Each job that was followed, and the last that had been submitted by then."""
    seen: list[tuple[str, str]] = []

    def follow(handle: Any, *_: object, **__: object) -> bool:
        seen.append((handle.job_id, fake_slurm.read("last").strip()))
        return True

    monkeypatch.setattr(following, "follow", follow)
    return seen
