"""The pre-training loop, top to bottom."""

import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from common import distributed, runs
from common.distributed import World
from common.errors import UserError
from common.files import write_json
from common.logs import keep_bar_below, setup_logging
from common.provenance import device_name, git_commit, versions
from pretrain import checkpoint
from pretrain.batchnorm import replace_sync_batchnorm
from pretrain.config import METHOD, ResolvedConfig
from pretrain.data import DEMO, StepBatches, TwoViewDataset, check_enough, locate
from pretrain.lewel import LEWEL
from pretrain.optimizer import LARS, parameter_groups
from pretrain.precision import autocast_dtype, make_scaler, optimizer_step
from pretrain.report import Reporter
from pretrain.schedules import learning_rate

log = logging.getLogger("pretrain")


def pretrain(config: ResolvedConfig, folder: Path) -> dict[str, Any]:
    """Train to the last epoch, from the folder's checkpoint if it has one.

    Every process of the job calls this with the same arguments.

    Args:
        config: a resolved configuration.
        folder: the run folder: log, checkpoint, metrics.

    Returns:
        The final metrics, as written to ``metrics.json``.

    Raises:
        UserError: if the folder holds another run, the batch does not split over the processes,
            or the data are too few.
    """
    runs.check_same(folder, config.identity())
    world = distributed.start(config.device)
    folder.mkdir(parents=True, exist_ok=True)
    setup_logging(folder, world.rank)
    if world.is_main:
        runs.claim(folder, config.identity())
        write_json(folder / "config.json", dataclasses.asdict(config))
    try:
        return Training(config, folder, world).run()
    finally:
        distributed.stop()


class Training:
    """A run's model, data and progress."""

    def __init__(self, config: ResolvedConfig, folder: Path, world: World) -> None:
        self.config, self.folder, self.world = config, folder, world
        torch.manual_seed(config.seed)
        self.model = build_model(config).to(world.device)
        if world.size > 1 and world.device.type == "cpu":
            replace_sync_batchnorm(self.model)
        self.optimizer = LARS(parameter_groups(self.model, config.weight_decay), lr=config.lr)
        self.dtype = autocast_dtype(config.amp, world.device)
        self.scaler = make_scaler(self.dtype)
        self.progress = checkpoint.resume(folder, self.model, self.optimizer, self.scaler)
        distributed.check_same_step(self.progress.step, world)
        self.commit = git_commit()  # of the code that runs, whatever is checked out later
        self.forward: nn.Module = self.model
        if world.size > 1:
            # An EMAN target follows the online network's buffers: rank 0's must be everybody's.
            self.forward = DistributedDataParallel(
                self.model,
                broadcast_buffers=True,
                device_ids=[world.device.index] if world.device.type == "cuda" else None,
            )
        self.loader, self.batches = _loader(config, world, self.progress.step)

    def run(self) -> dict[str, Any]:
        """Train to the last step; the final metrics."""
        first = self.progress.step
        if self.world.is_main:
            _announce(self.config, self.world, self.batches, first)
        reporter = Reporter(self.folder, first, self.world)
        started = time.monotonic() - self.progress.seconds
        epoch_loss = torch.zeros((), device=self.world.device)
        unreadable = torch.zeros((), device=self.world.device)
        bar = tqdm(
            self.loader,
            initial=first,
            total=self.batches.total_steps,
            unit="step",
            disable=not (self.world.is_main and sys.stderr.isatty()),
        )
        with keep_bar_below():
            for step, (view1, view2, skipped) in enumerate(bar, start=first):
                loss, row = self.step(step, view1, view2)
                epoch_loss += loss
                unreadable += _warn_of_skipped(skipped)
                epoch, position = divmod(step + 1, self.batches.steps_per_epoch)
                if (step + 1) % self.config.log_every == 0 or position == 0:
                    row |= self._losses(loss)
                    reporter.write(step, row, self.config.batch_size)
                    _stop_unless_finite(row, self.folder)
                if position == 0:
                    self.progress.step = step + 1
                    self.progress.loss = (
                        self._sum(epoch_loss) / self.world.size / (self.batches.steps_per_epoch)
                    )
                    self.progress.unreadable += round(self._sum(unreadable))
                    self.progress.seconds = time.monotonic() - started
                    epoch_loss.zero_()
                    unreadable.zero_()
                    reporter.epoch(epoch, self.config.epochs, step, self.progress.loss)
                    self._save(epoch)
        reporter.close()
        return self._finish()

    def step(
        self, step: int, view1: torch.Tensor, view2: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """One optimizer step on this process's share of the batch; loss and schedule values."""
        config, device = self.config, self.world.device
        view1, view2 = (v.to(device, non_blocking=True) for v in (view1, view2))
        lr = learning_rate(
            step, self.batches.steps_per_epoch, config.epochs, config.warmup_epochs, config.lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None):
            loss = self.forward(view1, view2)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        row = {"step": step, "epoch": step // self.batches.steps_per_epoch, "lr": lr}
        if optimizer_step(self.scaler, self.optimizer):
            row["momentum"] = self.model.update_target(step, self.batches.total_steps)
        return loss.detach(), row

    def _losses(self, loss: torch.Tensor) -> dict[str, float]:
        """Loss and its branches, averaged over the processes."""
        named = {"loss": loss, **self.model.branch_losses}
        return {name: self._sum(value) / self.world.size for name, value in named.items()}

    def _sum(self, value: torch.Tensor) -> float:
        """The sum over the processes of a scalar that each has its own of."""
        total = value.double() if self.world.device.type == "cpu" else value.float().clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        return total.item()

    def _save(self, epoch: int) -> None:
        if self.world.is_main:
            checkpoint.save(
                self.folder,
                self.config,
                self.model,
                self.optimizer,
                self.scaler,
                self.progress,
                epoch,
            )

    def _finish(self) -> dict[str, Any]:
        metrics = {
            "kind": "pretrain",
            "method": METHOD,
            "loss": self.progress.loss,
            "steps": self.batches.total_steps,
            "wall_time_s": round(self.progress.seconds, 1),
            "unreadable_images": self.progress.unreadable,
            "checkpoint": checkpoint.FILE,
            "demo": self.config.data == DEMO,
            **dataclasses.asdict(self.config),
            "git_commit": self.commit,
            "versions": versions(),
            "device": device_name(self.world.device, self.world.size),
        }
        if self.world.is_main:
            runs.finish(self.folder, metrics)
            log.info("finished: %s", self.folder / checkpoint.FILE)
        return metrics


def build_model(config: ResolvedConfig) -> LEWEL:
    """The model of a resolved configuration, on the CPU."""
    return LEWEL(
        config.backbone,
        config.norm,
        config.proj_dim,
        config.hidden_dim,
        config.neck_layers,
        config.heads,
        config.scale,
        config.loss_weight,
        config.base_momentum,
    )


def _loader(
    config: ResolvedConfig, world: World, start: int
) -> tuple[DataLoader[Any], StepBatches]:
    distributed.check_divides("--batch-size", config.batch_size, world.size)
    dataset = TwoViewDataset(locate(config.data), config.image_size, config.seed)
    check_enough(len(dataset), config.data, config.batch_size)
    batches = StepBatches(
        len(dataset), config.batch_size, config.epochs, config.seed, world.rank, world.size, start
    )
    workers = min(config.workers, distributed.cpus_per_process(world))
    loader = DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, pin_memory=world.device.type == "cuda"
    )
    return loader, batches


def _announce(config: ResolvedConfig, world: World, batches: StepBatches, first: int) -> None:
    log.info(
        "%s %s on %s: %d images, %d epochs of %d steps of %d images, peak lr %g",
        METHOD,
        config.norm,
        device_name(world.device, world.size),
        batches.images,
        config.epochs,
        batches.steps_per_epoch,
        batches.batch_size,
        config.lr,
    )
    if first:
        log.info("resumed after step %d", first - 1)


def _warn_of_skipped(samples: list[str]) -> int:
    """Warn by name of every unreadable image that a batch came across; how many there were."""
    names = [name for sample in samples for name in sample.splitlines()]
    for name in names:
        log.warning("skipped an unreadable image: %s", name)
    return len(names)


def _stop_unless_finite(row: dict[str, Any], folder: Path) -> None:
    if not torch.isfinite(torch.tensor(row["loss"])):
        raise UserError(
            f"the loss is {row['loss']} at step {row['step']} with lr {row['lr']:g}; "
            f"the last checkpoint in {folder} is from before; try a lower --lr."
        )
