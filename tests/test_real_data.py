"""The mission's two commands on real ImageNet and COCO images, at small sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
PRETRAIN = (
    "--epochs 1 --norm eman --batch-size 200 --image-size 32 --hidden-dim 64 --proj-dim 32 "
    "--knn-every 0 --cluster local --gpus-per-node 0"
)
# Few proposals and small images: on a CPU the published sizes take minutes an image.
OVERRIDES = (
    "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 TEST.PRECISE_BN.NUM_ITER 1 DATALOADER.NUM_WORKERS 0 "
    "MODEL.RPN.POST_NMS_TOPK_TEST 20 MODEL.RPN.POST_NMS_TOPK_TRAIN 50 INPUT.MIN_SIZE_TEST 64 "
    "INPUT.MAX_SIZE_TEST 96 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 96 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 TEST.DETECTIONS_PER_IMAGE 10"
)


def test_pretrain_then_both_detectors(tmp_path: Path, real_data: Path) -> None:
    environment = {**os.environ, "DETECTRON2_DATASETS": str(real_data)}

    def run(script: str, words: str) -> str:
        command = [sys.executable, str(ROOT / "launch" / script), *words.split()]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pretrain.py", f"--data {real_data}/imagenet {PRETRAIN}")
    (metrics,) = (tmp_path / "runs" / "pretrain").glob("*/metrics.json")
    assert 0 < json.loads(metrics.read_text())["loss"] < 8
    for config in ("coco_R_50_FPN_1x_infomin", "coco_R_50_C4_1x_infomin"):
        words = f"--config {ROOT}/det_configs/{config}.yaml --lr 2e-4 --cluster local"
        out = run("transfer.py", f"{words} --gpus-per-node 0 {OVERRIDES}")
        assert "(the newest finished pre-training run)" in out
        assert "filled all 265 backbone tensors" in out
    table = pd.read_csv(tmp_path / "results" / "transfer.csv")
    assert list(table["config"]) == ["coco_R_50_FPN_1x_infomin", "coco_R_50_C4_1x_infomin"]
    assert table["low_lr"].all() and (table["lr"] == 2e-4).all()
    assert table[["box_AP", "mask_AP", "box_APs", "box_APl"]].notna().all(axis=None)
