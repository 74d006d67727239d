"""The loop: interrupted runs equal those that were not, to the bit; bad losses and images."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from common import checkpoints, runs
from common.distributed import World
from common.errors import UserError
from common.files import point
from common.metrics import read_lines
from pretrain import engine
from pretrain.engine import Engine, Sums
from pretrain.evaluation import classifier
from pretrain.evaluation.classifier import classify
from pretrain.train import pretrain
from tests.alone import Ended, told_after
from tests.pretrain.evaluation.sources import small_network
from tests.pretrain.small_runs import linear, losses, semi, small

VOLATILE = set("git_commit images_per_s data_wait memory_gib eta_s wall_time_s restarts".split())


class Killed(Exception):
    """Stands for a kill right after a checkpoint."""


class Job:
    """A training by name, which fresh folders may have."""

    def __init__(self, name: str, data: Path) -> None:
        self.run: Callable[[Any, Path], dict[str, Any]] = pretrain
        self.suffix = ".pth.tar"
        # The clock asks for a checkpoint at every step.
        fields: dict[str, Any] = {"data": str(data), "checkpoint_min": 1e-9}
        if name == "lewel_b":
            self.config: Any = small(**fields)
        elif name == "monitored":
            self.config = small(data=str(data), epochs=1, knn_every=1, knn_images=12)
        elif name == "lewel_m":  # draws random numbers while it trains
            self.config = small(**fields, method="lewel_m", queue_size=20)
        else:
            self.run, self.suffix = classify, ".pth"
            share = replace(semi(data, batch_size=8), percent=100)
            self.config = linear(data) if name == "linear" else share

    def killed_after(self, folder: Path, step: int) -> None:
        """Run until the checkpoint of ``step`` is written, and leave what a kill leaves behind."""
        save = Engine._save

        def save_and_die(loop: Engine, steps: int) -> None:
            save(loop, steps)
            if steps == step:
                raise Killed

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Engine, "_save", save_and_die)
            self.run(self.config, folder)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(f'{{"step": {step}, "loss": 99}}\n{{"step": {step + 1}, "lo')

    def state(self, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors that were trained."""
        return checkpoints.load(folder / f"checkpoint{self.suffix}")["state_dict"]


@pytest.fixture(scope="module")
def small_backbone() -> Any:
    """Evaluations of a small network in the place of a ResNet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "load_backbone", lambda _: small_network())
        patch.setattr(classifier, "feature_dim", lambda _: 8)
        yield


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, few_images: Path, small_backbone: None
) -> Callable[[str], tuple[Job, Path]]:
    """The folder of a run that nobody interrupted, by the job's name."""

    @cache
    def finished(name: str) -> tuple[Job, Path]:
        job, folder = Job(name, few_images), tmp_path_factory.mktemp(name)
        job.run(job.config, folder)
        return job, folder

    return finished


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All that a run reports but its speed."""
    lines = read_lines(folder / "metrics.jsonl"), [json.loads((folder / runs.FINAL).read_text())]
    rows, last = ([{k: v for k, v in r.items() if k not in VOLATILE} for r in ls] for ls in lines)
    return rows, last[0]


def assert_equal(job: Job, one: Path, other: Path) -> None:
    """The same reports and the same tensors, to the bit."""
    assert outcome(one) == outcome(other)
    states = job.state(one), job.state(other)
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


CUT = [("lewel_b", 2), ("lewel_b", 3), ("lewel_m", 2), ("linear", 3), ("semi", 3)]


@pytest.mark.parametrize(("name", "step"), CUT)  # inside the first epoch, and at its end
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, whole: Any, name: str, step: int
) -> None:
    job, expected = whole(name)
    job.killed_after(tmp_path, step)
    job.run(job.config, tmp_path)
    assert_equal(job, tmp_path, expected)
    kept = sorted(path.name for path in tmp_path.glob("checkpoint_*"))
    before = 5 if job.run is pretrain else 3  # the step before the last, or the epoch
    assert kept == [f"checkpoint_0002_00000000{n}{job.suffix}" for n in (before, 6)]
    assert (tmp_path / f"checkpoint{job.suffix}").resolve().name == kept[1]


@pytest.mark.parametrize("name", ["lewel_b", "linear", "semi"])
@pytest.mark.parametrize("step", [1, 2, 4])  # within an epoch, at the end of one, in the last
def test_a_run_that_slurm_ends_goes_on_from_that_step(
    tmp_path: Path, whole: Any, name: str, step: int
) -> None:
    job, expected = whole(name)
    if job.run is pretrain:
        job = Job(name, job.config.data)
        job.config = replace(job.config, checkpoint_min=60, log_every=3)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ended):
        told_after(step, patch)
        job.run(job.config, tmp_path)
    metrics = job.run(job.config, tmp_path)
    assert f"resumed after step {step}\n" in (tmp_path / "log.txt").read_text()
    assert metrics["restarts"] == 1
    state = job.state(expected)
    assert all(torch.equal(tensor, state[k]) for k, tensor in job.state(tmp_path).items())
    rows = outcome(expected)[0]
    assert all(row in rows for row in outcome(tmp_path)[0])
    assert metrics["loss"] == outcome(expected)[1]["loss"]


@pytest.mark.parametrize("name", ["lewel_b", "linear"])
def test_a_checkpoint_of_before_the_loops_were_one_goes_on(
    tmp_path: Path, whole: Any, name: str
) -> None:
    """Pre-trainings called ``validated`` otherwise; classifiers kept the losses of all steps."""
    job, expected = whole(name)
    job.killed_after(tmp_path, 3)
    newest = (tmp_path / f"checkpoint{job.suffix}").resolve()
    state = torch.load(newest)
    if name == "lewel_b":
        state["progress"]["evaluated"] = state["progress"].pop("validated")
    else:
        del state["ranks"]
        state["losses"], state["progress"]["validated"] = torch.zeros(0), 0
    torch.save(state, newest)
    job.run(job.config, tmp_path)
    assert_equal(job, tmp_path, expected)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path: Path, whole: Any) -> None:
    job, expected = whole("lewel_b")
    job.killed_after(tmp_path, 4)
    newest = (tmp_path / "checkpoint.pth.tar").resolve()
    newest.write_bytes(newest.read_bytes()[:1000])
    job.run(job.config, tmp_path)
    warning = (tmp_path / "log.txt").read_text()
    assert f"{newest} is not a readable PyTorch checkpoint (1000 bytes)" in warning
    assert "resumed after step 2" in warning
    assert_equal(job, tmp_path, expected)


def test_a_run_that_was_killed_after_its_last_checkpoint_points_to_it(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def point_but_to_the_last(link: Path, target: Path) -> None:
        if "_000000006" in target.name:
            raise Killed
        point(link, target)

    config = small(data=str(few_images))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(engine, "point", point_but_to_the_last)
        pretrain(config, tmp_path)
    link = tmp_path / "checkpoint.pth.tar"
    assert link.resolve().name == "checkpoint_0001_000000003.pth.tar"
    assert pretrain(config, tmp_path)["steps"] == 6
    assert link.resolve().name == "checkpoint_0001_000000006.pth.tar"


@pytest.mark.parametrize("written", [False, True])
def test_a_validation_that_was_cut_is_done_again(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Killed at the end of the epoch: before the validation, or before its checkpoint."""
    job, expected = whole("monitored")
    save, saved = Engine._save, []

    def kill(loop: Engine, *_: int) -> None:
        raise Killed

    def cut(loop: Engine, steps: int) -> None:
        save(loop, steps)
        saved.append(steps)
        patch.setattr(Engine, "_save" if written else "_validate", kill)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Engine, "_save", cut)
        job.run(job.config, tmp_path)
    metrics = job.run(job.config, tmp_path)
    rows = read_lines(tmp_path / "metrics.jsonl")
    found = [row["knn20_top1"] for row in rows if "knn20_top1" in row]
    assert saved == [3] and len(found) == 2 and metrics["best_knn"] == max(found)
    assert_equal(job, tmp_path, expected)


def test_a_run_cut_after_its_last_epoch_only_has_to_say_so(
    tmp_path: Path, few_images: Path, small_backbone: None
) -> None:
    config = linear(few_images, epochs=1)
    metrics = classify(config, tmp_path)
    (tmp_path / "metrics.json").unlink()
    assert classify(config, tmp_path)["top1"] == metrics["top1"]
    assert (tmp_path / "metrics.json").exists()


def test_a_run_from_before_identities_told_of_norms_goes_on_as_it_was_or_not_at_all(
    tmp_path: Path, few_images: Path
) -> None:
    now = small(data=str(few_images), epochs=1)
    was = replace(now, adapt_mlp_norms=False)
    assert now.adapt_mlp_norms  # by the nearest recipe, that of 100 epochs
    identity = was.identity()
    del identity["adapt_mlp_norms"]
    runs.claim(tmp_path, identity)
    refusal = r"holds another run: adapt_mlp_norms \(False there, True now\); use another --name"
    with pytest.raises(UserError, match=refusal):
        pretrain(now, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [runs.IDENTITY]
    pretrain(was, tmp_path)
    assert json.loads((tmp_path / runs.IDENTITY).read_text())["adapt_mlp_norms"] is False


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Engine.step

    def overflowing(loop: Engine, number: int, batch: Any) -> Any:
        loss, row = step(loop, number, batch)
        if number == 5:  # a gradient that is infinite where the loss is not
            next(loop.task.model.parameters()).data[0] = math.inf
        return loss, row

    monkeypatch.setattr(Engine, "step", overflowing)
    with pytest.raises(
        UserError, match=r"the weights were not finite after step 5, lr .*_0001_0+3"
    ):
        pretrain(small(data=str(few_images)), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_step(
    tmp_path: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Engine.step

    def poisoned(loop: Engine, number: int, batch: Any) -> Any:
        loss, row = step(loop, number, batch)
        return (loss * float("nan") if number in (4, 5) else loss), row

    monkeypatch.setattr(Engine, "step", poisoned)
    config = small(data=str(few_images), log_every=3)
    message = (
        r"not finite at step 4, lr 0\.\d+; the last good checkpoint is checkpoint_0001_000000003"
    )
    with pytest.raises(UserError, match=message):
        pretrain(config, tmp_path)
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("linear", r"lr 3e\+38; .* --lr\."), ("semi", "backbone_lr .* --backbone-lr or --head-lr")],
)
def test_a_classifiers_loss_that_is_not_finite_is_named(
    tmp_path: Path, few_images: Path, small_backbone: None, kind: str, rate: str
) -> None:
    config = linear(few_images, lr=3e38, log_every=10)
    if kind == "semi":
        config = replace(semi(few_images, head_lr=3e38), percent=100)
    with pytest.raises(UserError, match=rf"the loss was not finite at step [12], {rate}"):
        classify(config, tmp_path)
    assert not (tmp_path / "checkpoint.pth").exists()


def sums(size: int, rank: int = 0) -> Sums:
    return Sums(World(rank, size, rank, size, torch.device("cpu")))


def state(loss: float, skipped: int) -> dict[str, Any]:
    totals = sums(1)
    totals.add(0, torch.tensor(loss), skipped)
    return totals.state()


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_mean_stays_what_it_was_with_another_number_of_processes(size: int) -> None:
    """Four processes with a sum of 6 after 3 steps: the mean of a step is 2."""
    ranks = [state(6.0, skipped=1) for _ in range(4)]
    new = [sums(size, rank) for rank in range(size)]
    assert [totals.restore(ranks) for totals in new] == [size == 4] * size
    assert sum(totals.loss.item() for totals in new) / size / 3 == pytest.approx(2.0)
    assert sum(totals.skipped for totals in new) == 4
