"""Interrupted pre-trainings go on, and equal those that were not interrupted to the bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common import checkpoints, runs
from common.errors import UserError
from common.files import point
from common.metrics import read_lines
from pretrain import train
from pretrain.checkpoint import FILE
from pretrain.config import ResolvedConfig
from pretrain.train import Training, pretrain
from tests.alone import Ended, told_after
from tests.pretrain.small_runs import losses, small


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


def test_a_run_that_was_killed_after_its_last_checkpoint_points_to_it(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def point_but_to_the_last(link: Path, target: Path) -> None:
        if "_000000006" in target.name:
            raise Killed
        point(link, target)

    config = small(data=str(few_images))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "point", point_but_to_the_last)
        pretrain(config, tmp_path)
    assert (tmp_path / FILE).resolve().name == "checkpoint_0001_000000003.pth.tar"
    assert pretrain(config, tmp_path)["steps"] == 6
    assert (tmp_path / FILE).resolve().name == "checkpoint_0001_000000006.pth.tar"


def test_no_readable_checkpoint_is_an_error(tmp_path: Path, few_images: Path) -> None:
    (tmp_path / "checkpoint_0001_000000002.pth.tar").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read; --fresh"):
        pretrain(small(data=str(few_images)), tmp_path)


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


def test_a_run_from_before_identities_told_of_norms_goes_on_as_it_was_or_not_at_all(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = small(data=str(few_images), checkpoint_min=1e-9)
    was = replace(now, adapt_mlp_norms=False)
    assert now.adapt_mlp_norms  # by the nearest recipe, that of 100 epochs
    pretrain(was, tmp_path / "whole")
    killed_after(was, tmp_path / "cut", 2, monkeypatch)
    identity = was.identity()
    del identity["adapt_mlp_norms"]
    runs.claim(tmp_path / "cut", identity)
    before = sorted((tmp_path / "cut").iterdir())
    refusal = r"holds another run: adapt_mlp_norms \(False there, True now\); use another --name"
    with pytest.raises(UserError, match=refusal):
        pretrain(now, tmp_path / "cut")
    assert sorted((tmp_path / "cut").iterdir()) == before
    pretrain(was, tmp_path / "cut")
    assert_equal(tmp_path / "cut", tmp_path / "whole")
    assert json.loads((tmp_path / "cut" / runs.IDENTITY).read_text())["adapt_mlp_norms"] is False
