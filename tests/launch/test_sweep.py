"""Several learning rates are several runs, each with a folder of its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import launch.transfer
from launch.jobs import Job

CONFIG = Path(__file__).resolve().parent.parent.parent / "det_configs" / "demo_R_18_FPN.yaml"


def test_every_lr_is_a_job(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    launched: list[Job] = []

    def keep(jobs: Sequence[Job], *_: object) -> None:
        launched.extend(jobs)

    monkeypatch.setattr(launch.transfer, "launch", keep)
    words = (
        f"--config {CONFIG} --weights none --cluster debug --output-dir {tmp_path} --lr 0.02 1e-3"
    )
    folders = launch.transfer.run([*words.split(), "SOLVER.MAX_ITER", "3"])
    assert [job.config.lr for job in launched] == [0.02, 1e-3]
    assert [job.folder for job in launched] == folders and len(set(folders)) == 2
    assert all(folder.parent == tmp_path / "runs" / "transfer" for folder in folders)
    assert all(job.config.overrides == ("SOLVER.MAX_ITER", "3") for job in launched)
    assert "lr 0.001 is under 0.1 times demo_R_18_FPN's own 0.02" in capsys.readouterr().out
