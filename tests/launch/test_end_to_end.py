"""Images in, CSV row out, by the commands that people type, in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import launch.pretrain
import launch.results
import launch.transfer
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
TWO_PROCESSES = "--cluster local --gpus-per-node 0 --tasks-per-node 2"
PRETRAIN = (
    "--data demo --backbone resnet18 --epochs 2 --batch-size 60 --image-size 32 --proj-dim 16 "
    "--hidden-dim 32 --workers 1 --norm syncbn"
)
OVERRIDES = (
    "SOLVER.MAX_ITER 4 SOLVER.IMS_PER_BATCH 2 TEST.PRECISE_BN.NUM_ITER 2 INPUT.MIN_SIZE_TEST 64 "
    "INPUT.MIN_SIZE_TRAIN (64,) DATALOADER.NUM_WORKERS 0"
)


def run(folder: Path, script: str, words: str, status: int = 0) -> str:
    """A command's standard output; its status is checked."""
    command = [sys.executable, str(ROOT / "launch" / script), *words.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def test_the_whole_job(
    tmp_path: Path,
    demo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretrain = f"{PRETRAIN} {TWO_PROCESSES}"
    out = run(tmp_path, "pretrain.py", pretrain)
    assert "LEWEL_B syncbn " in out and " on 2 x cpu" in out and "after epoch 2: epoch_loss" in out
    (folder,) = (tmp_path / "runs" / "pretrain").iterdir()

    monkeypatch.chdir(tmp_path)
    transfer = f"--config {ROOT}/det_configs/demo_R_18_FPN.yaml --lr 0.001 {TWO_PROCESSES}"
    with pytest.raises(UserError, match=r"^no finished ResNet-18 pre-training run"):
        # A demo run is never the default: it has to be named.
        launch.transfer.run(f"{transfer} {OVERRIDES}".split())
    command = f"{transfer} --weights {folder / 'checkpoint.pth.tar'} {OVERRIDES}"
    out = run(tmp_path, "transfer.py", command)
    assert "naiveSyncBN stands in for SyncBN" in out and "LEWEL, resnet18, 120 backbone" in out
    assert "lr 0.001 is under 0.1 times demo_R_18_FPN's own 0.02" in out
    table = pd.read_csv(tmp_path / "results" / "transfer.csv")
    assert list(table["lr"]) == [0.001] and list(table["low_lr"]) == [True]
    assert set(table["method"]) == {"LEWEL_B"} and set(table["norm"]) == {"syncbn"}
    assert set(table["pretrain_epochs"]) == {2} and set(table["device"]) == {"2 x cpu"}
    assert table[["box_AP", "mask_AP", "wall_time_s"]].notna().all(axis=None)
    assert f"{folder.name}@2" in table["run"][0] and table["iterations"][0] == 4

    capsys.readouterr()
    launch.pretrain.run(pretrain.split())
    launch.transfer.run(command.split())
    launch.results.show(Path())
    out = capsys.readouterr().out
    assert out.count("already finished") == 2 and "LEWEL_B" in out
    assert len(pd.read_csv(tmp_path / "results" / "transfer.csv")) == 1


def test_a_job_that_fails_is_a_message_and_status_2(tmp_path: Path, demo_root: Path) -> None:
    """A loss that is not finite: only the job itself sees it."""
    words = f"{PRETRAIN} --lr 1e30 --log-every 1 --name diverging"
    error = run(tmp_path, "pretrain.py", f"{words} {TWO_PROCESSES}", status=2)
    assert error.splitlines()[-1].startswith("error: the loss was not finite at step")
    command = [*words.split(), "--cluster", "debug", "--output-dir", str(tmp_path)]
    with pytest.raises(UserError, match=r"^the loss was not finite at step"):
        launch.pretrain.run(command)


def test_torchrun(tmp_path: Path, demo_root: Path) -> None:
    words = PRETRAIN.replace("--epochs 2", "--epochs 1").split()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(ROOT / "launch" / "pretrain.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (metrics,) = (tmp_path / "runs" / "pretrain").glob("*/metrics.json")
    assert json.loads(metrics.read_text())["device"] == "2 x cpu"
