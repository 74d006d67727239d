"""Pre-training: what a run leaves, several processes, unreadable images."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import World
from common.metrics import read_lines
from pretrain.config import CHECKPOINT, ResolvedConfig
from pretrain.engine import Engine
from pretrain.train import Pretraining, pretrain
from tests.alone import ALONE, run_in
from tests.pretrain.small_runs import losses, small
from tests.processes import in_processes


def test_a_run_and_what_it_leaves(tmp_path: Path, few_images: Path) -> None:
    config = small(data=str(few_images))
    metrics = pretrain(config, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)  # no allow-list: plain values only
    assert (state["epoch"], state["arch"]) == (2, "LEWELB_EMAN")
    assert all(key.startswith("module.") for key in state["state_dict"])
    assert {"best_acc1", "optimizer", "scaler"} <= state.keys()
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert json.loads((tmp_path / "config.json").read_text()) == dataclasses.asdict(config)
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    half = [0.5 * (row["loss_global"] + row["loss_aligned"]) for row in rows if "loss" in row]
    assert half == pytest.approx(losses(tmp_path), rel=1e-5)
    assert metrics["loss"] == pytest.approx(sum(losses(tmp_path)[3:]) / 3, rel=1e-5)
    assert (tmp_path / "log.txt").read_text().count(": epoch_loss ") == 2
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_knn_monitor_before_between_and_after(tmp_path: Path, demo_root: Path) -> None:
    metrics = pretrain(small(data="demo", knn_every=1, knn_images=30, batch_size=48), tmp_path)
    rows = [r for r in read_lines(tmp_path / "metrics.jsonl") if "knn20_top1" in r]
    assert [row["step"] for row in rows] == [-1, 1, 3] and [r["epoch"] for r in rows] == [-1, 0, 1]
    assert metrics["best_knn"] == max(row["knn20_top1"] for row in rows)
    assert all(row["knn20_low"] <= row["knn20_top1"] <= row["knn20_high"] for row in rows)


def engine(config: ResolvedConfig, folder: Path, world: World) -> tuple[Engine, Any]:
    """The loop of a pre-training in this process, and its batches."""
    loop = Engine(Pretraining(config, world), run_in(folder, world))
    return loop, iter(loop.task.source.training_batches(loop.task.views, loop.batches, workers=0))


def _after_three_steps(world: World, config: ResolvedConfig, folder: Path) -> Any:
    """The model of a pre-training, in this process."""
    loop, found = engine(config, folder, world)
    for step in range(3):
        loss, _ = loop.step(step, next(found))
        assert torch.isfinite(loss)
    return loop.task.model


def _sending_all(module: nn.Module, **options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(module, **options | {"broadcast_buffers": True})


def _identical_ranks(world: World, config: ResolvedConfig, unread: str, folder: Path) -> None:
    model = _after_three_steps(world, config, folder / "ours")
    with pytest.MonkeyPatch.context() as patch:  # all buffers of rank 0, before each forward pass
        patch.setattr("pretrain.engine.DistributedDataParallel", _sending_all)
        wanted = _after_three_steps(world, config, folder / "sent").state_dict()
    if world.is_main:
        found = model.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
    own = re.compile(f"({unread}).*running_")
    state = {k: v for k, v in model.state_dict().items() if not own.match(k)}
    _assert_same_everywhere(state, world)


def _assert_same_everywhere(tensors: dict[str, torch.Tensor], world: World) -> None:
    for name, tensor in tensors.items():
        both = [torch.empty_like(tensor) for _ in range(world.size)]
        dist.all_gather(both, tensor.detach().contiguous())
        assert torch.equal(both[0], both[1]), name


@pytest.mark.parametrize(
    ("method", "norm", "unread"),  # statistics that nobody reads while they are not rank 0's
    [
        ("lewel_b", "eman", "predictor"),
        ("lewel_b", "syncbn", "none"),
        ("lewel_m", "eman", "none"),
        ("moco_v2", "shufflebn", "encoder"),
    ],
)
def test_two_processes_have_the_same_tensors_as_if_all_buffers_were_sent(
    tmp_path: Path, few_images: Path, method: str, norm: str, unread: str
) -> None:
    queue = {} if method == "lewel_b" else {"queue_size": 20}
    hidden = {"hidden_dim": None} if method == "moco_v2" else {}
    config = small(method=method, norm=norm, data=str(few_images), **queue, **hidden)
    in_processes(_identical_ranks, config, unread, tmp_path)


def _first_step(folder: Path, data: str, world: World) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first batch in float64, through DDP where there is one."""
    torch.set_default_dtype(torch.float64)
    try:
        loop, found = engine(small(norm="syncbn", data=data), folder, world)
    finally:
        torch.set_default_dtype(torch.float32)
    batch = next(found)  # whose numbers go by the default type
    loss = loop.task.loss(batch._replace(views=tuple(view.double() for view in batch.views)))
    loss.backward()
    parameters = loop.task.model.named_parameters()
    gradients = {name: p.grad for name, p in parameters if p.grad is not None}
    return gradients | {"loss": loss.detach()}


def _compare_halves(world: World, folder: Path, data: str, whole: dict[str, torch.Tensor]) -> None:
    found = _first_step(folder, data, world)
    dist.all_reduce(found["loss"])
    found["loss"] /= world.size
    assert found.keys() == whole.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-9, msg=name)


def test_two_halves_of_a_batch_are_the_whole(tmp_path: Path, few_images: Path) -> None:
    whole = _first_step(tmp_path, str(few_images), ALONE)
    in_processes(_compare_halves, tmp_path, str(few_images), whole)
