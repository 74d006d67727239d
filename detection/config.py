"""The configuration of a transfer job, resolved once from a YAML and the options."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.config.compat import guess_version
from detectron2.engine import DefaultTrainer

from common.errors import UserError
from common.runs import short_hash
from common.weights import Weights
from detection import own_data
from detection.values import check_values

log = logging.getLogger(__name__)

PLACEHOLDER = "See Instructions"  # MODEL.WEIGHTS of configs for self-supervised backbones
LOW_LR = 0.1  # a --lr below this share of the config's own is marked

# Keys that a run folder, a seed or a sweep depends on have one way in, the option.
_OPTIONS = {"MODEL.WEIGHTS": "--weights", "OUTPUT_DIR": "--output-dir", "SEED": "--seed"}


@dataclass(frozen=True)
class TransferConfig:
    """One fine-tuning job; made by :func:`resolve`."""

    config_name: str  # of the YAML, without its folder and ending
    config_hash: str  # of the content of the YAML and its bases
    yaml: str = field(repr=False)  # the whole Detectron2 config, with options and overrides
    weights: Weights  # start of the backbone, or the detector to evaluate
    lr: float  # SOLVER.BASE_LR
    own_lr: float  # that of the config itself, scaled to the batch
    batch_size: int  # images per iteration over all processes
    scaled: bool  # True if learning rate, iterations and steps were scaled to another batch
    seed: int  # of the heads, the sampler and the augmentation
    overrides: tuple[str, ...]  # KEY VALUE pairs as in Detectron2, never scaled
    device: str  # auto, or cuda for a job that must not fall back; MODEL.DEVICE cpu comes first
    eval_only: bool
    datasets: tuple[own_data.OwnDataset, ...]  # to train on, and to test on; none for the config's

    def detectron2(self) -> Any:
        """The Detectron2 config, before it is fitted to a device; registers the datasets."""
        for dataset in self.datasets:
            dataset.register()
        cfg = get_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(self.yaml))
        return cfg

    @property
    def low_lr(self) -> bool:
        """True if the learning rate is under a tenth of the config's own for this batch."""
        return self.lr < LOW_LR * self.own_lr

    def identity(self) -> dict[str, Any]:
        """The fields that tell this run from another."""
        named = ("SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH")
        pairs = zip(self.overrides[::2], self.overrides[1::2], strict=True)
        return {
            "config": self.config_name,
            "config_hash": self.config_hash,
            **self.weights.identity(),
            "lr": self.lr,
            "batch_size": self.batch_size,
            "scaled": self.scaled,
            "seed": self.seed,
            "eval_only": self.eval_only,
            "overrides": {key: value for key, value in pairs if key not in named},
            "datasets": [f"{one} {one.images}" for one in self.datasets],
        }

    def run_name(self, weights: str = "") -> str:
        """The folder's name, with another name of the weights than their own if one is given.

        The hash at its end is of the other overrides and of the annotations of one's own data.
        """
        overrides = self.identity()["overrides"]
        name = "-".join([self.config_name, *(one.name for one in self.datasets)])
        name += f"-{weights or self.weights.name}-lr{self.lr:g}-b{self.batch_size}"
        name += f"{'-scaled' * self.scaled}-s{self.seed}{'-eval' * self.eval_only}"
        if self.datasets:
            name += f"-{short_hash([overrides, *(one.sha256 for one in self.datasets)])}"
        elif overrides:
            name += f"-{short_hash(overrides)}"
        return name


class Yaml(NamedTuple):
    """A Detectron2 YAML that was read."""

    name: str  # of the file, without its folder and ending
    hash: str  # of its content and its bases', whatever its layout
    cfg: Any  # Detectron2's defaults merged with it


def read(path: str | os.PathLike[str]) -> Yaml:
    """Read a YAML and its bases, once; a UserError if it is no Detectron2 config."""
    if not os.path.isfile(path):
        raise UserError(f"--config {path}: no such file; the published jobs are in det_configs/.")
    cfg = get_cfg()
    try:
        content = CfgNode.load_yaml_with_base(str(path))
        digest = short_hash(content)
        node = CfgNode(content)
        if (node.get("VERSION") or guess_version(node, str(path))) == cfg.VERSION:
            cfg.merge_from_other_cfg(node)
        else:  # Detectron2 translates the keys of older ones
            cfg.merge_from_file(str(path))
    except Exception as error:  # a file of something else raises almost anything
        reason = " ".join(str(error).strip("'\"").split())
        raise UserError(f"--config {path} is not a Detectron2 config: {reason}.") from error
    return Yaml(Path(path).stem, digest, cfg)


def resolve(
    yaml: Yaml,
    weights: Weights = Weights(),  # noqa: B008
    *,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    eval_only: bool = False,
    datasets: tuple[own_data.OwnDataset, ...] = (),
) -> TransferConfig:
    """Merge a YAML with options and overrides, and check the result.

    Args:
        lr: ``SOLVER.BASE_LR`` for the config's own batch; None for the config's own.
        batch_size: images per iteration, by which learning rate, iterations and steps are scaled;
            None for the config's own, and no scaling.
    """
    for key, option, value in (
        ("SOLVER.BASE_LR", "--lr", lr),
        ("SOLVER.IMS_PER_BATCH", "--batch-size", batch_size),
        *((key, "--dataset", datasets or None) for key in own_data.KEYS),
    ):
        if key in overrides[::2] and value is not None:
            raise UserError(f"{key} and {option} are the same; give one of them.")
    cfg = yaml.cfg.clone()
    if datasets:
        own_data.use(cfg, datasets, yaml.name)
    own_lr = float(_scale(cfg, batch_size).SOLVER.BASE_LR)
    if lr is not None:
        cfg.SOLVER.BASE_LR = lr
    cfg = _scale(cfg, batch_size)
    _merge(cfg, overrides)
    if cfg.SOLVER.REFERENCE_WORLD_SIZE:
        raise UserError(
            "SOLVER.REFERENCE_WORLD_SIZE is not used here: set SOLVER.IMS_PER_BATCH, "
            "SOLVER.BASE_LR and SOLVER.MAX_ITER to what you want."
        )
    check_values(cfg, eval_only)
    if eval_only:
        cfg.DATASETS.TRAIN = ()
    cfg.MODEL.WEIGHTS = ""
    cfg.SEED = seed
    return TransferConfig(
        yaml.name,
        yaml.hash,
        cfg.dump(),
        weights,
        lr=cfg.SOLVER.BASE_LR,
        own_lr=own_lr,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        scaled=batch_size not in (None, yaml.cfg.SOLVER.IMS_PER_BATCH),
        seed=seed,
        overrides=overrides,
        device=device,
        eval_only=eval_only,
        datasets=datasets,
    )


def _scale(cfg: CfgNode, batch_size: int | None) -> CfgNode:
    """Detectron2's own linear rule, from the config's batch to another; None changes nothing."""
    if batch_size is None:
        return cfg
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be at least 1.")
    # One image for each of the rule's workers. The rule logs what it did, as of workers.
    cfg.SOLVER.REFERENCE_WORLD_SIZE = cfg.SOLVER.IMS_PER_BATCH
    scaled = DefaultTrainer.auto_scale_workers(cfg, batch_size)
    scaled.SOLVER.REFERENCE_WORLD_SIZE = 0
    return scaled


def _merge(cfg: CfgNode, overrides: Sequence[str]) -> None:
    if len(overrides) % 2:
        raise UserError(f"overrides are KEY VALUE pairs; {overrides[-1]} has no value.")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        if key in _OPTIONS:
            raise UserError(f"{key} has an option of its own here: use {_OPTIONS[key]}.")
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, AssertionError, AttributeError, TypeError) as error:
            raise UserError(
                f"{key} is not a key of Detectron2's config; check its spelling."
            ) from error
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{key} cannot be {value}: {reason}.") from error


def fit_to_device(cfg: CfgNode, device: str, processes: int) -> None:
    """Adapt a config to CPUs: device, mixed precision, and what stands in for SyncBN.

    ``nn.SyncBatchNorm`` refuses CPU tensors as soon as there is a process group. Detectron2's
    own ``naiveSyncBN`` takes its place; the variant ``_N``, which weighs ranks by their number
    of inputs, where those are ROIs. C4 shares ``RESNETS.NORM`` between backbone and ROI head.
    """
    cfg.MODEL.DEVICE = device
    if device != "cpu":
        return
    cfg.SOLVER.AMP.ENABLED = False
    if processes == 1:
        return
    by_roi = "naiveSyncBN_N"
    c4 = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" and cfg.MODEL.ROI_HEADS.NAME.startswith(
        "Res5"
    )
    stand_ins = (
        (cfg.MODEL.RESNETS, by_roi if c4 else "naiveSyncBN"),
        (cfg.MODEL.FPN, "naiveSyncBN"),
        (cfg.MODEL.ROI_BOX_HEAD, by_roi),
        (cfg.MODEL.ROI_MASK_HEAD, by_roi),
        (cfg.MODEL.SEM_SEG_HEAD, "naiveSyncBN"),
    )
    for node, stand_in in stand_ins:
        if node.NORM == "SyncBN":
            node.NORM = stand_in
            log.info("%s stands in for SyncBN between CPU processes", stand_in)
