"""The whole configuration of a pre-training run; the command line is made from it."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torchvision

from common.errors import UserError
from common.runs import short_hash
from pretrain.data import DEMO, locate
from pretrain.recipes import pick

METHOD = "lewel_b"
_COUNTS = (
    "epochs",
    "batch_size",
    "image_size",
    "proj_dim",
    "hidden_dim",
    "neck_layers",
    "heads",
    "log_every",
)
_HOW = {"identity": False}  # how a run is computed, not which run it is


def _option(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


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
        batch_size = self.batch_size or pick(self.norm, self.epochs).batch_size
        missing = {k: v for k, v in self._published(batch_size).items() if getattr(self, k) is None}
        data = DEMO if self.data == DEMO else str(locate(self.data))
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return ResolvedConfig(**fields | missing | {"data": data, "batch_size": batch_size})

    def _published(self, batch_size: int) -> dict[str, Any]:
        """What the recipe says of the fields that were left out."""
        recipe = pick(self.norm, self.epochs)
        warmup = recipe.warmup_epochs
        return {
            "lr": recipe.lr * batch_size / recipe.batch_size,
            "weight_decay": recipe.weight_decay,
            "base_momentum": recipe.base_momentum,
            "warmup_epochs": warmup
            if self.epochs == recipe.epochs
            else min(warmup, 0.1 * self.epochs),
        }

    def _check(self) -> None:
        at_least = {name: 1 for name in _COUNTS} | {"workers": 0, "seed": 0, "warmup_epochs": 0}
        for name, least in (at_least | {"weight_decay": 0}).items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UserError(f"{_option(name)} {value}: must be at least {least}.")
        for name in ("lr", "scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{_option(name)} {value}: must be more than 0.")
        for name in ("base_momentum", "loss_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{_option(name)} {value}: must be between 0 and 1.")
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise UserError(
                f"--warmup-epochs {self.warmup_epochs:g} must be fewer than --epochs {self.epochs}."
            )
        if self.proj_dim % self.heads or 512 % self.heads:
            raise UserError(
                f"--heads {self.heads} must divide --proj-dim {self.proj_dim} and the backbone's "
                "features."
            )
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
        """The run folder's name: its main fields, and a hash of what else was chosen.

        Fields at their default do not count, so that a new one leaves old names as they were.
        """
        named = ("norm", "epochs", "batch_size", "lr", "seed", "backbone")
        default = {f.name: f.default for f in dataclasses.fields(PretrainConfig)}
        default |= self._published(self.batch_size)
        chosen = {
            k: v for k, v in self.identity().items() if k not in named and v != default.get(k)
        }
        return (
            f"{METHOD}-{self.norm}-{self.backbone}-e{self.epochs}-b{self.batch_size}"
            f"-lr{self.lr:g}-s{self.seed}-{short_hash(chosen)}"
        )
