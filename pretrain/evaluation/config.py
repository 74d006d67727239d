"""Protocols and configuration of linear and semi-supervised evaluation."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from common.errors import UserError
from common.files import sha256
from common.runs import check_seed
from common.weights import Weights
from pretrain.config import HOW, TrainingConfig, check_ranges
from pretrain.data.locate import locate


@dataclass(frozen=True)
class Protocol:
    """Hyper-parameters that were published together, learning rates for their batch."""

    percent: int  # of the training images
    batch_size: int
    epochs: int
    backbone_lr: float  # 0 where it is frozen
    head_lr: float
    weight_decay: float
    source: str


LINEAR = Protocol(100, 256, 50, 0.0, 0.4, 0.0, "LEWEL (CVPR 2022), linear evaluation")
SEMI = {
    1: Protocol(1, 256, 50, 1e-4, 1.0, 1e-4, "LEWEL (CVPR 2022), 1 % of the labels"),
    10: Protocol(10, 256, 50, 1e-2, 0.1, 1e-4, "LEWEL (CVPR 2022), 10 % of the labels"),
}
MOMENTUM = 0.9
"""Of SGD, in all of them."""


def decay(epoch: int, epochs: int) -> float:
    """The factor of an epoch's learning rate: 0.1 for each milestone passed, 30 and 40 of 50."""
    return 0.1 ** sum(epoch >= round(part * epochs) for part in (0.6, 0.8))


@dataclass(frozen=True)
class EvaluationConfig(TrainingConfig):
    """The options of both linear and semi-supervised evaluation.

    Attributes:
        val_data: Validation images, as for --data. Default: those beside the others.
        image_size: Side of the crops in pixels.
        batch_size: Images per step over all processes.
        epochs: Epochs of training. The learning rate falls to a tenth at 60 and 80 % of them.
    """

    val_data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    image_size: int = 224
    batch_size: int = LINEAR.batch_size
    epochs: int = LINEAR.epochs

    def _resolve(self, weights: Weights, **more: Any) -> "ClassifierConfig":
        common = {f.name: getattr(self, f.name) for f in dataclasses.fields(EvaluationConfig)}
        common["data"] = self.located()
        if self.val_data is not None:
            common["val_data"] = str(locate(self.val_data, "val"))
        resolved = ClassifierConfig(**common, weights=weights, **more)
        resolved.check()
        return resolved


@dataclass(frozen=True)
class LinearConfig(EvaluationConfig):
    """Linear classifier on frozen features.

    Attributes:
        lr: Learning rate for that batch. Default: 0.4 for 256 images, scaled.
        weight_decay: Weight decay of the classifier.
    """

    lr: float | None = None
    weight_decay: float = LINEAR.weight_decay

    def resolve(self, weights: Weights) -> "ClassifierConfig":
        """The same with every field filled in from the protocol, and checked."""
        lr = _scaled(self.lr, LINEAR.head_lr, self.batch_size)
        return self._resolve(
            weights, kind="linear", head_lr=lr, weight_decay=self.weight_decay, percent=100
        )


@dataclass(frozen=True)
class SemiConfig(EvaluationConfig):
    """Whole network, fine-tuned on a small share of the labels.

    Attributes:
        percent: Share of the training images.
        list_path: SimCLR's list of these images. One file name a line. Default: a seeded,
            balanced choice.
        backbone_lr: Learning rate of the backbone for that batch. For 256 images 1e-4 at 1 % and
            1e-2 at 10 %, scaled with the batch. Default: the protocol's.
        head_lr: Learning rate of the classifier for that batch. For 256 images 1.0 at 1 % and 0.1
            at 10 %, scaled with the batch. Default: the protocol's.
        weight_decay: Weight decay of all parameters.
    """

    percent: Literal[1, 10] = 1
    list_path: Annotated[str | None, tyro.conf.arg(name="list", metavar="FILE")] = None
    backbone_lr: float | None = None
    head_lr: float | None = None
    weight_decay: float = SEMI[1].weight_decay

    def resolve(self, weights: Weights) -> "ClassifierConfig":
        """The same with every field filled in from the protocol, and checked."""
        protocol = SEMI[self.percent]
        path = None
        if self.list_path is not None:
            path = str(Path(self.list_path).expanduser().resolve())
            if not Path(path).is_file():
                raise UserError(f"--list {self.list_path}: no such file; check the path.")
        return self._resolve(
            weights,
            kind="semi",
            backbone_lr=_scaled(self.backbone_lr, protocol.backbone_lr, self.batch_size),
            head_lr=_scaled(self.head_lr, protocol.head_lr, self.batch_size),
            weight_decay=self.weight_decay,
            percent=self.percent,
            list_path=path,
            list_sha256=sha256(path) if path else "",
        )


@dataclass(frozen=True)
class ClassifierConfig(EvaluationConfig):
    """A job: nothing is left out. Made by :meth:`LinearConfig.resolve` or :class:`SemiConfig`'s.

    ``kind`` is ``linear`` (frozen backbone, ``backbone_lr`` 0) or ``semi``. Without a list, whose
    SHA-256 is ``list_sha256``, the images are a seeded choice.
    """

    kind: Literal["linear", "semi"] = "linear"
    weights: Weights = field(default=Weights("resnet50"), metadata=HOW)
    backbone_lr: float = LINEAR.backbone_lr
    head_lr: float = LINEAR.head_lr
    weight_decay: float = LINEAR.weight_decay
    percent: int = LINEAR.percent
    list_path: str | None = field(default=None, metadata=HOW)
    list_sha256: str = ""

    @property
    def frozen(self) -> bool:
        """True if only the classifier learns."""
        return self.kind == "linear"

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates, as options, metrics and tables name them."""
        if self.frozen:
            return {"lr": self.head_lr}
        return {"backbone_lr": self.backbone_lr, "head_lr": self.head_lr}

    def check(self) -> None:
        """Raise a UserError unless every number is one that a training can have."""
        check_seed(self.seed)
        ranges = {
            "at least 1": ("image_size", "batch_size", "epochs", "log_every"),
            "at least 0": ("workers", "weight_decay"),
            "more than 0": tuple(self.rates),
        }
        check_ranges(dataclasses.asdict(self) | self.rates, ranges)

    def identity(self) -> dict[str, Any]:
        """The fields that make it this run and not another; lists by their contents."""
        weights = self.weights.identity() | {"architecture": self.weights.architecture}
        return weights | super().identity()

    def run_name(self, weights: str = "") -> str:
        """The run folder's name: its main fields, and a hash of what else was chosen.

        ``weights`` is another name of the weights than their own.
        """
        named = (
            "kind weights weights_sha256 architecture percent epochs batch_size backbone_lr "
            "head_lr seed"
        ).split()
        default = {f.name: f.default for f in dataclasses.fields(self)}
        default["weight_decay"] = (LINEAR if self.frozen else SEMI[self.percent]).weight_decay
        share = "" if self.frozen else f"-{self.percent}percent"
        lr = f"{self.head_lr:g}" if self.frozen else f"{self.backbone_lr:g}-{self.head_lr:g}"
        return (
            f"{self.weights.architecture}-{weights or self.weights.name}{share}"
            f"-e{self.epochs}-lr{lr}-b{self.batch_size}-s{self.seed}-{self.digits(named, default)}"
        )


def _scaled(lr: float | None, published: float, batch_size: int) -> float:
    """The published rate for another batch (linear scaling), unless one was chosen."""
    return published * batch_size / LINEAR.batch_size if lr is None else lr
