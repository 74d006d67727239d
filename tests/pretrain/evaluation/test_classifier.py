"""Whole runs: what they leave, resume, several processes, and what a frozen backbone keeps."""

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
from common.files import sha256
from common.metrics import read_lines
from common.weights import Weights
from pretrain.evaluation import cache, classifier, validation
from pretrain.evaluation.classifier import Evaluation, classify
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.network import fingerprint, load_backbone
from tests.alone import ALONE, Ended, run_in, told_after
from tests.pretrain.evaluation.configs import linear, semi
from tests.pretrain.evaluation.sources import small_network
from tests.processes import in_processes


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Three batches of eight images of two classes, and a validation split of eight."""
    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 12), ("val", 4)):
        for name in ("disc", "star"):
            target = folder / split / name
            shutil.copytree(demo_root / "imagenet" / split / name, target)
            for path in sorted(target.iterdir())[count:]:
                path.unlink()
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of a small network in the place of a ResNet."""
    monkeypatch.setattr(classifier, "load_backbone", lambda _: small_network())
    monkeypatch.setattr(classifier, "feature_dim", lambda _: 8)


def semi_of(few_images: Path, **changes: Any) -> ClassifierConfig:
    """Semi-supervised on all of the few images."""
    return dataclasses.replace(semi(few_images, batch_size=8), percent=100, **changes)


def test_a_linear_run_and_what_it_leaves(tmp_path: Path, few_images: Path) -> None:
    torch.manual_seed(0)
    torch.save(load_backbone(Weights("resnet18")).state_dict(), tmp_path / "r18.pth")
    digest = sha256(tmp_path / "r18.pth")
    weights = Weights("resnet18", str(tmp_path / "r18.pth"), digest, "BYOL", "", 300)
    config = linear(few_images, weights=weights)
    metrics = classify(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    expected = {
        "kind": "linear", "method": "BYOL", "pretrain_epochs": 300, "architecture": "resnet18",
        "lr": 0.4 * 8 / 256, "batch_size": 8, "epochs": 2, "seed": 0, "subset": "all",
        "images_train": 24, "images_val": 8, "unreadable_images": 0, "weights_sha256": digest,
        "demo": False, "top5": 100.0, "device": "1 x cpu", "precision": "float32",
    }  # fmt: skip
    assert expected.items() <= metrics.items()
    assert metrics["top1_low"] <= metrics["top1"] <= metrics["top1_high"]
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    accuracies = [row["top1"] for row in rows if "top1" in row]
    assert len(accuracies) == 2 and accuracies[-1] == metrics["top1"]  # the last, not the best
    state = checkpoints.load(tmp_path / "run" / "checkpoint.pth")
    assert set(state["state_dict"]) == {"weight", "bias"}
    assert not (tmp_path / "run" / cache.FILE).exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_frozen_backbone_keeps_every_bit(tmp_path: Path, few_images: Path) -> None:
    run = Evaluation(linear(few_images), run_in(tmp_path))
    before = fingerprint(run.model.backbone)
    run.run()
    assert fingerprint(run.model.backbone) == before
    assert not any(module.training for module in run.model.backbone.modules())
    assert all(parameter.grad is None for parameter in run.model.backbone.parameters())
    run.model.backbone.state_dict()["bn1.running_mean"][0] += 1e-3
    assert fingerprint(run.model.backbone) != before


def test_a_backbone_that_changes_is_noticed(tmp_path: Path, few_images: Path) -> None:
    run = Evaluation(linear(few_images, epochs=1), run_in(tmp_path))
    run.model.backbone.get_submodule("bn1").train()  # its averages will follow the images
    with pytest.raises(RuntimeError, match="frozen backbone changed"):
        run.run()
    assert not (tmp_path / "metrics.json").exists()


class Killed(Exception):
    """Stands for a kill right after a checkpoint."""


@pytest.mark.parametrize("kind", ["linear", "semi"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, few_images: Path, small: None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = linear(few_images) if kind == "linear" else semi_of(few_images)
    whole = classify(config, tmp_path / "whole")
    save = Evaluation._save

    def save_and_die(run: Evaluation, *words: Any) -> None:
        save(run, *words)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Evaluation, "_save", save_and_die)
        classify(config, tmp_path / "cut")
    if kind == "linear":  # the validation features are there: nothing computes them again
        assert (tmp_path / "cut" / cache.FILE).exists()
        monkeypatch.setattr(validation, "extract", None)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 99}\n{"step": 4, "lo')  # what a kill leaves behind
    cut = classify(config, tmp_path / "cut")
    states = [checkpoints.load(tmp_path / name / "checkpoint.pth") for name in ("cut", "whole")]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    timed = {"wall_time_s", "restarts"}
    assert (whole["restarts"], cut["restarts"]) == (0, 1)
    assert {k: v for k, v in cut.items() if k not in timed} == {
        k: v for k, v in whole.items() if k not in timed
    }
    losses = [
        [row["loss"] for row in read_lines(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("cut", "whole")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.parametrize("kind", ["linear", "semi"])
@pytest.mark.parametrize("step", [0, 2, 4])  # within an epoch, at the end of one, in the last
def test_a_run_that_slurm_ends_goes_on_from_that_step(
    tmp_path: Path, few_images: Path, small: None, kind: str, step: int
) -> None:
    config = linear(few_images) if kind == "linear" else semi_of(few_images)
    whole = classify(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
        told_after(step, patch)
        classify(config, tmp_path / "cut")
    cut = classify(config, tmp_path / "cut")
    assert f"resumed after step {step}" in (tmp_path / "cut" / "log.txt").read_text()
    states = [checkpoints.load(tmp_path / name / "checkpoint.pth") for name in ("cut", "whole")]
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    same = ("loss", "top1", "top5", "unreadable_images")
    assert {k: cut[k] for k in same} == {k: whole[k] for k in same}
    rows = [
        [row for row in read_lines(tmp_path / name / "metrics.jsonl") if "top1" in row]
        for name in ("cut", "whole")
    ]
    assert rows[0] == rows[1]


def test_a_run_cut_after_its_last_epoch_only_has_to_say_so(
    tmp_path: Path, few_images: Path, small: None
) -> None:
    config = semi_of(few_images, epochs=1)
    metrics = classify(config, tmp_path)
    (tmp_path / "metrics.json").unlink()
    assert classify(config, tmp_path)["top1"] == metrics["top1"]
    assert (tmp_path / "metrics.json").exists()


def test_features_of_other_weights_are_not_used(tmp_path: Path) -> None:
    first = validation.Features(torch.zeros(2, 3), torch.zeros(2).long(), 1)
    second = validation.Features(torch.ones(2, 3), torch.zeros(2).long(), 0)
    kept = cache.cached(tmp_path, {"dtype": "a"}, ALONE, lambda: first)
    assert cache.cached(tmp_path, {"dtype": "a"}, ALONE, lambda: second).skipped == 1
    assert torch.equal(kept.vectors, first.vectors)
    assert cache.cached(tmp_path, {"dtype": "b"}, ALONE, lambda: second).vectors.all()


def test_weights_that_changed_since_are_refused(tmp_path: Path, few_images: Path) -> None:
    path = tmp_path / "r18.pth"
    torch.save(load_backbone(Weights("resnet18")).state_dict(), path)
    with pytest.raises(UserError, match=r"r18\.pth is no longer the file of sha256 00000000"):
        load_backbone(Weights("resnet18", str(path), "0" * 64))


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path, few_images: Path, small: None) -> None:
    config = linear(few_images, lr=1e38, log_every=10)
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) at step [12] with lr 1e\+38; .*--lr"
    ):
        classify(config, tmp_path)
    assert not (tmp_path / "checkpoint.pth").exists()


def test_unreadable_images_are_counted(tmp_path: Path, few_images: Path, small: None) -> None:
    shutil.copytree(few_images, tmp_path / "data")
    for split in ("train", "val"):
        path = sorted((tmp_path / "data" / split / "star").iterdir())[0]
        path.write_bytes(path.read_bytes()[:200])
    metrics = classify(linear(tmp_path / "data"), tmp_path / "run")
    assert metrics["images_val"] == 7 and metrics["unreadable_images"] == 2 + 1  # two epochs
    assert (tmp_path / "run" / "log.txt").read_text().count("skipped an unreadable image") == 3
    for path in (tmp_path / "data" / "val").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the validation images in .* can be read"):
        classify(semi_of(tmp_path / "data"), tmp_path / "none")


def _in_a_process(world: World, data: Path, folder: Path, whole: dict[str, Any]) -> None:
    classifier.load_backbone = lambda _: small_network()  # type: ignore[assignment]
    classifier.feature_dim = lambda architecture: 8
    run = Evaluation(linear(data), run_in(folder, world))
    dist.barrier()
    metrics = run.run()
    same = ("top1", "top5", "images_val", "unreadable_images", "top1_low", "subset")
    assert {k: metrics[k] for k in same} == {k: whole[k] for k in same}
    assert math.isclose(metrics["loss"], whole["loss"], rel_tol=1e-4)
    torch.testing.assert_close(run.model.head.weight, whole["weight"], rtol=1e-3, atol=1e-5)

    run = Evaluation(semi_of(data, epochs=1), run_in(folder / "semi", world))
    dist.barrier()
    metrics = run.run()
    assert metrics["images_val"] == 8
    for parameter in run.model.parameters():
        both = [torch.empty_like(parameter) for _ in range(world.size)]
        dist.all_gather(both, parameter.detach().contiguous())
        assert torch.equal(both[0], both[1])
    # Each has BatchNorm averages of its own; what is measured is the network in the checkpoint.
    kept = Evaluation(run.config, run_in(folder / "semi"))
    logits = validation.Validation(
        kept.model, kept.splits.validation, run.config, folder, ALONE
    )._logits()
    mine = run.validation._logits()
    torch.testing.assert_close(mine.vectors, logits.vectors[world.rank :: world.size])
    progress = [torch.zeros(2).long() for _ in range(world.size)]
    dist.all_gather(progress, torch.tensor([run.progress.top1, run.progress.evaluated]))
    assert torch.equal(progress[0], progress[1])


def test_two_processes_are_one(tmp_path: Path, few_images: Path, small: None) -> None:
    run = Evaluation(linear(few_images), run_in(tmp_path / "alone"))
    whole = run.run() | {"weight": run.model.head.weight.detach()}
    in_processes(_in_a_process, few_images, tmp_path / "two", whole)
