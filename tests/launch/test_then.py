"""What ``launch/pretrain.py --then`` submits after a pre-training."""

from collections.abc import Iterable
from pathlib import Path

import pytest

import launch.pretrain
import launch.transfer
from common import locks, runs
from common.errors import UserError
from launch.slurm import states as slurm
from launch.slurm.states import State
from tests.launch.slurm.fake_slurm import FakeSlurm


def test_what_is_to_follow_is_checked_before_anything_is_submitted(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.slurm.submission.launch", None)  # calling it fails
    words = f"--data demo --batch-size 8 --cluster debug --output-dir {tmp_path} --then"
    for config, message in (
        ("coco_R_50_C4_1x", r"INPUT.FORMAT is BGR in the config, but .*resnet50"),
        ("demo_R_18_FPN", r"MODEL.RESNETS.DEPTH is 18 in the config"),
        ("nothing.yaml", r"--then nothing\.yaml: no such config"),
    ):
        with pytest.raises(UserError, match=message):
            launch.pretrain.run([*words.split(), config])
    assert list(tmp_path.iterdir()) == []


def test_nothing_follows_a_run_that_a_job_outside_slurm_has(
    tmp_path: Path, demo_root: Path, fake_slurm: FakeSlurm
) -> None:
    folder = tmp_path / "runs" / "pretrain" / "x"
    folder.mkdir(parents=True)
    lock = locks.take(folder / runs.LOCK)
    assert lock is not None
    words = f"--data demo --backbone resnet18 --batch-size 8 --name x --output-dir {tmp_path}"
    words += " --cluster slurm --gpus-per-node 0 --then demo_R_18_FPN"
    with pytest.raises(UserError, match="--then waits for jobs of Slurm alone; start it once that"):
        launch.pretrain.run(words.split())
    assert not fake_slurm.read("101.sh")
    lock.release()


def test_a_pretraining_that_is_followed_is_not_submitted_again(
    tmp_path: Path,
    demo_root: Path,
    fake_slurm: FakeSlurm,
    followed: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def states(ids: Iterable[str]) -> dict[str, State]:
        """It fails as soon as the job that is to follow it has been submitted."""
        failed = fake_slurm.read("102.sh")
        return {i: State("FAILED" if failed else "PENDING") for i in ids}

    monkeypatch.setattr(slurm, "states", states)
    words = f"--data demo --backbone resnet18 --batch-size 8 --output-dir {tmp_path} --wait"
    words += " --cluster slurm --gpus-per-node 0 --then demo_R_18_FPN"
    launch.pretrain.run(words.split())
    assert followed == [("101", "102")] and not fake_slurm.read("103.sh")


def test_a_run_that_was_only_submitted_can_be_waited_for(
    tmp_path: Path, demo_root: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "states", lambda ids: {i: State("PENDING") for i in ids})
    there = f"--cluster slurm --gpus-per-node 0 --output-dir {tmp_path}"
    folder = launch.pretrain.run(f"--data demo --backbone resnet18 --batch-size 8 {there}".split())
    launch.transfer.run(f"--config demo_R_18_FPN --weights {folder} {there}".split())
    assert "#SBATCH --dependency=afterok:101" in fake_slurm.script(102)
