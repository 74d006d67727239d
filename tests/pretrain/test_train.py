"""The pre-training loop: several processes, resume, unreadable images, the checkpoint."""

import dataclasses
import json
import shutil
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
        "data": "demo", "backbone": "resnet18", "epochs": 2, "batch_size": 8, "image_size": 32,
        "proj_dim": 16, "hidden_dim": 32, "workers": 1, "log_every": 1, "lr": 0.5, "device": "cpu",
    }  # fmt: skip
    return PretrainConfig(**fields | changes).resolve()  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Three batches of eight images."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("disc", "star"):
        shutil.copytree(demo_root / "imagenet" / "train" / name, folder / "train" / name)
        for path in sorted((folder / "train" / name).iterdir())[12:]:
            path.unlink()
    return folder


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_lines(folder / "metrics.jsonl") if "loss" in row]


def test_a_run_and_what_it_leaves(tmp_path: Path, few_images: Path) -> None:
    config = small(data=str(few_images))
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


class Killed(Exception):
    """Stands for a kill right after a checkpoint."""


@pytest.mark.parametrize("norm", ["eman", "syncbn"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, few_images: Path, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(norm=norm, data=str(few_images))
    pretrain(config, tmp_path / "whole")
    save = Training._save

    def save_and_die(training: Training, epoch: int) -> None:
        save(training, epoch)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "_save", save_and_die)
        pretrain(config, tmp_path / "cut")
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 99}\n{"step": 4, "lo')  # what a kill leaves behind
    pretrain(config, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    states = [checkpoints.load(tmp_path / name / FILE)["state_dict"] for name in ("cut", "whole")]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, few_images: Path) -> None:
    pretrain(small(epochs=1, data=str(few_images)), tmp_path)
    with pytest.raises(UserError, match=r"holds another run: lr \(0\.5 there, 0\.25 now\)"):
        pretrain(small(epochs=1, data=str(few_images), lr=0.25), tmp_path)


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


def _identical_ranks(world: World, norm: str, folder: Path, data: str) -> None:
    config = small(norm=norm, data=data, epochs=3)
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
def test_two_processes_have_the_same_weights_and_buffers(
    tmp_path: Path, few_images: Path, norm: str
) -> None:
    in_processes(_identical_ranks, norm, tmp_path, str(few_images))


def _first_step(folder: Path, data: str, world: World) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first batch in float64, through DDP where there is one."""
    torch.set_default_dtype(torch.float64)
    try:
        training = Training(small(norm="syncbn", data=data), folder, world)
    finally:
        torch.set_default_dtype(torch.float32)
    view1, view2, _ = next(iter(training.loader))  # whose random numbers go by the default type
    loss = training.forward(view1.double(), view2.double())
    loss.backward()
    parameters = training.model.named_parameters()
    found = {name: p.grad for name, p in parameters if p.grad is not None}
    return found | {"loss": loss.detach()}


def _compare_halves(world: World, folder: Path, data: str, whole: dict[str, torch.Tensor]) -> None:
    found = _first_step(folder, data, world)
    dist.all_reduce(found["loss"])
    found["loss"] /= world.size
    assert found.keys() == whole.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-9, msg=name)


def test_two_halves_of_a_batch_are_the_whole(tmp_path: Path, few_images: Path) -> None:
    alone = World(0, 1, 0, 1, torch.device("cpu"))
    whole = _first_step(tmp_path, str(few_images), alone)
    in_processes(_compare_halves, tmp_path, str(few_images), whole)
