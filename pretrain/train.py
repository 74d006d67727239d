"""The pre-training loop, top to bottom."""

import dataclasses
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import distributed, runs
from common.distributed import World
from common.errors import UserError
from common.files import point
from common.metrics import drop
from common.provenance import device_name, git_commit, precision, ran_on
from common.running import Run, running
from pretrain import checkpoint, methods
from pretrain.augment import RandomViews
from pretrain.config import ResolvedConfig
from pretrain.data.images import warn_of_skipped
from pretrain.data.locate import DEMO, check_enough, open_images, open_validation
from pretrain.data.order import StepBatches
from pretrain.evaluation.knn import KnnMonitor
from pretrain.learner import Learner
from pretrain.progress import Progress, Totals, of_all_processes
from pretrain.report import Reporter
from pretrain.schedules import learning_rate
from pretrain.selfsupervised import embedding_std

KNN = "knn20_top1"

log = logging.getLogger("pretrain")


def pretrain(config: ResolvedConfig, folder: Path) -> dict[str, Any]:
    """Train to the last epoch, from the folder's newest checkpoint if it has one.

    Every process of the job calls this with the same arguments.

    Args:
        config: a resolved configuration.
        folder: the run folder: log, checkpoints, metrics.

    Returns:
        The final metrics, as written to ``metrics.json``.

    Raises:
        UserError: if the folder holds another run, the batch does not split over the processes,
            the data are too few, or the loss is no longer finite.
    """
    whole = dataclasses.asdict(config)
    with running(folder, config.identity(), config.device, whole) as run:
        return Training(config, run).run()


class Training:
    """A run's model, data and progress."""

    def __init__(self, config: ResolvedConfig, run: Run) -> None:
        self.config, self.folder, self.world = config, run.folder, run.world
        self.job, self.preemption = run, run.preemption
        self.checkpoints = checkpoint.series(run.attempt)
        world = self.world
        self.commit = git_commit()  # of the code that runs, whatever is checked out later
        self.method = methods.find(config.method)
        torch.manual_seed(config.seed)
        self.learner = Learner(self.method, config, world)
        self.model = self.learner.model
        self.progress, self.totals = Progress(), Totals(world)
        self._resume()
        self.source = open_images(config.data)
        check_enough(len(self.source), config.data, config.batch_size)
        runs.check_divides("--batch-size", config.batch_size, world.size)
        self.batches = StepBatches(
            len(self.source),
            config.batch_size,
            config.epochs,
            config.seed,
            world.rank,
            world.size,
            self.progress.step,
        )
        self.knn = _knn_monitor(config, world, self.source)
        self._saved_at = time.monotonic()
        self._started = time.monotonic() - self.progress.seconds

    def _resume(self) -> None:
        found = self.checkpoints.load(self.world)
        if found is not None:
            _, state = found
            self.progress = checkpoint.restore(state, self.learner)
            if not self.totals.restore(state["ranks"]):
                torch.manual_seed(self.config.seed + self.world.rank + self.progress.step)
                log.warning(
                    "%d processes go on where %d were: the run will not equal, to the bit, one "
                    "that was not interrupted",
                    self.world.size,
                    len(state["ranks"]),
                )
        distributed.check_same_step(self.progress.step, self.world)
        if self.world.is_main:
            self.checkpoints.tidy(found[0] if found else None)
            if found is not None:  # the job may have been killed before it did
                point(self.folder / checkpoint.FILE, found[0])

    def run(self) -> dict[str, Any]:
        """Train to the last step; the final metrics."""
        first, batches, config = self.progress.step, self.batches, self.config
        self._announce()
        pending = first % batches.steps_per_epoch == 0  # an evaluation that was not finished
        pending &= self.progress.evaluated < first // batches.steps_per_epoch
        if pending and self.world.is_main:
            drop(self.folder / "metrics.jsonl", lambda r: KNN in r and r["step"] == first - 1)
        reporter = Reporter(self.folder, first, batches.total_steps, config.batch_size, self.world)
        if pending:
            self._evaluate(reporter, first - 1)
        workers = min(config.workers, distributed.cpus_per_process(self.world))
        views = RandomViews(self.method.views(config.image_size), config.seed)
        pin = self.world.device.type == "cuda"
        loader = reporter.timed(self.source.training_batches(views, batches, workers, pin))
        hidden = not (self.world.is_main and sys.stderr.isatty())
        bar = tqdm(loader, initial=first, total=batches.total_steps, unit="step", disable=hidden)
        with logging_redirect_tqdm(), self.preemption.deferred():
            for step, batch in enumerate(bar, start=first):
                loss, row = self.step(step, *batch.views)
                warn_of_skipped(batch.skipped)
                self.totals.add(step, loss, len(batch.skipped))
                ends = (step + 1) % batches.steps_per_epoch == 0
                due = self.preemption.should_save()
                if (step + 1) % config.log_every == 0 or ends:
                    due |= self._log(reporter, row, loss)
                if ends:
                    self._end_epoch(reporter, step)
                if ends or due:
                    self._save(step + 1)
                    self.preemption.exit_if_preempted()
                if ends:
                    self._evaluate(reporter, step)
        reporter.close()
        return self._finish()

    def step(self, step: int, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """One step on this process's share of the batch; its loss, and the schedules' values."""
        lr = self.rate(step)
        loss, taken = self.learner.step(view1, view2, lr)
        row = {"step": step, "epoch": step // self.batches.steps_per_epoch, "lr": lr}
        if taken:
            row["momentum"] = self.model.update_target(step, self.batches.total_steps)
        return loss, row

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        config, per_epoch = self.config, self.batches.steps_per_epoch
        return learning_rate(step, per_epoch, config.epochs, config.warmup_epochs, config.lr)

    def _log(self, reporter: Reporter, row: dict[str, Any], loss: Tensor) -> bool:
        """A line with the processes' mean losses; whether a checkpoint is due by the clock.

        Raises:
            UserError: if a loss since the line before was not finite.
        """
        named = {"loss": loss, **self.model.branch_losses}
        named["embedding_std"] = embedding_std(self.model.embedding)
        waited = time.monotonic() - self._saved_at
        due = self.world.is_main and waited >= 60 * self.config.checkpoint_min
        flags = [self.totals.first_bad >= 0, torch.tensor(due, device=self.world.device)]
        sums = torch.stack([value.double() for value in (*named.values(), *flags)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        *means, bad, due_somewhere = sums.tolist()
        if bad:
            self._stop()
        reporter.write(row | {k: v / self.world.size for k, v in zip(named, means, strict=True)})
        return bool(due_somewhere)

    def _stop(self) -> NoReturn:
        bad = min(step for step in of_all_processes(self.totals.first_bad.item()) if step >= 0)
        self._refuse(f"the loss was not finite at step {bad}", bad)

    def _refuse(self, what: str, step: int) -> NoReturn:
        raise UserError(
            f"{what}, lr {self.rate(step):g}; the last good checkpoint is "
            f"{self.checkpoints.newest_name} in {self.folder}; try a lower --lr."
        )

    def _end_epoch(self, reporter: Reporter, step: int) -> None:
        epoch = step // self.batches.steps_per_epoch
        loss, skipped = self.totals.close_epoch()
        self.progress.loss = loss / self.world.size / self.batches.steps_per_epoch
        self.progress.unreadable += skipped
        reporter.evaluated({"step": step, "epoch": epoch, "epoch_loss": self.progress.loss})

    def _evaluate(self, reporter: Reporter, step: int) -> None:
        """kNN accuracy after ``step``, which is saved, or before the first step if it is -1."""
        done = (step + 1) // self.batches.steps_per_epoch
        every = self.config.knn_every
        if self.knn and (done % every == 0 or done == self.config.epochs):
            with self.preemption.immediate():
                found = self.knn(self.model.backbone(), self.learner.dtype)
            self.progress.best_knn = max(self.progress.best_knn, found[KNN])
            self.progress.evaluated = done
            reporter.evaluated({"step": step, "epoch": done - 1, **found})
            if done:
                self._save(step + 1)
        reporter.pause()

    def _save(self, steps: int) -> None:
        self.progress.step = steps
        self.progress.seconds = time.monotonic() - self._started
        ranks = of_all_processes(self.totals.state())
        if not all(math.isfinite(rank["loss"]) for rank in ranks):
            self._stop()
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            self._refuse(f"the weights were not finite after step {steps - 1}", steps - 1)
        if self.world.is_main:
            state = checkpoint.contents(
                self.method,
                self.config,
                self.learner,
                self.progress,
                ranks,
                steps // self.batches.steps_per_epoch,
            )
            point(self.folder / checkpoint.FILE, self.checkpoints.save(steps, state))
        self._saved_at = time.monotonic()

    def _announce(self) -> None:
        if self.world.is_main:
            log.info(
                "%s %s on %s (%s): %d images, %d epochs of %d steps of %d images, peak lr %g",
                self.method.title,
                self.config.norm,
                device_name(self.world.device, self.world.size),
                precision(self.world.device, self.learner.dtype),
                len(self.source),
                self.config.epochs,
                self.batches.steps_per_epoch,
                self.config.batch_size,
                self.config.lr,
            )
            if self.method.note:
                log.info("%s: %s", self.method.title, self.method.note)
            if self.config.norm == "shufflebn" and self.world.size == 1:
                log.warning("one process has nobody to shuffle BatchNorm's batches with")
            if self.progress.step:
                log.info("resumed after step %d", self.progress.step - 1)

    def _finish(self) -> dict[str, Any]:
        metrics = {
            "kind": "pretrain",
            "title": self.method.title,
            "loss": self.progress.loss,
            "best_knn": self.progress.best_knn,
            "steps": self.batches.total_steps,
            "wall_time_s": round(self.progress.seconds, 1),
            "unreadable_images": self.progress.unreadable,
            "restarts": self.job.attempt.restarts,
            "checkpoint": checkpoint.FILE,
            "demo": self.config.data == DEMO,
            **dataclasses.asdict(self.config),
            "git_commit": self.commit,
            **ran_on(self.world.device, self.world.size, self.learner.dtype),
        }
        if self.world.is_main:
            self.job.finish(metrics)
            log.info("finished: %s", self.folder / checkpoint.FILE)
        return metrics


def _knn_monitor(config: ResolvedConfig, world: World, memory: Any) -> KnnMonitor | None:
    if not config.knn_every:
        return None
    queries = open_validation(config.data, config.val_data)
    if queries is None:
        if world.is_main:
            log.info("no kNN accuracy: %s has no val/ beside it; give --val-data", config.data)
        return None
    return KnnMonitor(
        memory, queries, config.image_size, config.workers, world, config.knn_images, config.seed
    )
