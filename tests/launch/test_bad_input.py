"""A user's mistake is one sentence and status 2 before any job, and nothing is written."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import launch.pretrain
import launch.transfer
from common.errors import UserError
from tests.launch.test_weights import checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO_CONFIG = str(ROOT / "det_configs" / "demo_R_18_FPN.yaml")
DEMO_FCN = str(ROOT / "det_configs" / "demo_voc_R_18_FCN.yaml")
INFOMIN = str(ROOT / "det_configs" / "coco_R_50_FPN_1x_infomin.yaml")


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, without the variables that name data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def complete(words: str) -> list[str]:
    """The command line, for this process unless it says otherwise."""
    return [*([] if "--cluster" in words else ["--cluster", "debug"]), *words.split()]


PRETRAIN = [
    ("", r"IMAGENET_DIR"),
    ("--data nowhere", r"--data nowhere: no such folder"),
    ("--data empty", r"no image under a class folder of .*empty"),
    ("--data demo --backbone vgg16", r"--backbone vgg16 is not a torchvision ResNet"),
    ("--data demo --batch-size 0", r"--batch-size 0: must be at least 1"),
    ("--data demo --batch-size 6000", r"demo has 120 images, fewer than --batch-size 6000"),
    ("--data demo --lr -1", r"--lr -1.0: must be more than 0"),
    ("--data demo --seed -1", r"--seed -1: must be at least 0"),
    ("--data demo --seed 4294967296", r"--seed 4294967296: must be less than 4294967296"),
    ("--data demo --epochs 5 --warmup-epochs 5", r"--warmup-epochs 5 must be fewer than"),
    ("--data demo --base-momentum 3", r"--base-momentum 3.0: must be between 0 and 1"),
    ("--data demo --heads 3", r"--heads 3 must divide --proj-dim 256"),
    ("--data demo --cluster local --gpus-per-node 64", r"--gpus-per-node 64, but this machine has"),
    ("--data demo --cluster debug --tasks-per-node 2", r"debug is this one process; use --clus"),
    ("--data demo --cluster debug --gpus-per-node 2", r"--gpus-per-node 2, but --cluster debug"),
    ("--data deep", r"no image under a class folder of .*deep"),
    ("--data demo --cluster slurm", r"sbatch is not on the PATH"),
    ("--data demo --cluster local --nodes 2", r"--nodes 2 needs Slurm"),
    (
        "--data demo --cluster local --gpus-per-node 0 --tasks-per-node 3 --batch-size 16",
        r"--batch-size 16 does not split evenly over 3 processes",
    ),
    ("--data demo --output-dir blocked", r"blocked is a file where the run folder"),
    ("--data demo --name a/b", r"--name a/b is not a plain folder name"),
]


@pytest.mark.parametrize(("words", "message"), PRETRAIN)
def test_pretrain(
    words: str, message: str, somewhere: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "slurm" in words:
        monkeypatch.setenv("PATH", str(somewhere))
    (somewhere / "empty" / "train" / "class").mkdir(parents=True)
    (somewhere / "blocked").write_text("")
    (somewhere / "deep" / "imagenet" / "train" / "class").mkdir(parents=True)  # one level too high
    (somewhere / "deep" / "imagenet" / "train" / "class" / "1.jpg").write_bytes(b"")
    before = files(somewhere)
    with pytest.raises(UserError, match=message):
        launch.pretrain.run(complete(words))
    assert files(somewhere) == before


TRANSFER = [
    ("--config nothing.yaml", r"--config \S*nothing\.yaml: no such file"),
    ("--config broken.yaml --weights none", r"broken\.yaml is not a Detectron2 config: .*MODLE"),
    (
        f"--config {DEMO_CONFIG} --weights none SOLVER.MAX_ITERS 3",
        r"SOLVER\.MAX_ITERS is not a key",
    ),
    (f"--config {DEMO_CONFIG} --weights none SOLVER.MAX_ITER", r"SOLVER\.MAX_ITER has no value"),
    (f"--config {DEMO_CONFIG} --weights none SOLVER.MAX_ITER many", r"MAX_ITER cannot be many"),
    (f"--config {DEMO_CONFIG} --weights none MODEL.WEIGHTS x.pkl", r"use --weights"),
    (
        f"--config {DEMO_FCN} --weights none INPUT.MIN_SIZE_TRAIN (64,)",
        r"INPUT\.MIN_SIZE_TRAIN \(64,\); segmentation scales images by a ratio",
    ),
    (
        f"--config {DEMO_CONFIG} --weights none INPUT.MIN_SIZE_TRAIN_SAMPLING relative_range",
        r"INPUT\.MIN_SIZE_TRAIN_SAMPLING is relative_range .* give choice and any sizes",
    ),
    (f"--config {DEMO_CONFIG}", r"no finished ResNet-18 pre-training run in \S*runs"),
    (f"--config {DEMO_CONFIG} --weights gone.pth.tar", r"--weights gone\.pth\.tar: no such file"),
    (f"--config {DEMO_CONFIG} --weights cut.pth.tar", r"cut\.pth\.tar is not a readable"),
    (
        f"--config {DEMO_CONFIG} --weights linear.pth",
        r"linear\.pth is no checkpoint of .*named fc",
    ),
    (f"--config {DEMO_CONFIG} --weights cut.pkl", r"cut\.pkl is not readable as Detectron2"),
    (f"--config {DEMO_CONFIG} --weights none --seed -1", r"--seed -1: must be at least 0"),
    (f"--config {DEMO_CONFIG} --weights none --seed 4294967296", r"must be less than 4294967296"),
    (
        "--config elsewhere/demo_R_18_FPN.yaml",
        r"--config \S*elsewhere/demo_R_18_FPN\.yaml: no such",
    ),
    ("--config", r"--config has no value"),
    (f"--config {DEMO_CONFIG} --weights none --lr", r"--lr has no value"),
    (f"--config {DEMO_CONFIG} --weights --lr 2", r"--weights has no value"),
    (f"--config {DEMO_CONFIG} --weights none --lr nan", r"--lr nan: must be more than 0"),
    (f"--config {DEMO_CONFIG} --weights none --lr -1", r"--lr -1: must be more than 0"),
    (f"--config {DEMO_CONFIG} --weights none --lr 1 2 --name x", r"--name x is one folder"),
    (
        f"--config {DEMO_CONFIG} --weights none --cluster local --gpus-per-node 0"
        " --tasks-per-node 3",
        r"IMS_PER_BATCH 4 does not split evenly over 3 processes",
    ),
    (f"--config {DEMO_CONFIG} --weights d.pth --eval-only --lr 1", r"--lr is for training, and"),
    (f"--config {DEMO_CONFIG} --weights d.pth --eval-only --batch-size 2", r"--batch-size is for"),
    (f"--config {DEMO_CONFIG} --weights d.pth --eval-only --seeds 2", r"--seeds is for training"),
    (f"--config {DEMO_CONFIG} --weights none --output-dir blocked", r"blocked is a file where"),
    (
        f"--config {DEMO_CONFIG} --weights lewel.pth.tar --cluster local --gpus-per-node 0"
        " --output-dir 90%",
        r"90%/runs/transfer/\S* has a % in its path",
    ),
]


@pytest.mark.parametrize(("words", "message"), TRANSFER)
def test_transfer(words: str, message: str, somewhere: Path, demo_root: Path) -> None:
    (somewhere / "broken.yaml").write_text("MODLE:\n  DEPTH: 3\n")
    (somewhere / "blocked").write_text("")
    checkpoint(somewhere / "lewel.pth.tar")
    torch.save({"fc.weight": torch.zeros(2)}, somewhere / "linear.pth")
    data = (somewhere / "linear.pth").read_bytes()
    (somewhere / "cut.pth.tar").write_bytes(data[: len(data) // 2])
    (somewhere / "cut.pkl").write_bytes(pickle.dumps({"model": {}})[:-3])
    before = files(somewhere)
    with pytest.raises(UserError, match=message):
        launch.transfer.run(complete(words))
    assert files(somewhere) == before


def test_a_missing_dataset_is_a_line_on_stderr_and_status_2(somewhere: Path) -> None:
    command = [sys.executable, str(ROOT / "launch" / "transfer.py"), "--config", INFOMIN]
    command += ["--weights", "none", "--cluster", "local"]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(somewhere / "datasets")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    looked_for = somewhere / "datasets" / "coco" / "annotations" / "instances_train2017.json"
    assert re.fullmatch(
        rf"error: dataset coco_2017_train is not there: looked for {looked_for}, .*\n", done.stderr
    )
    assert files(somewhere) == []
