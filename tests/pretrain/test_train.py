"""The pre-training loop: several processes, resume, unreadable images, the checkpoint."""

import dataclasses
import json
import math
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
from pretrain.augment import RandomViews
from pretrain.checkpoint import FILE
from pretrain.config import PretrainConfig, ResolvedConfig
from pretrain.train import Training, pretrain
from tests.alone import ALONE, Ended, run_in, told_after
from tests.processes import in_processes


def small(**changes: Any) -> ResolvedConfig:
    """A run of seconds on the embedded data."""
    fields = {
        "data": "demo", "backbone": "resnet18", "epochs": 2, "batch_size": 8, "image_size": 32,
        "proj_dim": 16, "hidden_dim": 32, "workers": 1, "log_every": 1, "lr": 0.5, "device": "cpu",
        "knn_every": 0,
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
    assert (tmp_path / "log.txt").read_text().count(": epoch_loss ") == 2
    assert list((tmp_path / "tensorboard").iterdir())


class Killed(Exception):
    """Stands for a kill right after a checkpoint."""


def killed_after(config: ResolvedConfig, folder: Path, step: int, patch: Any) -> None:
    """Run until the checkpoint of ``step`` is written, and leave what a kill leaves behind."""
    save = Training._save

    def save_and_die(training: Training, steps: int) -> None:
        save(training, steps)
        if steps == step:
            raise Killed

    with patch.context() as inner, pytest.raises(Killed):
        inner.setattr(Training, "_save", save_and_die)
        pretrain(config, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {step}, "loss": 99}}\n{{"step": {step + 1}, "lo')


def assert_equal(one: Path, other: Path) -> None:
    """The same losses and the same tensors, to the bit."""
    assert losses(one) == losses(other)
    means = [[r["epoch_loss"] for r in read_lines(f / "metrics.jsonl") if "epoch_loss" in r]
             for f in (one, other)]  # fmt: skip
    assert means[0] == means[1]
    states = [checkpoints.load(folder / FILE)["state_dict"] for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


OF_METHOD: dict[str, dict[str, Any]] = {
    "lewel_b": {},
    "lewel_m": {"method": "lewel_m", "queue_size": 20},  # draws random numbers while it trains
}


@pytest.mark.parametrize("step", [2, 3])  # inside the first epoch, and at its end
@pytest.mark.parametrize("method", OF_METHOD)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, few_images: Path, method: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data=str(few_images), checkpoint_min=1e-9, **OF_METHOD[method])
    pretrain(config, tmp_path / "whole")
    killed_after(config, tmp_path / "cut", step, monkeypatch)
    pretrain(config, tmp_path / "cut")
    assert_equal(tmp_path / "cut", tmp_path / "whole")
    kept = sorted(path.name for path in (tmp_path / "cut").glob("checkpoint_*"))
    assert kept == ["checkpoint_0002_000000005.pth.tar", "checkpoint_0002_000000006.pth.tar"]
    assert (tmp_path / "cut" / FILE).resolve().name == kept[1]


@pytest.mark.parametrize("step", [1, 2])  # inside the first epoch, and at its end
def test_a_run_that_slurm_ends_goes_on_from_that_step(
    tmp_path: Path, few_images: Path, step: int
) -> None:
    config = small(data=str(few_images), log_every=3)
    pretrain(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
        told_after(step, patch)
        pretrain(config, tmp_path / "cut")
    metrics = pretrain(config, tmp_path / "cut")
    assert f"resumed after step {step}\n" in (tmp_path / "cut" / "log.txt").read_text()
    assert metrics["restarts"] == 1
    assert_equal(tmp_path / "cut", tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Training.step

    def overflowing(training: Training, number: int, *views: torch.Tensor) -> Any:
        loss, row = step(training, number, *views)
        if number == 5:  # a gradient that is infinite where the loss is not
            next(training.model.parameters()).data[0] = math.inf
        return loss, row

    monkeypatch.setattr(Training, "step", overflowing)
    with pytest.raises(
        UserError, match=r"the weights were not finite after step 5, lr .*_0001_0+3"
    ):
        pretrain(small(data=str(few_images)), tmp_path)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data=str(few_images), checkpoint_min=1e-9)
    pretrain(config, tmp_path / "whole")
    killed_after(config, tmp_path / "cut", 4, monkeypatch)
    newest = (tmp_path / "cut" / FILE).resolve()
    newest.write_bytes(newest.read_bytes()[:1000])
    pretrain(config, tmp_path / "cut")
    warning = (tmp_path / "cut" / "log.txt").read_text()
    assert f"{newest} is not a readable PyTorch checkpoint (1000 bytes)" in warning
    assert "resumed after step 2" in warning
    assert_equal(tmp_path / "cut", tmp_path / "whole")


def test_no_readable_checkpoint_is_an_error(tmp_path: Path, few_images: Path) -> None:
    (tmp_path / "checkpoint_0001_000000002.pth.tar").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read; --fresh"):
        pretrain(small(data=str(few_images)), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_step(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Training.step

    def poisoned(training: Training, number: int, *views: torch.Tensor) -> Any:
        loss, row = step(training, number, *views)
        return (loss * float("nan") if number in (4, 5) else loss), row

    monkeypatch.setattr(Training, "step", poisoned)
    config = small(data=str(few_images), log_every=3)
    message = (
        r"not finite at step 4, lr 0\.\d+; the last good checkpoint is checkpoint_0001_000000003"
    )
    with pytest.raises(UserError, match=message):
        pretrain(config, tmp_path)
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


def test_the_knn_monitor_before_between_and_after(tmp_path: Path, demo_root: Path) -> None:
    metrics = pretrain(small(data="demo", knn_every=1, knn_images=30, batch_size=60), tmp_path)
    rows = [r for r in read_lines(tmp_path / "metrics.jsonl") if "knn20_top1" in r]
    assert [row["step"] for row in rows] == [-1, 1, 3] and [r["epoch"] for r in rows] == [-1, 0, 1]
    assert metrics["best_knn"] == max(row["knn20_top1"] for row in rows)
    assert all(row["knn20_low"] <= row["knn20_top1"] <= row["knn20_high"] for row in rows)


@pytest.mark.parametrize("written", [False, True])
def test_an_evaluation_that_was_cut_is_done_again(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    config = small(data="demo", knn_every=1, knn_images=30, batch_size=60)
    pretrain(config, tmp_path / "whole")
    evaluate, save, done = Training._evaluate, Training._save, [0]

    def cut(training: Training, *words: Any) -> None:
        done[0] += 1
        if done[0] == 2 and not written:
            raise Killed
        evaluate(training, *words)

    def cut_save(training: Training, *words: Any) -> None:
        if done[0] == 2 and written:
            raise Killed
        save(training, *words)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "_evaluate", cut)
        patch.setattr(Training, "_save", cut_save)
        pretrain(config, tmp_path / "cut")
    metrics = pretrain(config, tmp_path / "cut")
    rows = [
        [row for row in read_lines(tmp_path / name / "metrics.jsonl") if "knn20_top1" in row]
        for name in ("cut", "whole")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    assert metrics["best_knn"] == max(row["knn20_top1"] for row in rows[0])
    assert_equal(tmp_path / "cut", tmp_path / "whole")


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


def batches(training: Training) -> Any:
    """The batches of a training's process."""
    views = RandomViews(training.method.views(32), training.config.seed)
    return iter(training.source.training_batches(views, training.batches, workers=0))


def _identical_ranks(world: World, norm: str, folder: Path, data: str) -> None:
    config = small(norm=norm, data=data, epochs=3)
    training = Training(config, run_in(folder, world))
    found = batches(training)
    for step in range(3):
        loss, _ = training.step(step, *next(found).views)
        assert torch.isfinite(loss)
    model = training.model
    _assert_same_everywhere(dict(model.named_parameters()), world)
    training.learner.forward(*next(found).views)  # DDP sends rank 0's buffers before it
    if norm == "syncbn":
        _assert_same_everywhere(dict(model.named_buffers()), world)
    else:  # the forward pass then changes the online network's own; the target's stay
        _assert_same_everywhere(dict(model.networks()[1].named_buffers()), world)


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
        training = Training(small(norm="syncbn", data=data), run_in(folder, world))
    finally:
        torch.set_default_dtype(torch.float32)
    view1, view2 = next(batches(training)).views  # whose numbers go by the default type
    loss = training.learner.forward(view1.double(), view2.double())
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
    whole = _first_step(tmp_path, str(few_images), ALONE)
    in_processes(_compare_halves, tmp_path, str(few_images), whole)
