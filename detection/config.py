"""A transfer job's configuration, and the Detectron2 config that it stands for."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer

from common.errors import UserError
from common.runs import short_hash
from common.weights import Weights
from detection import own_data
from detection.values import check_values

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parent.parent / "det_configs"  # the published jobs
PLACEHOLDER = "See Instructions"  # MODEL.WEIGHTS of configs for self-supervised backbones
LOW_LR = 0.1  # a --lr below this share of the config's own is marked

# Keys that a run folder, a seed or a sweep depends on have one way in, the option.
_OPTIONS = {"MODEL.WEIGHTS": "--weights", "OUTPUT_DIR": "--output-dir", "SEED": "--seed"}


@dataclass(frozen=True)
class TransferConfig:
    """One fine-tuning job.

    Attributes:
        config: absolute path of the Detectron2 YAML.
        weights: what the backbone starts from.
        lr: ``SOLVER.BASE_LR`` for the config's own batch; None for the config's own.
        seed: seed of the heads, the sampler and the augmentation.
        overrides: KEY VALUE pairs as in Detectron2, not scaled by anything.
        device: ``auto``, or ``cuda`` for a job that has GPUs and must not fall back to CPUs;
            ``MODEL.DEVICE cpu`` in the config has the last word.
        batch_size: images per iteration over all processes, by which learning rate, iterations
            and steps are scaled; None for the config's own, and no scaling.
        eval_only: whether the weights are a trained detector's, which is only to be evaluated.
        datasets: one's own to train on, unless it is only evaluated, and to test on; none for the
            config's.
    """

    config: str
    weights: Weights = field(default_factory=Weights)
    lr: float | None = None
    seed: int = 0
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    batch_size: int | None = None
    eval_only: bool = False
    datasets: tuple[own_data.OwnDataset, ...] = ()

    @property
    def config_name(self) -> str:
        """The YAML's name without its folder and ending."""
        return Path(self.config).stem

    def detectron2(self) -> Any:
        """The Detectron2 config, before it is fitted to a device.

        Raises:
            UserError: naming the file or key that is wrong.
        """
        for key, option, value in (
            ("SOLVER.BASE_LR", "--lr", self.lr),
            ("SOLVER.IMS_PER_BATCH", "--batch-size", self.batch_size),
            *((key, "--dataset", self.datasets or None) for key in own_data.KEYS),
        ):
            if key in self.overrides[::2] and value is not None:
                raise UserError(f"{key} and {option} are the same; give one of them.")
        cfg = read_config(self.config)
        if self.datasets:
            own_data.use(cfg, self.datasets, self.config_name)
        if self.lr is not None:
            cfg.SOLVER.BASE_LR = self.lr
        if self.batch_size is not None:
            cfg = _scale(cfg, self.batch_size)
        _merge(cfg, self.overrides)
        if cfg.SOLVER.REFERENCE_WORLD_SIZE:
            raise UserError(
                "SOLVER.REFERENCE_WORLD_SIZE is not used here: set SOLVER.IMS_PER_BATCH, "
                "SOLVER.BASE_LR and SOLVER.MAX_ITER to what you want."
            )
        check_values(cfg, self.eval_only)
        if self.eval_only:
            cfg.DATASETS.TRAIN = ()
        cfg.MODEL.WEIGHTS = self.weights.path
        cfg.SEED = self.seed
        return cfg

    def identity(self) -> dict[str, Any]:
        """What makes it this run and not another."""
        solver = self.detectron2().SOLVER
        named = ("SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH")
        pairs = zip(self.overrides[::2], self.overrides[1::2], strict=True)
        return {
            "config": self.config_name,
            "config_hash": config_hash(self.config),
            "weights_sha256": self.weights.sha256,
            "lr": solver.BASE_LR,
            "batch_size": solver.IMS_PER_BATCH,
            "scaled": self.scaled(),
            "seed": self.seed,
            "eval_only": self.eval_only,
            "overrides": {key: value for key, value in pairs if key not in named},
            "datasets": [f"{one} {one.images}" for one in self.datasets],
        }

    def scaled(self) -> bool:
        """Whether the config is scaled to another batch than its own."""
        own = read_config(self.config).SOLVER.IMS_PER_BATCH
        return self.batch_size not in (None, own)

    def low_lr(self) -> bool:
        """Whether the learning rate is under a tenth of the config's own for this batch."""
        return bool(self.detectron2().SOLVER.BASE_LR / self.own_lr() < LOW_LR)

    def own_lr(self) -> float:
        """The config's own learning rate, scaled to the batch."""
        return float(_scale(read_config(self.config), self.batch_size).SOLVER.BASE_LR)

    def run_name(self) -> str:
        """The folder's name: config, data of one's own, weights, lr, batch, seed, and a hash.

        It is of the other overrides and of the annotations of that data, if there are any.
        """
        it = self.identity()
        name = (
            f"{'-'.join([self.config_name, *(one.name for one in self.datasets)])}"
            f"-{it['weights_sha256'][:8] or 'random'}"
            f"-lr{it['lr']:g}-b{it['batch_size']}{'-scaled' * it['scaled']}-s{it['seed']}"
        )
        name += "-eval" * self.eval_only
        hashed = [it["overrides"], *(one.sha256 for one in self.datasets)]
        if self.datasets or it["overrides"]:
            name += f"-{short_hash(hashed if self.datasets else it['overrides'])}"
        return name


def config_hash(path: str) -> str:
    """What a YAML and its bases say, in eight digits; how they are written does not matter."""
    return short_hash(CfgNode.load_yaml_with_base(path))


def read_config(path: str) -> Any:
    """Detectron2's defaults merged with a YAML and its bases.

    Raises:
        UserError: if there is no such file, or it is no Detectron2 config.
    """
    if not os.path.isfile(path):
        raise UserError(f"--config {path}: no such file; the published jobs are in det_configs/.")
    cfg = get_cfg()
    try:
        cfg.merge_from_file(path)
    except Exception as error:  # a file of something else raises almost anything
        reason = " ".join(str(error).strip("'\"").split())
        raise UserError(f"--config {path} is not a Detectron2 config: {reason}.") from error
    return cfg


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
