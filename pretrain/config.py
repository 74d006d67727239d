"""The configuration of a pre-training run, from which its command line is made."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from common.command_line import RARE
from common.errors import UserError, option
from common.resnets import ARCHITECTURES
from common.runs import UNSAID, check_seed, short_hash
from pretrain import methods
from pretrain.data.locate import DEMO, locate
from pretrain.method import Method, Norm

CHECKPOINT = "checkpoint.pth.tar"  # a link to the newest one

HOW = {"identity": False}  # of the computation, not of the run's identity
_OF_SOME = {"of_some_methods": True} | RARE
_COUNTS = ("epochs", "batch_size", "image_size", "proj_dim", "hidden_dim", "neck_layers", "heads")
_RANGES: dict[str, tuple[str, ...]] = {
    "at least 1": (*_COUNTS, "queue_size", "log_every", "knn_images"),
    "at least 0": ("workers", "warmup_epochs", "weight_decay", "knn_every"),
    "more than 0": ("lr", "scale", "temperature", "checkpoint_min", "blur_sigma"),
    "between 0 and 1": ("base_momentum", "loss_weight"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """The options of all that trains here.

    Attributes:
        data: Folder of images, WebDataset shards, or "demo". The folder has
            train/<class>/<image> in it; shards are a folder of .tar files or a pattern such as
            train-{000..146}.tar; "demo" is the embedded set. Default: IMAGENET_DIR.
        seed: Seed of weights, order and views. Also of a subset that is drawn.
        workers: Data-loader processes of each process.
        amp: Mixed precision. auto is bf16 where the GPU has it, else fp16; off on CPUs.
        device: Where to compute. auto is on GPUs where there are some.
        log_every: Steps between two lines of metrics.jsonl.
    """

    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    seed: int = 0
    workers: int = field(default=8, metadata=HOW)
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=HOW)
    log_every: int = field(default=10, metadata=HOW)

    def located(self) -> str:
        """The absolute place of the training images, or ``demo``."""
        return DEMO if self.data == DEMO else str(locate(self.data))

    def identity(self) -> dict[str, Any]:
        """The fields that make it this run and not another."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("identity", True)
        }

    def digits(self, named: Collection[str], default: Mapping[str, Any]) -> str:
        """A hash of what was chosen beside the fields that a run's name says.

        Fields at their default do not count, so that a new one leaves old names as they were.
        """
        rest = {k: v for k, v in self.identity().items() if k not in named}
        return short_hash({k: v for k, v in rest.items() if v != default.get(k)})


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """Pre-training, by the published recipe (--list-recipes) but for what is typed.

    Attributes:
        method: lewel_b, byol, lewel_m or moco_v2.
        val_data: Validation images of the kNN monitor. As for --data. Default: val/ beside train/.
        norm: BatchNorm of online network and target. eman is BN, and a target with averaged
            statistics; shufflebn is for methods with a queue. Default: the method's.
        epochs: Epochs of pre-training.
        batch_size: Images per step over all processes. Default: the recipe's.
        lr: Peak learning rate for that batch. Default: the recipe's, scaled.
        weight_decay: Weight decay. Default: the recipe's.
        base_momentum: Momentum of the target at the first step. Default: the recipe's.
        warmup_epochs: Epochs of linear warm-up. At most a tenth of the epochs where their number
            is not a published one. Default: the recipe's.
        adapt_mlp_norms: LEWEL_B and BYOL: LARS and weight decay for the norms of the MLPs. Their
            weights in neck and predictors. Default: the recipe's.
        backbone: A torchvision ResNet.
        image_size: Side of the views in pixels.
        blur_sigma: Largest standard deviation of the views' blur, pixels. The least is a twentieth.
        proj_dim: Dimension of the embeddings. Default: the method's.
        hidden_dim: Width of the neck's and the predictors' MLPs. Default: the method's.
        neck_layers: Layers of these MLPs. Default: the method's.
        heads: LEWEL: groups of features and alignment maps. Default: the method's.
        scale: LEWEL: temperature of the alignment maps. Default: the method's.
        loss_weight: LEWEL: weight of the global branch. The aligned one has the rest. Default: the
            method's.
        queue_size: MoCo and LEWEL_M: negatives. Default: the method's.
        temperature: MoCo and LEWEL_M: of InfoNCE. Default: the method's.
        checkpoint_min: Minutes between checkpoints inside an epoch. Each epoch ends with one.
        knn_every: Epochs between kNN evaluations; 0 for none. Of the backbone, and before the
            first and after the last.
        knn_images: Training images in the kNN's memory. Equally many of each class.
    """

    method: str = "lewel_b"
    val_data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = field(
        default=None, metadata=HOW
    )
    norm: Norm | None = None
    epochs: int = 200
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    base_momentum: float | None = None
    warmup_epochs: float | None = None
    adapt_mlp_norms: bool | None = field(default=None, metadata=_OF_SOME)
    backbone: str = "resnet50"
    image_size: int = 224
    blur_sigma: float = 2.0
    proj_dim: int | None = field(default=None, metadata=_OF_SOME)
    hidden_dim: int | None = field(default=None, metadata=_OF_SOME)
    neck_layers: int | None = field(default=None, metadata=_OF_SOME)
    heads: int | None = field(default=None, metadata=_OF_SOME)
    scale: float | None = field(default=None, metadata=_OF_SOME)
    loss_weight: float | None = field(default=None, metadata=_OF_SOME)
    queue_size: int | None = field(default=None, metadata=_OF_SOME)
    temperature: float | None = field(default=None, metadata=_OF_SOME)
    checkpoint_min: float = field(default=15.0, metadata=HOW)
    knn_every: int = field(default=10, metadata=HOW)
    knn_images: int = field(default=200_000, metadata=HOW)

    def resolve(self) -> "ResolvedConfig":
        """The same with every field filled in from the method's recipe, and checked."""
        method = methods.find(self.method)
        norm = self.norm or method.recipes[0].norm
        self._check_method(method, norm)
        check_ranges({name: getattr(self, name) for names in _RANGES.values() for name in names})
        self._check_rest()
        chosen = dataclasses.replace(self, norm=norm)
        batch_size = self.batch_size or method.recipe(norm, self.epochs).batch_size
        default = {"batch_size": batch_size} | chosen._defaults(batch_size)
        fields = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)}
        fields |= {k: v for k, v in default.items() if fields[k] is None}
        fields["data"] = self.located()
        if self.val_data not in (None, DEMO):
            fields["val_data"] = str(locate(self.val_data, "val", "--val-data"))
        resolved = ResolvedConfig(**fields)
        heads, dim = resolved.heads, resolved.proj_dim
        if heads and (dim % heads or 512 % heads):
            raise UserError(
                f"--heads {heads} must divide --proj-dim {dim} and the backbone's features."
            )
        return resolved

    def _defaults(self, batch_size: int) -> dict[str, Any]:
        """The values that method and recipe have for fields left out; norm is chosen."""
        method = methods.find(self.method)
        assert self.norm is not None
        recipe = method.recipe(self.norm, self.epochs)
        warmup = recipe.warmup_epochs
        if self.epochs != recipe.epochs:
            warmup = min(warmup, 0.1 * self.epochs)
        return {
            "lr": recipe.lr * batch_size / recipe.batch_size,
            "weight_decay": recipe.weight_decay,
            "base_momentum": recipe.base_momentum,
            "warmup_epochs": warmup,
            **dict.fromkeys(_of_some_methods(), 0),
            **method.defaults,
            "adapt_mlp_norms": recipe.adapt_mlp_norms,
        }

    def _check_method(self, method: Method, norm: str) -> None:
        if norm not in method.archs:
            raise UserError(
                f"--norm {norm} does not go with --method {method.name}; choose "
                f"{' or '.join(method.archs)}."
            )
        for name in _of_some_methods():
            if name not in method.defaults and getattr(self, name) is not None:
                raise UserError(f"--method {method.name} has no {option(name)}; leave it out.")

    def _check_rest(self) -> None:
        check_seed(self.seed)
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise UserError(
                f"--warmup-epochs {self.warmup_epochs:g} must be fewer than --epochs {self.epochs}."
            )
        if self.backbone not in ARCHITECTURES:
            raise UserError(
                f"--backbone {self.backbone} is not a torchvision ResNet; choose one "
                f"of {', '.join(ARCHITECTURES)}."
            )


def check_ranges(
    values: Mapping[str, float | None], ranges: Mapping[str, tuple[str, ...]] = _RANGES
) -> None:
    """Raise a UserError for a value, by its field's name, out of its range; None is none."""
    for words, names in ranges.items():
        for name in names:
            value = values[name]
            if value is None:
                continue
            fits = {
                "at least 1": 1 <= value < math.inf,
                "at least 0": 0 <= value < math.inf,
                "more than 0": 0 < value < math.inf,
                "between 0 and 1": 0 <= value <= 1,
            }
            if not fits[words]:
                raise UserError(f"{option(name)} {value}: must be {words}.")


def _of_some_methods() -> list[str]:
    fields = dataclasses.fields(PretrainConfig)
    return [f.name for f in fields if f.metadata.get("of_some_methods")]


@dataclass(frozen=True)
class ResolvedConfig(PretrainConfig):
    """A configuration with nothing left out; made by :meth:`PretrainConfig.resolve`.

    Fields that the method does not have are 0.
    """

    data: str = ""
    norm: Norm = "eman"
    batch_size: int = 0
    lr: float = 0.0
    weight_decay: float = 0.0
    base_momentum: float = 0.0
    warmup_epochs: float = 0.0
    adapt_mlp_norms: bool = False
    proj_dim: int = 0
    hidden_dim: int = 0
    neck_layers: int = 0
    heads: int = 0
    scale: float = 0.0
    loss_weight: float = 0.0
    queue_size: int = 0
    temperature: float = 0.0

    def unpublished(self) -> str:
        """Differences from the run with the published figures of this method; "" if none."""
        assert self.norm is not None
        recipe = methods.find(self.method).recipe(self.norm, self.epochs)
        theirs = {f.name: f.default for f in dataclasses.fields(PretrainConfig)}
        theirs |= {"batch_size": recipe.batch_size} | self._defaults(recipe.batch_size)
        free = ("method", "norm", "epochs", "data", "seed", "backbone", "amp")  # told, or no recipe
        ours = {k: v for k, v in self.identity().items() if k not in free and v != theirs[k]}
        changed = [f"{name.replace('_', ' ')} {value}" for name, value in ours.items()]
        return ", ".join(filter(None, (recipe.unlike, *changed)))

    def run_name(self) -> str:
        """The run folder's name: its main fields, and a hash of what else was chosen.

        The default of fields that old runs' identity does not say is what these runs did.
        """
        named = ("method", "norm", "epochs", "batch_size", "lr", "seed", "backbone")
        default = {f.name: f.default for f in dataclasses.fields(PretrainConfig)}
        default |= self._defaults(self.batch_size) | UNSAID
        return (
            f"{self.method}-{self.norm}-{self.backbone}-e{self.epochs}-b{self.batch_size}"
            f"-lr{self.lr:g}-s{self.seed}-{self.digits(named, default)}"
        )
