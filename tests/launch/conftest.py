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


@pytest.fixture
def tiny_bench(demo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pre-trainings of the demo's recipe with one epoch, and its transfers of two iterations."""
    from launch import evidence

    words = evidence.SMALL.replace("--epochs 4", "--epochs 1")
    monkeypatch.setattr(evidence, "SMALL", words.replace("--proj-dim 64", "--proj-dim 8"))
    whole, tiny = (
        evidence.Bench.transfer,
        (
            "INPUT.CROP.SIZE [49,49] INPUT.MIN_SIZE_TRAIN (0.25,0.5) INPUT.MIN_SIZE_TEST 48 "
            "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS (1,) SOLVER.WARMUP_ITERS 0 "
            "TEST.PRECISE_BN.NUM_ITER 2 DATALOADER.NUM_WORKERS 0"
        ).split(),
    )

    def transfer(bench: Any, name: str, seed: int, config: str, *options: str) -> Path:
        return whole(bench, name, seed, config, *options, *tiny)

    monkeypatch.setattr(evidence.Bench, "transfer", transfer)
