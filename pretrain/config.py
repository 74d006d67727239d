"""The whole configuration of a pre-training run; the command line is made from it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import torchvision

from common.errors import UserError
from common.runs import short_hash
from pretrain.data import DEMO, locate
from pretrain.recipes import pick

METHOD = "lewel_b"
_HOW = {"identity": False}  # how a run is computed, not which run it is


@dataclass(frozen=True)
class PretrainConfig:
    """LEWEL_B pre-training. What is left out comes from the published recipe.

    Attributes:
        data: Folder with train/<class>/<image> in it, or "demo" for the embedded set. Default:
            the environment variable IMAGENET_DIR.
        norm: eman (BN, and a target with averaged statistics) or syncbn.
        epochs: Epochs of pre-training.
        batch_size: Images per step over all processes; the recipe's if left out.
        lr: Peak learning rate for that batch. The recipe's, scaled with the batch, if left out.
        weight_decay: The recipe's if left out.
        base_momentum: Momentum of the target at the first step; the recipe's if left out.
        warmup_epochs: Epochs of linear warm-up; the recipe's if left out, or a tenth of the
            epochs where that is less and the number of epochs is not a published one.
        backbone: A torchvision ResNet.
        image_size: Side of the views in pixels.
        proj_dim: Dimension of the embeddings.
        hidden_dim: Width of the neck's and the predictors' MLPs.
        neck_layers: Layers of these MLPs.
        heads: Groups of features and alignment maps.
        scale: Temperature of the alignment maps.
        loss_weight: Weight of the global branch; the aligned one has the rest.
        seed: Seed of weights, order and views.
        workers: Data-loader processes of each process.
        amp: Mixed precision: auto is bf16 where the GPU has it, else fp16; off on CPUs.
        device: auto (GPUs where there are), cpu or cuda.
        log_every: Steps between two lines of metrics.jsonl.
    """

    data: str | None = None
    norm: Literal["eman", "syncbn"] = "eman"
    epochs: int = 200
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    base_momentum: float | None = None
    warmup_epochs: float | None = None
    backbone: str = "resnet50"
    image_size: int = 224
    proj_dim: int = 256
    hidden_dim: int = 4096
    neck_layers: int = 2
    heads: int = 4
    scale: float = 1.0
    loss_weight: float = 0.5
    seed: int = 0
    workers: int = field(default=8, metadata=_HOW)
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=_HOW)
    log_every: int = field(default=10, metadata=_HOW)

    def resolve(self) -> "ResolvedConfig":
        """The same with every field filled in from the recipe, and checked.

        Raises:
            UserError: naming the field that is wrong.
        """
        self._check()
        recipe = pick(self.norm, self.epochs)
        batch_size = self.batch_size or recipe.batch_size
        published = self.epochs == recipe.epochs
        defaults: dict[str, Any] = {
            "lr": recipe.lr * batch_size / recipe.batch_size,
            "weight_decay": recipe.weight_decay,
            "base_momentum": recipe.base_momentum,
            "warmup_epochs": recipe.warmup_epochs
            if published
            else min(recipe.warmup_epochs, 0.1 * self.epochs),
        }
        missing = {k: v for k, v in defaults.items() if getattr(self, k) is None}
        data = DEMO if self.data == DEMO else str(locate(self.data))
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return ResolvedConfig(**fields | missing | {"data": data, "batch_size": batch_size})

    def _check(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "image_size",
            "proj_dim",
            "hidden_dim",
            "neck_layers",
            "heads",
            "log_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1.")
        if self.workers < 0:
            raise UserError(f"--workers {self.workers}: must be 0 or more.")
        if self.proj_dim % self.heads:
            raise UserError(f"--heads {self.heads} must divide --proj-dim {self.proj_dim}.")
        models = torchvision.models
        resnets = [
            name
            for name in models.list_models(models)
            if models.get_model_builder(name).__module__ == models.resnet.__name__
        ]
        if self.backbone not in resnets:
            raise UserError(
                f"--backbone {self.backbone} is not a torchvision ResNet; choose one "
                f"of {', '.join(sorted(resnets))}."
            )


@dataclass(frozen=True)
class ResolvedConfig(PretrainConfig):
    """A configuration with nothing left out; made by :meth:`PretrainConfig.resolve`."""

    data: str = ""
    batch_size: int = 0
    lr: float = 0.0
    weight_decay: float = 0.0
    base_momentum: float = 0.0
    warmup_epochs: float = 0.0

    def identity(self) -> dict[str, Any]:
        """The fields that make it this run and not another."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("identity", True)
        }

    def run_name(self) -> str:
        """The run folder's name."""
        named = ("norm", "epochs", "batch_size", "lr", "seed", "backbone")
        rest = {k: v for k, v in self.identity().items() if k not in named}
        return (
            f"{METHOD}-{self.norm}-{self.backbone}-e{self.epochs}-b{self.batch_size}"
            f"-lr{self.lr:g}-s{self.seed}-{short_hash(rest)}"
        )
