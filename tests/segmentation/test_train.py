"""The transfer job with an FCN: what a run leaves, resuming, weights, several processes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common.distributed import World
from common.errors import UserError
from common.metrics import read_lines
from detection import train as detection_train
from detection.config import TransferConfig, read, resolve
from segmentation.evaluation import SEGMENTATION
from segmentation.masks import CLASSES
from segmentation.train import transfer
from tests.alone import Ended, told_after
from tests.detection.helpers import CONFIGS, assert_equal_to_the_bit
from tests.detection.small_runs import constant_weights
from tests.processes import in_processes

TINY = (
    "MODEL.DEVICE cpu INPUT.CROP.SIZE [49,49] INPUT.MIN_SIZE_TRAIN (0.25,0.5) "
    "INPUT.MIN_SIZE_TEST 48 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS (1,) "
    "SOLVER.WARMUP_ITERS 0 TEST.PRECISE_BN.NUM_ITER 2 DATALOADER.NUM_WORKERS 0"
)
# From a config of FCN-16s to one of FCN-D8.
D8 = (
    "MODEL.META_ARCHITECTURE FCND8 MODEL.SEM_SEG_HEAD.NAME FCND8Head MODEL.RESNETS.RES5_DILATION 4 "
    "MODEL.RESNETS.OUT_FEATURES ('res4','res5') INPUT.CROP.TYPE absolute_distorted "
    "SOLVER.LR_SCHEDULER_NAME WarmupPolyLR"
)
SCORES = ["mIoU", "fwIoU", *(f"IoU-{name}" for name in CLASSES), "mACC", "pACC"]


def tiny(overrides: str = "", config: str = "demo_voc_R_18_FCN", **changes: Any) -> TransferConfig:
    """Two iterations of two small crops each."""
    words = tuple(f"{TINY} {overrides}".split())
    return resolve(read(CONFIGS / f"{config}.yaml"), overrides=words, **changes)


@pytest.fixture(autouse=True)
def log_every_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection_train, "LOG_PERIOD", 1)


def test_a_run_and_what_it_leaves(tmp_path: Path) -> None:
    metrics = transfer(tiny(), tmp_path)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    expected = {"kind": "segmentation", "config": "demo_voc_R_18_FCN", "method": "random",
                "lr": 0.1, "batch_size": 2, "seed": 0, "iterations": 2, "demo": True,
                "unreadable_images": 0}  # fmt: skip
    assert expected.items() <= metrics.items()
    assert [name for name in metrics if name in SCORES] == SCORES
    assert 0 <= metrics["mIoU"] <= 100 and metrics["IoU-sofa"] is None
    assert 0 < metrics["pACC"] < 100
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1]
    assert rows[0]["total_loss"] == pytest.approx(math.log(21), rel=0.1)  # knows nothing yet
    assert math.isfinite(rows[1]["total_loss"])
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.01])
    text = (tmp_path / "log.txt").read_text()
    assert "dataset demo_voc_2012_val_sem_seg: 4 images" in text
    assert "META_ARCHITECTURE: FCN" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize("model", ["", D8], ids=["FCN-16s", "FCN-D8"])
def test_a_run_ended_three_times_equals_an_undisturbed_one_to_the_bit(
    tmp_path: Path, model: str
) -> None:
    """With evaluations, and precise BN before them, on the way."""
    schedule = "SOLVER.MAX_ITER 9 SOLVER.STEPS (6,) SOLVER.WARMUP_ITERS 4 TEST.EVAL_PERIOD 4"
    config = tiny(f"{schedule} {model}")
    whole = transfer(config, tmp_path / "whole")
    for step in (2, 1, 2):  # after 3, 5 and 8 iterations
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
            told_after(step, patch)
            transfer(config, tmp_path / "cut")
    cut = transfer(config, tmp_path / "cut")
    assert (whole["restarts"], cut["restarts"]) == (0, 3)
    rows = [
        [(row["iteration"], row["lr"]) for row in read_lines(path)]  # losses are medians of some
        for path in (tmp_path / name / "metrics.jsonl" for name in ("whole", "cut"))
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 9
    assert_equal_to_the_bit(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("config", ["pascal_voc_R_50_FCN_30k", "pascal_voc_R_50_FCN_D8_20k"])
def test_the_dilated_backbone_starts_from_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.setattr(detection_train, "evaluate", lambda *_: {"mIoU": math.nan})
    overrides = (
        "SOLVER.MAX_ITER 1 SOLVER.STEPS () TEST.PRECISE_BN.ENABLED False "
        "INPUT.MIN_SIZE_TRAIN_SAMPLING relative_range "
        "DATASETS.TRAIN ('demo_voc_2012_train_sem_seg',) "
        "DATASETS.TEST ('demo_voc_2012_val_sem_seg',)"
    )
    weights = constant_weights(tmp_path, "resnet50")
    metrics = transfer(tiny(overrides, config, weights=weights, lr=1e-20), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "model_final.pth", weights_only=False)["model"]
    found = {k: v for k, v in state.items() if k.startswith("backbone.")}
    for name, tensor in found.items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(tensor, torch.full_like(tensor, 0.01), msg=name)
    assert "filled all 265 backbone tensors" in (tmp_path / "run" / "log.txt").read_text()
    assert metrics["mIoU"] is None and metrics["method"] == "LEWEL_B"


def test_what_a_config_asks_in_vain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="segmentation scales images by a ratio"):
        transfer(tiny("INPUT.MIN_SIZE_TRAIN_SAMPLING choice"), tmp_path)


def test_a_real_run(tmp_path: Path, real_data: Path) -> None:
    overrides = "INPUT.CROP.SIZE [65,65] INPUT.MIN_SIZE_TRAIN (64,96) SOLVER.MAX_ITER 1"
    metrics = transfer(tiny(overrides, "pascal_voc_R_50_FCN_D8_20k"), tmp_path)
    assert metrics["demo"] is False and all(metrics[name] is not None for name in SCORES)
    assert metrics["steps"] == "WarmupPolyLR"
    text = (tmp_path / "log.txt").read_text()
    assert "dataset voc_2012_train_aug_sem_seg: 65 images" in text
    first = read_lines(tmp_path / "metrics.jsonl")[0]["total_loss"]  # knows nothing yet
    assert first == pytest.approx(1.4 * math.log(21), rel=0.2)


def _two_processes(world: World, folder: Path) -> None:
    detection_train.LOG_PERIOD = 1
    metrics = transfer(tiny("SOLVER.IMS_PER_BATCH 4"), folder)
    assert bool(metrics) == world.is_main


def test_two_processes_synchronise_bn_and_share_the_test_set(tmp_path: Path) -> None:
    in_processes(_two_processes, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["device"] == "2 x cpu" and 0 <= metrics["mIoU"] <= 100
    text = (tmp_path / "log.txt").read_text()
    assert text.count("naiveSyncBN stands in for SyncBN between CPU processes") == 2
    # The saved network, evaluated by one process: every image was counted once.
    (tmp_path / "metrics.json").unlink()
    again = _evaluated(tmp_path)
    assert {k: metrics[k] for k in SCORES if metrics[k] is not None} == pytest.approx(
        {k: again[k] for k in SCORES if not math.isnan(again[k])}, abs=1e-3
    )


def _evaluated(folder: Path) -> dict[str, float]:
    cfg = tiny("SOLVER.IMS_PER_BATCH 4").detectron2()
    model = detection_train.build_model(cfg)
    state = torch.load(folder / "model_final.pth", weights_only=False)["model"]
    model.load_state_dict(state)
    return detection_train.evaluate(cfg, SEGMENTATION, model, str(folder / "again"))
