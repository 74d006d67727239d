"""Fine-tuning on the embedded data: what a run leaves, and resuming."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog

import demo
from common.errors import UserError
from common.files import sha256
from common.metrics import read_lines
from common.weights import Weights
from detection import inspection, train
from detection.config import read, resolve
from detection.train import transfer
from tests.alone import Ended, told_after
from tests.detection.helpers import CONFIGS, assert_equal_to_the_bit
from tests.detection.small_runs import (
    FIRST,
    SECOND,
    TINY,
    constant_weights,
    copy,
    iterations,
    killed,
    tiny,
)


@pytest.fixture(autouse=True)
def log_every_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOG_PERIOD", 1)


@pytest.fixture(scope="module")
def r18(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return constant_weights(tmp_path_factory.mktemp("weights"), "resnet18")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "LOG_PERIOD", 1)
    transfer(tiny(lr=0.001), folder)
    patch.undo()
    return folder


def test_a_run_and_what_it_leaves(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    expected = {
        "kind": "transfer", "config": "demo_R_18_FPN", "method": "random", "norm": "",
        "pretrain_epochs": None, "pretrain_recipe": None, "lr": 0.001, "low_lr": True,
        "batch_size": 2, "seed": 0,
        "iterations": 4, "weights_sha256": "", "overrides": TINY, "demo": True,
        "device": "1 x cpu", "precision": "float32", "unreadable_images": 0,
        "batch_per_process": 2, "scaled": False, "eval_only": False, "restarts": 0, "steps": "3",
        "warmup_iterations": 2,
        "config_hash": tiny().config_hash,
        "dataset": "demo_coco_val", "own_data": None, "classes": list(demo.CLASSES),
    }  # fmt: skip
    assert expected.items() <= metrics.items()
    aps = [f"{t}_{ap}" for t in ("box", "mask") for ap in "AP AP50 AP75 APs APm APl".split()]
    assert {*expected, *aps, "wall_time_s", "git_commit", "versions"} == metrics.keys()
    assert all(metrics[ap] is None or 0 <= metrics[ap] <= 100 for ap in aps)
    assert metrics["wall_time_s"] > 0 and "torch " in metrics["versions"]
    operators = "with" if importlib.util.find_spec("detectron2._C") else "without"
    assert re.search(rf"detectron2 [^;]+ {operators} compiled operators", metrics["versions"])
    assert "demo_R_18_FPN on 1 x cpu (float32): iterations" in (finished / "log.txt").read_text()
    assert iterations(finished) == [0, 1, 2, 3]
    rows = read_lines(finished / "metrics.jsonl")
    assert all(math.isfinite(row["total_loss"]) for row in rows)
    assert {"loss_mask", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"} <= {*rows[0]}
    assert (finished / "last_checkpoint").read_text() == SECOND
    assert {p.name for p in finished.glob("*.pth")} == {FIRST, SECOND, "model_final.pth"}
    assert (finished / "model_final.pth").resolve().name == SECOND
    assert "IMS_PER_BATCH: 2" in (finished / "config.yaml").read_text()
    assert "random initialisation" in (finished / "log.txt").read_text()
    assert list((finished / "tensorboard").iterdir()) and list((finished / "inference").iterdir())


def test_the_learning_rate_is_detectron2s_schedule(finished: Path) -> None:
    # Linear warm-up from a thousandth over 2 iterations, and the step at iteration 3.
    rows = read_lines(finished / "metrics.jsonl")
    wanted = [0.001 * 1e-3, 0.001 * (1e-3 + 1) / 2, 0.001, 0.0001]
    assert [row["lr"] for row in rows] == pytest.approx(wanted, rel=1e-6)


def test_a_killed_run_is_resumed(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "killed")
    seconds = torch.load(folder / FIRST, weights_only=False)["clock"]["seconds"]
    metrics = transfer(tiny(lr=0.001), folder)
    assert iterations(folder) == [0, 1, 2, 3]
    before, after = (read_lines(f / "metrics.jsonl") for f in (finished, folder))
    assert after[:2] == before[:2]
    assert [row["lr"] for row in after] == [row["lr"] for row in before]
    assert_equal_to_the_bit(finished, folder)
    assert "iterations 2 to 4" in (folder / "log.txt").read_text()
    assert metrics["wall_time_s"] > seconds and metrics["iterations"] == 4
    assert metrics["restarts"] == 1
    assert (folder / "last_checkpoint").read_text() == SECOND.replace("0001", "0002", 1)


def test_a_run_that_slurm_ends_goes_on_from_that_iteration(finished: Path, tmp_path: Path) -> None:
    config = tiny("SOLVER.CHECKPOINT_PERIOD 100", lr=0.001)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
        told_after(2, patch)
        transfer(config, tmp_path)
    assert iterations(tmp_path) == [0, 1, 2]
    metrics = transfer(config, tmp_path)
    assert "iterations 3 to 4" in (tmp_path / "log.txt").read_text()
    assert metrics["restarts"] == 1
    assert iterations(tmp_path) == [0, 1, 2, 3]
    assert_equal_to_the_bit(finished, tmp_path)


def test_a_run_killed_in_its_evaluation_only_evaluates_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    for name in (SECOND, "metrics.jsonl"):
        copy(finished / name, tmp_path / "run" / name)
    monkeypatch.setattr(train.SimpleTrainer, "run_step", None)  # calling it fails
    metrics = transfer(tiny(lr=0.001), tmp_path / "run")
    before = json.loads((finished / "metrics.json").read_text())
    assert {k: metrics[k] for k in before if "_AP" in k} == {
        k: before[k] for k in before if "_AP" in k
    }
    assert iterations(tmp_path / "run") == [0, 1, 2, 3]


def test_the_backbone_starts_from_the_weights(
    r18: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "evaluate", lambda *_: {"box_AP": math.nan})
    overrides = "SOLVER.MAX_ITER 1 SOLVER.STEPS () TEST.PRECISE_BN.ENABLED False"
    metrics = transfer(tiny(overrides, weights=r18, lr=1e-20), tmp_path)
    state = torch.load(tmp_path / "model_final.pth", weights_only=False)["model"]
    found = {k: v for k, v in state.items() if k.startswith("backbone.bottom_up.")}
    learned = {k: v for k, v in found.items() if k.endswith(("weight", "bias"))}
    assert len(learned) == 20 + 20 * 2  # convolutions and norms
    for name, tensor in learned.items():
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.01), msg=name)
    assert "the weights filled all 100 backbone tensors" in (tmp_path / "log.txt").read_text()
    assert (metrics["method"], metrics["norm"], metrics["pretrain_epochs"]) == (
        "LEWEL_B", "eman", 200
    )  # fmt: skip
    assert metrics["weights_sha256"] == r18.sha256 and metrics["box_AP"] is None


def test_weights_of_another_depth_are_refused(r18: Weights, tmp_path: Path) -> None:
    overrides = "MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.RES2_OUT_CHANNELS 256"
    with pytest.raises(UserError, match=r"R\.pkl has no tensor for .* backbone\.bottom_up\."):
        transfer(tiny(overrides, weights=r18), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_vocs_boxes_are_learnt_and_scored(tmp_path: Path) -> None:
    words = f"{TINY} SOLVER.MAX_ITER 2 SOLVER.STEPS (1,)".split()
    config = resolve(read(CONFIGS / "demo_voc_R_18_FPN.yaml"), overrides=tuple(words))
    metrics = transfer(config, tmp_path)
    scores = {name: metrics[name] for name in metrics if "AP" in name}
    assert list(scores) == ["box_AP", "box_AP50", "box_AP75"] and metrics["kind"] == "transfer"
    assert all(0 <= value <= 100 for value in scores.values())
    assert "dataset demo_voc_2007_test: 12 images" in (tmp_path / "log.txt").read_text()


def test_a_test_set_that_lacks_an_image_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [dict(r) for r in DatasetCatalog.get("demo_coco_val")]
    records[1]["file_name"] = "nowhere.jpg"
    monkeypatch.setattr(inspection, "_read", lambda *_: records)
    with pytest.raises(UserError, match=r"lacks 1 files of its 10 images, such as nowhere\.jpg"):
        transfer(tiny(), tmp_path)
    assert not list(tmp_path.glob("*.pth"))


def test_a_trained_detector_evaluated_again_has_the_same_scores(
    finished: Path, tmp_path: Path
) -> None:
    trained = json.loads((finished / "metrics.json").read_text())
    detector = str(finished / "model_final.pth")
    weights = Weights("resnet18", detector, sha256(detector))
    again = transfer(tiny(weights=weights, eval_only=True), tmp_path)
    scores = [name for name in trained if name.startswith(("box_", "mask_"))]
    assert scores and {k: again[k] for k in scores} == {k: trained[k] for k in scores}
    assert (again["iterations"], again["eval_only"], trained["eval_only"]) == (0, True, False)
    # What trained it was not this config.
    unknown = ("lr", "low_lr", "batch_size", "batch_per_process", "scaled", "steps")
    assert again.keys() == trained.keys() - {"unreadable_images"}
    assert all(again[name] is None for name in (*unknown, "warmup_iterations"))
    assert (tmp_path / "metrics.json").exists() and not list(tmp_path.glob("*.pth"))


def test_a_backbone_alone_is_no_detector_to_evaluate(r18: Weights, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"R\.pkl lacks \d+ tensors of demo_R_18_FPN, such as"):
        transfer(tiny(weights=r18, eval_only=True), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_without_a_norm_to_train_there_is_no_precise_bn(tmp_path: Path) -> None:
    overrides = "MODEL.RESNETS.NORM FrozenBN MODEL.FPN.NORM '' MODEL.ROI_BOX_HEAD.NORM '' "
    overrides += "MODEL.ROI_MASK_HEAD.NORM '' SOLVER.MAX_ITER 2 SOLVER.STEPS ()"
    metrics = transfer(tiny(overrides), tmp_path / "run")
    assert metrics["iterations"] == 2
    assert "PreciseBN is disabled" in (tmp_path / "run" / "log.txt").read_text()
