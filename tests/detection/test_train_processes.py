"""Fine-tuning by several processes: what they have in common, and resuming."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import hooks

from common.distributed import World
from common.errors import UserError
from common.files import sha256
from common.metrics import read_lines
from common.weights import Weights
from detection import train
from detection.train import transfer
from tests.alone import ALONE
from tests.detection.helpers import assert_equal_to_the_bit
from tests.detection.small_runs import killed, tiny
from tests.processes import gloos_threads, in_processes


def _train_together(world: World, folder: Path) -> None:
    def save(moment: str, model: Any) -> None:
        torch.save(model.module.state_dict(), folder / f"{moment}{world.rank}.pth")

    def evaluate(cfg: Any, kind: Any, model: Any, inference: str) -> dict[str, float]:
        assert cfg.MODEL.FPN.NORM == "naiveSyncBN"
        save("evaluated", model)
        return {"box_AP": 0.0}

    def update_stats(hook: hooks.PreciseBN) -> None:
        save("trained", hook._model)
        precise_bn(hook)

    precise_bn = hooks.PreciseBN.update_stats
    hooks.PreciseBN.update_stats = update_stats
    train.evaluate, train.LOG_PERIOD = evaluate, 1  # type: ignore[assignment]
    torch.set_num_threads(1)
    # Ranks draw images of different sizes.
    metrics = transfer(tiny("SOLVER.IMS_PER_BATCH 3 INPUT.MIN_SIZE_TRAIN (48,80)"), folder)
    assert bool(metrics) == world.is_main
    assert not gloos_threads()
    if world.is_main:
        assert metrics["device"] == "3 x cpu"


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    in_processes(_train_together, folder, size=3)
    return folder


def assert_ranks_are_equal(folder: Path, moment: str) -> None:
    ranks = [torch.load(folder / f"{moment}{rank}.pth") for rank in range(3)]
    for name, tensor in ranks[0].items():
        torch.testing.assert_close(tensor, ranks[1][name], msg=name)
        torch.testing.assert_close(tensor, ranks[2][name], msg=name)


def test_processes_train_the_same_weights_and_buffers(processes: Path) -> None:
    rows = read_lines(processes / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(row["total_loss"]) for row in rows)
    # Detectron2 does not send buffers: they are equal because the statistics are synchronised.
    assert_ranks_are_equal(processes, "trained")
    trained = torch.load(processes / "trained0.pth")
    assert trained["backbone.bottom_up.stem.conv1.norm.running_mean"].abs().max() > 0
    assert "naiveSyncBN stands in for SyncBN" in (processes / "log.txt").read_text()
    assert (processes / "log_rank1.txt").exists()


def test_three_processes_resumed_equal_undisturbed_ones_to_the_bit(
    processes: Path, tmp_path: Path
) -> None:
    """With as many, the order of the sums of gradients matters."""
    folder = killed(processes, tmp_path / "killed")
    in_processes(_train_together, folder, size=3)
    assert "iterations 2 to 4" in (folder / "log.txt").read_text()
    assert_equal_to_the_bit(processes, folder)


def test_processes_evaluate_the_detector_that_is_saved(processes: Path) -> None:
    assert_ranks_are_equal(processes, "evaluated")
    saved = torch.load(processes / "model_final.pth", weights_only=False)["model"]
    for name, tensor in torch.load(processes / "evaluated1.pth").items():
        torch.testing.assert_close(tensor, saved[name], msg=name)


def _evaluate(world: World, folder: Path, detector: str) -> None:
    weights = Weights("resnet18", detector, sha256(detector))
    transfer(tiny("SOLVER.IMS_PER_BATCH 3", weights=weights, eval_only=True), folder)


def test_an_evaluation_does_not_split_the_batch(processes: Path, tmp_path: Path) -> None:
    detector = str(processes / "model_final.pth")
    found = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        if size == 1:
            _evaluate(ALONE, folder, detector)
        else:
            in_processes(_evaluate, folder, detector, size=size)
        metrics = json.loads((folder / "metrics.json").read_text())
        found.append({k: v for k, v in metrics.items() if k.startswith(("box_", "mask_"))})
    assert found[0] == found[1] and "box_AP" in found[0]


def test_a_batch_that_does_not_split_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, 2, 0, 2, torch.device("cpu"))
    monkeypatch.setattr(train.distributed, "start", lambda *_: world)
    monkeypatch.setattr(train.compat, "process_groups", lambda _: nullcontext())
    with pytest.raises(UserError, match="IMS_PER_BATCH 3 does not split evenly over 2 processes"):
        transfer(tiny("SOLVER.IMS_PER_BATCH 3"), tmp_path)
