"""The loop of linear and semi-supervised evaluation, top to bottom."""

import dataclasses
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import distributed, runs
from common.errors import UserError
from common.files import point
from common.metrics import drop
from common.provenance import device_name, git_commit, precision, ran_on
from common.running import Run, running
from pretrain.augment import RandomViews, crop_and_flip
from pretrain.data.images import Batch, warn_of_skipped
from pretrain.data.order import StepBatches
from pretrain.evaluation import cache, checkpoint
from pretrain.evaluation.accuracy import Accuracy
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.network import (
    Classifier,
    feature_dim,
    fingerprint,
    load_backbone,
    make_optimizer,
)
from pretrain.evaluation.outcome import final_metrics
from pretrain.evaluation.protocols import decay
from pretrain.evaluation.ranks import add_up
from pretrain.evaluation.splits import open_splits
from pretrain.evaluation.validation import Validation
from pretrain.precision import autocast_dtype, make_scaler, optimizer_step
from pretrain.report import Reporter

log = logging.getLogger("pretrain.evaluation")


def classify(config: ClassifierConfig, folder: Path) -> dict[str, Any]:
    """Train a classifier to the last epoch, from the folder's checkpoint if it has one.

    Every process of the job calls this with the same arguments.

    Args:
        config: a resolved configuration.
        folder: the run folder: log, checkpoint, metrics.

    Returns:
        The final metrics, as written to ``metrics.json``.

    Raises:
        UserError: if the folder holds another run, the batch does not split over the processes,
            images or weights are not what they should be, or the loss is not finite.
    """
    whole = dataclasses.asdict(config)
    with running(folder, config.identity(), config.device, whole) as run:
        return Evaluation(config, run).run()


class Evaluation:
    """A run's images, network and progress."""

    def __init__(self, config: ClassifierConfig, run: Run) -> None:
        self.config, self.folder, self.world = config, run.folder, run.world
        self.job, self.preemption = run, run.preemption
        self.checkpoints = checkpoint.series(run.attempt)
        world = self.world
        self.commit = git_commit()  # of the code that runs, whatever is checked out later
        runs.check_divides("--batch-size", config.batch_size, world.size)
        self.splits = open_splits(config)
        self.dtype = autocast_dtype(config.amp, world)
        torch.manual_seed(config.seed)
        self.model = Classifier(
            load_backbone(config.weights),
            feature_dim(config.weights.architecture),
            len(self.splits.training.classes),
            config.frozen,
            self.dtype,
        ).to(world.device)
        self.trained: nn.Module = self.model.head if config.frozen else self.model
        self.optimizer = make_optimizer(self.model, config)
        # A frozen backbone has no gradients, and the classifier's are float32.
        self.scaler = make_scaler(None if config.frozen else self.dtype)
        self.parallel: nn.Module = self.trained
        if world.size > 1:
            self.parallel = DistributedDataParallel(
                self.trained,
                device_ids=[world.device.index] if world.device.type == "cuda" else None,
            )
            size = config.image_size
            inputs = torch.zeros(2, 3, size, size, device=world.device)
            if config.frozen:
                inputs = torch.zeros(2, self.model.head.in_features, device=world.device)
            distributed.settle_buckets(self.parallel, lambda x: self.parallel(x).sum(), inputs)
        losses = self._resume()
        distributed.check_same_step(self.progress.step, world)
        self.batches = StepBatches(
            len(self.splits.training),
            config.batch_size,
            config.epochs,
            config.seed,
            world.rank,
            world.size,
            self.progress.step,
        )
        self.losses = torch.zeros(self.batches.steps_per_epoch, dtype=torch.float64)
        self.losses[: len(losses)] = losses
        self.losses = self.losses.to(world.device)

    def _resume(self) -> Tensor:
        """Go on from the newest checkpoint; the losses of its last epoch, as far as it was."""
        self.progress, losses = checkpoint.Progress(), torch.zeros(0)
        found = self.checkpoints.load(self.world)
        if found is not None:
            self.progress, losses = checkpoint.restore(
                found[1], self.trained, self.optimizer, self.scaler
            )
        if self.world.is_main:
            self.checkpoints.tidy(found[0] if found else None)
        return losses

    def run(self) -> dict[str, Any]:
        """Train to the last step; the final metrics.

        Raises:
            RuntimeError: if a frozen backbone did change.
        """
        self.started = time.monotonic() - self.progress.seconds
        frozen = fingerprint(self.model.backbone) if self.config.frozen else ""
        self._announce()
        self.validation = Validation(
            self.model, self.splits.validation, self.config, self.folder, self.world
        )
        self._train()
        if self.config.frozen and fingerprint(self.model.backbone) != frozen:
            raise RuntimeError("the frozen backbone changed while the classifier was trained")
        metrics = final_metrics(self.config, self.splits, self.progress) | {
            "restarts": self.job.attempt.restarts,
            "git_commit": self.commit,
            **ran_on(self.world.device, self.world.size, self.dtype),
        }
        if self.world.is_main:
            self.job.finish(metrics)
            (self.folder / cache.FILE).unlink(missing_ok=True)  # 400 MB that nothing reads again
            log.info("finished: top-1 %.2f %%, in %s", metrics["top1"], self.folder / runs.FINAL)
        return metrics

    def _train(self) -> None:
        config, batches, first = self.config, self.batches, self.progress.step
        pending = self.progress.validated < first // batches.steps_per_epoch  # it was cut short
        if pending and self.world.is_main:
            drop(self.folder / "metrics.jsonl", lambda r: "top1" in r and r["step"] == first - 1)
        reporter = Reporter(self.folder, first, batches.total_steps, config.batch_size, self.world)
        if pending:
            self._validate(reporter, first - 1)
        skipped = 0
        bar = tqdm(
            reporter.timed(self._loader()),
            initial=first,
            total=batches.total_steps,
            unit="step",
            disable=not (self.world.is_main and sys.stderr.isatty()),
        )
        with logging_redirect_tqdm(), self.preemption.deferred():
            for step, batch in enumerate(bar, start=first):
                epoch, position = divmod(step, batches.steps_per_epoch)
                self.losses[position] = self.step(epoch, batch)
                skipped += warn_of_skipped(batch.skipped)
                ends = position + 1 == batches.steps_per_epoch
                due = self.preemption.should_save()
                if (step + 1) % config.log_every == 0 or ends:
                    mean = self._finite_losses(step)
                    row = {"step": step, "epoch": epoch, **self.rates(epoch)}
                    reporter.write(row | {"loss": mean[-1].item()})
                if ends or due:
                    self._save(step, skipped)
                    skipped = 0
                    reporter.pause()
                    self.preemption.exit_if_preempted()
                if ends:
                    self._validate(reporter, step)
        reporter.close()

    def rates(self, epoch: int) -> dict[str, float]:
        """The learning rates of an epoch, as metrics name them."""
        factor = decay(epoch, self.config.epochs)
        return {name: rate * factor for name, rate in self.config.rates.items()}

    def step(self, epoch: int, batch: Batch) -> Tensor:
        """One optimizer step on this process's share of a batch; its loss."""
        device, rates = self.world.device, self.rates(epoch)
        images, labels = (
            tensor.to(device, non_blocking=True) for tensor in (batch.views[0], batch.labels)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["rate"]]
        inputs = self.model.features(images) if self.config.frozen else images
        loss = F.cross_entropy(self.parallel(inputs), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        optimizer_step(self.scaler, self.optimizer)
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Top-1 and top-5 in percent, which go into the progress as counts."""
        progress = self.progress
        counts = self.validation.count()
        progress.top1, progress.top5, progress.evaluated, progress.unreadable_val = counts
        return {
            "top1": Accuracy(progress.top1, progress.evaluated).percent,
            "top5": Accuracy(progress.top5, progress.evaluated).percent,
        }

    def _loader(self) -> Iterable[Batch]:
        views = RandomViews((crop_and_flip(self.config.image_size),), self.config.seed)
        workers = min(self.config.workers, distributed.cpus_per_process(self.world))
        on_gpu = self.world.device.type == "cuda"
        return self.splits.training.training_batches(views, self.batches, workers, on_gpu)

    def _finite_losses(self, step: int) -> Tensor:
        """The losses of the epoch's steps up to ``step``, averaged over the processes.

        Raises:
            UserError: in every process, naming the first step whose loss is not finite.
        """
        losses = self.losses[: step % self.batches.steps_per_epoch + 1]
        mean = (add_up(losses, self.world) / self.world.size).cpu()
        bad = (~mean.isfinite()).nonzero()
        if len(bad):
            first = step + 1 - len(mean) + int(bad[0])
            rates = self.rates(first // self.batches.steps_per_epoch)
            words = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
            raise UserError(
                f"the loss is {mean[bad[0]].item()} at step {first} with {words}; the last "
                f"checkpoint in {self.folder} is from before; try a lower "
                f"{'--lr' if self.config.frozen else '--backbone-lr or --head-lr'}."
            )
        return mean

    def _save(self, step: int, skipped: int) -> None:
        """Save after ``step``, of whose epoch this process met ``skipped`` unreadable images."""
        losses, progress = self._finite_losses(step), self.progress
        progress.step = step + 1
        progress.unreadable += int(add_up(torch.tensor(skipped), self.world))
        if len(losses) == self.batches.steps_per_epoch:
            progress.loss, losses = losses.mean().item(), losses[:0]
        self._write(losses)

    def _validate(self, reporter: Reporter, step: int) -> None:
        """Evaluate after the last step of an epoch, which is saved."""
        epoch = step // self.batches.steps_per_epoch
        with self.preemption.immediate():
            found = self.validate()
        reporter.evaluated(
            {"step": step, "epoch": epoch, "epoch_loss": self.progress.loss, **found}
        )
        self.progress.validated = epoch + 1
        self._write(torch.zeros(0))
        reporter.pause()

    def _write(self, losses: Tensor) -> None:
        """Write a checkpoint with the losses of an epoch that is not whole."""
        self.progress.seconds = time.monotonic() - self.started
        if self.world.is_main:
            state = checkpoint.contents(
                self.trained, self.optimizer, self.scaler, self.progress, losses
            )
            point(self.folder / checkpoint.FILE, self.checkpoints.save(self.progress.step, state))

    def _announce(self) -> None:
        config, batches = self.config, self.batches
        log.info(
            "%s evaluation of %s (%s) on %s (%s): %d training images (%s), %d validation images, "
            "%d epochs of %d steps of %d images",
            config.kind,
            config.weights.method,
            config.weights.architecture,
            device_name(self.world.device, self.world.size),
            precision(self.world.device, self.dtype),
            batches.images,
            self.splits.subset,
            len(self.splits.validation),
            config.epochs,
            batches.steps_per_epoch,
            config.batch_size,
        )
        if self.progress.step:
            log.info("resumed after step %d", self.progress.step - 1)
