"""Fine-tunings of seconds, and what they leave."""

import shutil
from pathlib import Path
from typing import Any

import torch

from common.files import sha256
from common.metrics import read_lines
from common.weights import Weights
from detection.config import TransferConfig, read, resolve
from detection.convert import convert
from tests.detection.helpers import CONFIGS, LEWEL_PREFIX, save_lewel, shape_state

TINY = (
    "MODEL.DEVICE cpu MODEL.RPN.POST_NMS_TOPK_TRAIN 20 MODEL.RPN.POST_NMS_TOPK_TEST 5 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
    "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 4 SOLVER.STEPS (3,) SOLVER.CHECKPOINT_PERIOD 2 "
    "SOLVER.WARMUP_ITERS 2 TEST.PRECISE_BN.NUM_ITER 2 DATALOADER.NUM_WORKERS 0"
)
FIRST, SECOND = "model_0001_000000002.pth", "model_0001_000000004.pth"


def tiny(overrides: str = "", **changes: Any) -> TransferConfig:
    """Four iterations of two small images each."""
    words = tuple(f"{TINY} {overrides}".split())
    return resolve(read(CONFIGS / "demo_R_18_FPN.yaml"), overrides=words, **changes)


def constant_weights(folder: Path, architecture: str) -> Weights:
    """A converted ResNet whose tensors are known: all of them 0.01."""
    state = {k: torch.full(v.shape, 0.01).to(v.dtype) for k, v in shape_state(architecture).items()}
    save_lewel(folder / "in.pth", state, LEWEL_PREFIX)
    convert(folder / "in.pth", folder / "R.pkl")
    path = str(folder / "R.pkl")
    return Weights(architecture, path, sha256(path), "LEWEL_B", "eman", 200)


def iterations(folder: Path) -> list[int]:
    return [row["iteration"] for row in read_lines(folder / "metrics.jsonl")]


def copy(source: Path, target: Path) -> None:
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def killed(finished: Path, folder: Path) -> Path:
    """The folder as a kill in the fourth iteration would have left it."""
    folder.mkdir()
    for name in (FIRST, "log.txt", "incarnations"):
        copy(finished / name, folder / name)
    lines = (finished / "metrics.jsonl").read_text().splitlines()[:3]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"iteration": 3, "total_l')
    return folder
