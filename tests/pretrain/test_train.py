"""The pre-training loop: several processes, resume, unreadable images, the checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from common import checkpoints
from common.distributed import World
from common.errors import UserError
from common.metrics import read_lines
from pretrain.checkpoint import FILE
from pretrain.config import PretrainConfig, ResolvedConfig
from pretrain.train import Training, pretrain
from tests.processes import in_processes


def small(**changes: Any) -> ResolvedConfig:
    """A run of seconds on the embedded data."""
    fields = {
        "data": "demo", "backbone": "resnet18", "epochs": 2, "batch_size": 120, "image_size": 32,
        "proj_dim": 16, "hidden_dim": 32, "workers": 1, "log_every": 1, "lr": 0.5, "device": "cpu",
    }  # fmt: skip
    return PretrainConfig(**fields | changes).resolve()  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_lines(folder / "metrics.jsonl") if "loss" in row]


def test_a_run_and_what_it_leaves(tmp_path: Path) -> None:
    config = small()
    metrics = pretrain(config, tmp_path)
    state = torch.load(tmp_path / FILE, weights_only=True)  # no allow-list: plain values only
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
    assert (tmp_path / "log.txt").read_text().count("done: mean loss") == 2
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("norm", ["eman", "syncbn"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, norm: str) -> None:
    config = small(norm=norm)
    pretrain(config, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    world = World(0, 1, 0, 1, torch.device("cpu"))
    training = Training(config, tmp_path / "cut", world)
    training.loader.batch_sampler.total_steps = 3  # type: ignore[union-attr]
    training.run()  # the first epoch, and its checkpoint
    (tmp_path / "cut" / "metrics.json").unlink()
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 99}\n{"step": 4, "lo')  # what a kill left behind
    training = Training(config, tmp_path / "cut", world)
    assert training.progress.step == 3
    training.run()
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    states = [checkpoints.load(tmp_path / name / FILE)["state_dict"] for name in ("cut", "whole")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], msg=name)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    pretrain(small(epochs=1), tmp_path)
    with pytest.raises(UserError, match=r"lr \(0\.5 there, 0\.25 now\)"):
        pretrain(small(epochs=1, lr=0.25), tmp_path)


def test_unreadable_images_are_counted_and_named(tmp_path: Path, demo_root: Path) -> None:
    source = sorted((demo_root / "imagenet" / "train" / "disc").iterdir())[:16]
    (tmp_path / "train" / "disc").mkdir(parents=True)
    for path in source:
        (tmp_path / "train" / "disc" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "train" / "disc" / source[3].name
    broken.write_bytes(broken.read_bytes()[:200])
    metrics = pretrain(small(data=str(tmp_path), batch_size=8), tmp_path / "run")
    assert metrics["unreadable_images"] == 2  # once in each epoch
    assert str(broken) in (tmp_path / "run" / "log.txt").read_text()


def _identical_ranks(world: World, norm: str, folder: Path) -> None:
    config = small(norm=norm, batch_size=60)
    training = Training(config, folder, world)
    batches = iter(training.loader)
    for step in range(3):
        view1, view2, _ = next(batches)
        loss, _ = training.step(step, view1, view2)
        assert torch.isfinite(loss)
    _assert_same_everywhere(dict(training.model.named_parameters()), world)
    view1, view2, _ = next(batches)
    training.forward(view1, view2)  # DDP sends rank 0's buffers before a forward pass
    if norm == "syncbn":
        _assert_same_everywhere(dict(training.model.named_buffers()), world)
    else:  # the forward pass then changes the online network's own; the target's stay
        _assert_same_everywhere(dict(training.model.target_net.named_buffers()), world)


def _assert_same_everywhere(tensors: dict[str, torch.Tensor], world: World) -> None:
    for name, tensor in tensors.items():
        both = [torch.empty_like(tensor) for _ in range(world.size)]
        dist.all_gather(both, tensor.detach().contiguous())
        assert torch.equal(both[0], both[1]), name


@pytest.mark.parametrize("norm", ["eman", "syncbn"])
def test_two_processes_have_the_same_weights_and_buffers(tmp_path: Path, norm: str) -> None:
    in_processes(_identical_ranks, norm, tmp_path)


def _gradients_of_half(world: World, folder: Path, whole: dict[str, torch.Tensor]) -> None:
    training = Training(small(norm="syncbn", batch_size=24), folder, world)
    view1, view2, _ = next(iter(training.loader))
    training.model.double()
    loss = training.forward(view1.double(), view2.double())
    loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    torch.testing.assert_close(mean / world.size, whole["loss"], rtol=1e-5, atol=1e-7)
    for name, parameter in training.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-5, atol=1e-7, msg=name)


def test_two_halves_of_a_batch_are_the_whole(tmp_path: Path) -> None:
    world = World(0, 1, 0, 1, torch.device("cpu"))
    training = Training(small(norm="syncbn", batch_size=24), tmp_path, world)
    view1, view2, _ = next(iter(training.loader))
    training.model.double()
    loss = training.forward(view1.double(), view2.double())
    loss.backward()
    whole = {n: p.grad for n, p in training.model.named_parameters() if p.grad is not None}
    in_processes(_gradients_of_half, tmp_path, whole | {"loss": loss.detach()})
