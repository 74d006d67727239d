"""Pre-training: a method's model on two views of every image, a task of the engine."""

import dataclasses
import inspect
import logging
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.distributed import World
from pretrain import engine, methods
from pretrain.augment import RandomViews
from pretrain.batchnorm import replace_sync_batchnorm
from pretrain.config import CHECKPOINT, ResolvedConfig
from pretrain.data.images import Batch
from pretrain.data.locate import DEMO, check_enough, open_images, open_validation
from pretrain.evaluation.knn import KnnMonitor
from pretrain.precision import autocast_dtype
from pretrain.schedules import learning_rate
from pretrain.selfsupervised import SelfSupervised, embedding_std
from pretrain.signs import Signs

log = logging.getLogger("pretrain")


def pretrain(config: ResolvedConfig, folder: Path) -> dict[str, Any]:
    """Pre-train to the last epoch; see :func:`pretrain.engine.train`."""
    return engine.train(lambda run: Pretraining(config, run.world), config, folder)


def build(config: ResolvedConfig) -> SelfSupervised:
    """The model of a configuration's method, on the CPU."""
    model = pkgutil.resolve_name(methods.find(config.method).model)
    return model(**{name: getattr(config, name) for name in inspect.signature(model).parameters})


@dataclass
class Progress(engine.Progress):
    """The engine's, and the best kNN accuracy so far in percent."""

    best_knn: float = 0.0


class Pretraining(engine.Task):
    """A method's model, its optimizer, and the kNN monitor of its backbone."""

    suffix = CHECKPOINT.removeprefix("checkpoint")
    accuracy = "knn20_top1"
    epoch_rows = True
    config: ResolvedConfig
    model: SelfSupervised
    progress: Progress

    def __init__(self, config: ResolvedConfig, world: World) -> None:
        super().__init__(world, autocast_dtype(config.amp, world))
        self.config, self.method = config, methods.find(config.method)
        self.progress, self.checkpoint_min = Progress(), config.checkpoint_min
        torch.manual_seed(config.seed)
        self.model = build(config).to(world.device)
        if world.size > 1 and world.device.type == "cpu":
            replace_sync_batchnorm(self.model)
        self.optimizer = pkgutil.resolve_name(self.method.optimizer)(self.model, config)
        size = config.image_size
        views = torch.randn(2, 2, 3, size, size, generator=torch.Generator()).to(world.device)
        self.parallel = self.data_parallel(self._loss, self.model, *views)
        sigma = config.blur_sigma / 20, config.blur_sigma
        self.views = RandomViews(pkgutil.resolve_name(self.method.views)(size, sigma), config.seed)
        self.source = open_images(config.data)
        check_enough(len(self.source), config.data, config.batch_size)
        self.knn = self._monitor() if config.knn_every else None
        self.signs = Signs(config.proj_dim, config.epochs * self.steps_per_epoch)
        self.title = f"{self.method.title} {config.norm} at a peak lr of {config.lr:g}"
        self.images = f"{len(self.source)} images"
        if world.is_main and self.method.note:
            log.info("%s: %s", self.method.title, self.method.note)
        if world.is_main and config.norm == "shufflebn" and world.size == 1:
            log.warning("one process has nobody to shuffle BatchNorm's batches with")

    def _monitor(self) -> KnnMonitor | None:
        config = self.config
        queries = open_validation(config.data, config.val_data)
        if queries is None:
            if self.world.is_main:
                log.info("no kNN accuracy: %s has no val/ beside it; give --val-data", config.data)
            return None
        return KnnMonitor(
            self.source,
            queries,
            config.image_size,
            config.workers,
            self.world,
            config.knn_images,
            config.seed,
        )

    def rates(self, step: int) -> dict[str, float]:
        config = self.config
        return {
            "lr": learning_rate(
                step, self.steps_per_epoch, config.epochs, config.warmup_epochs, config.lr
            )
        }

    def loss(self, batch: Batch) -> Tensor:
        device = self.world.device
        return self._loss(self.parallel, *(v.to(device, non_blocking=True) for v in batch.views))

    def _loss(self, network: nn.Module, view1: Tensor, view2: Tensor) -> Tensor:
        dtype = self.dtype
        with torch.autocast(self.world.device.type, dtype=dtype, enabled=dtype is not None):
            return network(view1, view2)

    def stepped(self, step: int) -> dict[str, float]:
        total = self.config.epochs * self.steps_per_epoch
        return {"momentum": self.model.update_target(step, total)}

    def measures(self) -> dict[str, Tensor]:
        """The losses of the method's branches, and the spread of its embeddings."""
        return {**self.model.branch_losses, "embedding_std": embedding_std(self.model.embedding)}

    def validates(self, epochs: int) -> bool:
        """Before the first epoch, after every ``knn_every``-th and after the last."""
        config = self.config
        return self.knn is not None and (epochs % config.knn_every == 0 or epochs == config.epochs)

    def validate(self) -> dict[str, float]:
        assert self.knn is not None
        found = self.knn(self.model.backbone(), self.dtype)
        self.progress.best_knn = max(self.progress.best_knn, found[self.accuracy])
        return found

    def remark(self, row: dict[str, Any]) -> str:
        """A sign of an early dip or of a collapse."""
        return self.signs.read(row)

    def contents(self) -> dict[str, Any]:
        """LEWEL's layout, and the recipe; only tensors, numbers and words."""
        assert self.config.norm is not None
        return {
            "epoch": self.progress.step // self.steps_per_epoch,
            "arch": self.method.archs[self.config.norm],
            "state_dict": {f"module.{k}": v for k, v in self.model.state_dict().items()},
            "best_acc1": self.progress.best_knn,
            "title": self.method.title,
            "recipe": self.config.unpublished(),
            "config": dataclasses.asdict(self.config),
        }

    def metrics(self) -> dict[str, Any]:
        return {
            "kind": "pretrain",
            "title": self.method.title,
            "loss": self.progress.loss,
            "best_knn": self.progress.best_knn,
            "steps": self.progress.step,
            "wall_time_s": round(self.progress.seconds, 1),
            "unreadable_images": self.progress.unreadable,
            "checkpoint": CHECKPOINT,
            "demo": self.config.data == DEMO,
            **dataclasses.asdict(self.config),
        }
