"""The loop of everything that trains here: pre-training, and the classifiers on its features.

The loop owns resume, steps, the check of losses, preemption, checkpoints, validation and reports.
A :class:`Task` defines a step, a validation, and its own part of a checkpoint and of the metrics.
"""

import dataclasses
import logging
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import distributed, runs
from common.distributed import World
from common.errors import UserError, option
from common.files import point
from common.metrics import drop
from common.provenance import device_name, git_commit, precision, ran_on
from common.run_checkpoints import RunCheckpoints
from common.running import Run, running
from pretrain.augment import RandomViews
from pretrain.collectives import of_all_processes
from pretrain.config import ResolvedConfig
from pretrain.data.images import Batch, ImageSource, warn_of_skipped
from pretrain.data.order import StepBatches
from pretrain.evaluation.config import ClassifierConfig
from pretrain.precision import make_scaler, optimizer_step
from pretrain.report import Reporter

log = logging.getLogger("pretrain")


@dataclass
class Progress:
    """The progress of a run; the same in all processes."""

    step: int = 0  # steps taken
    loss: float = math.nan  # mean of the last whole epoch
    seconds: float = 0.0  # of all attempts
    unreadable: int = 0  # images, up to the last whole epoch
    validated: int = -1  # whole epochs before the last validation; -1 before there is one


class Task(ABC):
    """The training of one model on one set of images; every process has one."""

    suffix: ClassVar[str]  # of the checkpoints' names
    accuracy: ClassVar[str]  # of a validation, in its row
    epoch_rows: ClassVar[bool]  # whether an epoch's mean loss has a row of its own

    config: ResolvedConfig | ClassifierConfig
    title: str  # of the training, in the log
    images: str  # in the log
    source: ImageSource  # of the training
    views: RandomViews
    model: nn.Module  # that is trained and kept in checkpoints; on the process's device
    optimizer: torch.optim.Optimizer  # a group's ``rate`` names its learning rate, else ``lr``
    progress: Progress
    checkpoint_min: float = math.inf  # minutes between checkpoints inside an epoch

    def __init__(self, world: World, dtype: torch.dtype | None) -> None:
        self.world, self.dtype = world, dtype
        self.scaler = make_scaler(dtype)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training images."""
        return len(self.source) // self.config.batch_size

    def data_parallel(
        self, loss: Callable[..., Tensor], module: nn.Module, *inputs: Tensor
    ) -> nn.Module:
        """The module in DistributedDataParallel; alone, itself.

        ``loss`` is a scalar of the wrapped module and ``inputs``, which may have any values. No
        buffers are sent: queues and synchronised statistics are equal by construction, and
        what reads other statistics takes rank 0's.
        """
        if self.world.size == 1:
            return module
        device = self.world.device
        parallel = DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
        distributed.settle_buckets(parallel, lambda *views: loss(parallel, *views), *inputs)
        return parallel

    @abstractmethod
    def rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step, by the names of their options."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of this process's share of a batch."""

    def stepped(self, step: int) -> dict[str, float]:
        """Columns of the step's row; called after the optimizer's step."""
        return {}

    def measures(self) -> dict[str, Tensor]:
        """Scalars of the last step, of which the row has the mean over the processes."""
        return {}

    @abstractmethod
    def validates(self, epochs: int) -> bool:
        """True if there is a validation after so many whole epochs; 0 is before the first."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Columns of a validation's row; every process calls this."""

    def remark(self, row: dict[str, Any]) -> str:
        """A warning that a row of metrics.jsonl gives reason to; "" for none."""
        return ""

    @abstractmethod
    def contents(self) -> dict[str, Any]:
        """The task's part of a checkpoint: ``state_dict``, and a description."""

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Columns of the final metrics."""


def train(
    make: Callable[[Run], Task], config: ResolvedConfig | ClassifierConfig, folder: Path
) -> dict[str, Any]:
    """Train to the last epoch, from the folder's newest checkpoint if it has one.

    Every process of the job calls this. Returns the metrics, as written to ``metrics.json``.

    Raises:
        UserError: if the folder holds another run, the batch does not split over the processes,
            images or weights are not what they should be, or the loss is not finite.
    """
    whole = dataclasses.asdict(config)
    with running(folder, config.identity(), config.device, whole) as run:
        return Engine(make(run), run).run()


class Engine:
    """A task in its run folder."""

    def __init__(self, task: Task, run: Run) -> None:
        self.task, self.job, self.folder, self.world = task, run, run.folder, run.world
        self.commit = git_commit()  # of the code that runs, whatever is checked out later
        config, world = task.config, run.world
        runs.check_divides("--batch-size", config.batch_size, world.size)
        self.checkpoints = RunCheckpoints(run.attempt, "checkpoint", task.suffix)
        self.link = self.folder / f"checkpoint{task.suffix}"
        self.sums = Sums(world)
        self._resume()
        self.batches = StepBatches(
            len(task.source),
            config.batch_size,
            config.epochs,
            config.seed,
            world.rank,
            world.size,
            task.progress.step,
        )
        self._saved_at = time.monotonic()
        self._started = time.monotonic() - task.progress.seconds

    def _resume(self) -> None:
        found = self.checkpoints.load(self.world)
        if found is not None:
            self._restore(found[1])
        if self.world.is_main:
            self.checkpoints.tidy(found[0] if found else None)
            if found is not None:  # the job may have been killed before it did
                point(self.link, found[0])

    def _restore(self, state: dict[str, Any]) -> None:
        task = self.task
        tensors = {k.removeprefix("module."): v for k, v in state["state_dict"].items()}
        task.model.load_state_dict(tensors)
        task.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and task.scaler.is_enabled():  # not from or to a GPU without bf16
            task.scaler.load_state_dict(state["scaler"])
        saved = dict(state["progress"])
        if "validated" not in saved:  # an older pre-training
            saved["validated"] = saved.pop("evaluated")
        task.progress = type(task.progress)(**saved)
        if "losses" in state:  # an older classifier: the epoch's losses, the same in all processes
            ranks = [{"loss": state["losses"].sum().item(), "skipped": 0}] * self.world.size
        else:
            ranks = state["ranks"]
        if not self.sums.restore(ranks):
            torch.manual_seed(task.config.seed + self.world.rank + task.progress.step)
            log.warning(
                "%d processes go on where %d were: the run will not equal, to the bit, one "
                "that was not interrupted",
                self.world.size,
                len(ranks),
            )

    def run(self) -> dict[str, Any]:
        """Train to the last step; the final metrics."""
        task, config, preemption = self.task, self.task.config, self.job.preemption
        first, per_epoch = task.progress.step, self.batches.steps_per_epoch
        self._announce()
        # Before the first step, or after a resume where it was cut short.
        due = first % per_epoch == 0 and task.progress.validated < first // per_epoch
        if due and self.world.is_main:
            cut = first - 1
            rows = self.folder / "metrics.jsonl"
            drop(rows, lambda row: task.accuracy in row and row["step"] == cut)
        self.reporter = Reporter(
            self.folder, first, self.batches.total_steps, config.batch_size, self.world
        )
        if due:
            self._validate(first - 1)
        workers = min(config.workers, distributed.cpus_per_process(self.world))
        pin = self.world.device.type == "cuda"
        loader = task.source.training_batches(task.views, self.batches, workers, pin)
        bar = tqdm(
            self.reporter.timed(loader),
            initial=first,
            total=self.batches.total_steps,
            unit="step",
            disable=not (self.world.is_main and sys.stderr.isatty()),
        )
        with logging_redirect_tqdm(), preemption.deferred():
            for step, batch in enumerate(bar, start=first):
                loss, row = self.step(step, batch)
                self.sums.add(step, loss, warn_of_skipped(batch.skipped))
                ends = (step + 1) % per_epoch == 0
                due = preemption.should_save()
                if (step + 1) % config.log_every == 0 or ends:
                    due |= self._log(row, loss)
                if ends:
                    self._end_epoch(step)
                if ends or due:
                    self._save(step + 1)
                    preemption.exit_if_preempted()
                if ends:
                    self._validate(step)
        self.reporter.close()
        return self._finish()

    def step(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Take a step on this process's share of a batch; its loss and the beginning of its row."""
        task = self.task
        rates = task.rates(step)
        for group in task.optimizer.param_groups:
            group["lr"] = rates[group.get("rate", "lr")]
        loss = task.loss(batch)
        task.optimizer.zero_grad()
        task.scaler.scale(loss).backward()
        row = {"step": step, "epoch": step // task.steps_per_epoch, **rates}
        if optimizer_step(task.scaler, task.optimizer):
            row |= task.stepped(step)
        return loss.detach(), row

    def _log(self, row: dict[str, Any], loss: Tensor) -> bool:
        """Write a line of mean losses; True if a checkpoint is due by the clock."""
        named = {"loss": loss, **self.task.measures()}
        waited = time.monotonic() - self._saved_at
        due = self.world.is_main and waited >= 60 * self.task.checkpoint_min
        flags = [self.sums.first_bad >= 0, torch.tensor(due, device=self.world.device)]
        sums = torch.stack([value.double() for value in (*named.values(), *flags)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        *means, bad, due_somewhere = sums.tolist()
        if bad:
            self._stop()
        means = [value / self.world.size for value in means]
        row |= dict(zip(named, means, strict=True))
        self.reporter.write(row)
        self._remark(row)
        return bool(due_somewhere)

    def _remark(self, row: dict[str, Any]) -> None:
        if self.world.is_main and (sentence := self.task.remark(row)):
            log.warning(sentence)

    def _stop(self) -> NoReturn:
        bad = min(step for step in of_all_processes(self.sums.first_bad.item()) if step >= 0)
        self._refuse(f"the loss was not finite at step {bad}", bad)

    def _refuse(self, what: str, step: int) -> NoReturn:
        rates = self.task.rates(step)
        raise UserError(
            f"{what}, {', '.join(f'{name} {rate:g}' for name, rate in rates.items())}; the last "
            f"good checkpoint is {self.checkpoints.newest_name} in {self.folder}; try a lower "
            f"{' or '.join(option(name) for name in rates)}."
        )

    def _end_epoch(self, step: int) -> None:
        task, per_epoch = self.task, self.batches.steps_per_epoch
        loss, skipped = self.sums.close_epoch()
        task.progress.loss = loss / self.world.size / per_epoch
        task.progress.unreadable += skipped
        if task.epoch_rows:
            row = {"step": step, "epoch": step // per_epoch, "epoch_loss": task.progress.loss}
            self.reporter.evaluated(row)

    def _validate(self, step: int) -> None:
        """Validate after ``step``, the last of an epoch, which is saved; -1 is before the first."""
        epochs = (step + 1) // self.batches.steps_per_epoch
        if self.task.validates(epochs):
            with self.job.preemption.immediate():
                found = self.task.validate()
            self.task.progress.validated = epochs
            row = {"step": step, "epoch": epochs - 1, **found}
            self.reporter.evaluated(row)
            self._remark(row)
            if epochs:
                self._save(step + 1)
        self.reporter.pause()

    def _save(self, steps: int) -> None:
        task = self.task
        task.progress.step = steps
        task.progress.seconds = time.monotonic() - self._started
        ranks = of_all_processes(self.sums.state())
        if not all(math.isfinite(rank["loss"]) for rank in ranks):
            self._stop()
        if not all(parameter.isfinite().all() for parameter in task.model.parameters()):
            self._refuse(f"the weights were not finite after step {steps - 1}", steps - 1)
        if self.world.is_main:
            state = task.contents() | {
                "optimizer": task.optimizer.state_dict(),
                "scaler": task.scaler.state_dict(),
                "progress": dataclasses.asdict(task.progress),
                "ranks": ranks,
            }
            point(self.link, self.checkpoints.save(steps, state))
        self._saved_at = time.monotonic()

    def _announce(self) -> None:
        task, device = self.task, self.world.device
        log.info(
            "%s on %s (%s): %s, %d epochs of %d steps of %d images",
            task.title,
            device_name(device, self.world.size),
            precision(device, task.dtype),
            task.images,
            task.config.epochs,
            self.batches.steps_per_epoch,
            task.config.batch_size,
        )
        if task.progress.step:
            log.info("resumed after step %d", task.progress.step - 1)

    def _finish(self) -> dict[str, Any]:
        metrics = self.task.metrics() | {
            "restarts": self.job.attempt.restarts,
            "git_commit": self.commit,
            **ran_on(self.world.device, self.world.size, self.task.dtype),
        }
        if self.world.is_main:
            self.job.finish(metrics)
            log.info("finished: %s", self.link)
        return metrics


class Sums:
    """One process's sums over an epoch, which stay on its device, and its random streams."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loss = torch.zeros((), dtype=torch.float64, device=world.device)
        self.first_bad = torch.full((), -1, device=world.device)
        self.skipped = 0

    def add(self, step: int, loss: Tensor, skipped: int) -> None:
        """Count a step; does not wait for the device."""
        self.loss += loss
        bad = ~torch.isfinite(loss) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        self.skipped += skipped

    def close_epoch(self) -> tuple[float, int]:
        """Sum of losses and of skipped images over all processes; both begin again at zero."""
        sums = torch.stack([self.loss, torch.full_like(self.loss, self.skipped)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.loss.zero_()
        self.skipped = 0
        loss, skipped = sums.tolist()
        return loss, round(skipped)

    def state(self) -> dict[str, Any]:
        """Sums and random streams of this process."""
        state = {"loss": self.loss.item(), "skipped": self.skipped, "rng": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.world.device)
        return state

    def restore(self, ranks: list[dict[str, Any]]) -> bool:
        """Take this process's state from a checkpoint's; False if there were fewer or more.

        Then each process has the mean loss of them all, the main one counts the skipped images,
        and the random streams are those of no process.
        """
        same = len(ranks) == self.world.size
        if same:
            mine = ranks[self.world.rank]
        else:
            mean = sum(rank["loss"] for rank in ranks) / len(ranks)
            skipped = sum(rank["skipped"] for rank in ranks) if self.world.is_main else 0
            mine = {"loss": mean, "skipped": skipped}
        self.loss.fill_(mine["loss"])
        self.skipped = mine["skipped"]
        if "rng" in mine:
            torch.set_rng_state(mine["rng"])
        if "cuda_rng" in mine and self.world.device.type == "cuda":
            torch.cuda.set_rng_state(mine["cuda_rng"], self.world.device)
        return same
