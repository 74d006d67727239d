"""Measures of what pre-training on the drawn images is worth: the steps of the demo and the proof.

A start is a ResNet-18 whose BatchNorm statistics are computed anew on the training images, so that
a random one is not judged by statistics that it never had. Three measures of it: kNN accuracy, and
on few labelled scenes the mIoU of a linear head on the frozen backbone and of an FCN that is
fine-tuned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from common.backbones import build_resnet, read_backbone
from common.distributed import World
from common.files import atomic_write
from common.weights import Weights
from launch import pretrain, transfer
from pretrain.augment import centre_crop
from pretrain.config import CHECKPOINT
from pretrain.data.images import ImageSource
from pretrain.data.locate import DEMO, open_images, open_validation
from pretrain.evaluation.classifier import load_backbone
from pretrain.evaluation.features import extract
from pretrain.evaluation.knn import predict

BACKBONE, SIZE = "resnet18", 48
RANDOM, LEWEL, PERMUTED = "random", "LEWEL_M", "LEWEL_M permuted"
# Small networks, batches and images, few steps, and a blur in proportion to the image: all the
# demo's own. A batch of one process needs no SyncBN.
SMALL = (
    f"--data demo --backbone {BACKBONE} --image-size {SIZE} --blur-sigma 0.43 --proj-dim 64 "
    "--epochs 4 --batch-size 32 --warmup-epochs 0.4 --knn-every 0"
)
MOCO = "--queue-size 1024 --base-momentum 0.99 --lr 0.1 --norm shufflebn"
BYOL = "--hidden-dim 512 --lr 0.6 --base-momentum 0.9 --norm"
METHODS = {
    LEWEL: f"--method lewel_m --hidden-dim 512 {MOCO}",
    "LEWEL_B EMAN": f"--method lewel_b {BYOL} eman",
    "BYOL": f"--method byol {BYOL} syncbn",
    "MoCo v2": f"--method moco_v2 {MOCO}",
}
LINEAR, FCN = "demo_voc_R_18_linear", "demo_voc_R_18_FCN"
TEST_SET = "demo_voc_2012_val_sem_seg"
NEIGHBOURS = 20
RESAMPLES = 1000
ALONE = World(0, 1, 0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Difference:
    """A difference in percentage points, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True)
class Bench:
    """The place of starts and runs, which are made if they are not there yet.

    Args:
        output_dir: folder that holds ``starts/`` and ``runs/``.
        where: options of the jobs, such as ``--cluster local``.
    """

    output_dir: Path
    where: tuple[str, ...] = ()

    def start(self, name: str, seed: int) -> Path:
        """The backbone's file of a start: one of METHODS, random, or LEWEL_M permuted."""
        folder = None
        if name != RANDOM:
            method = METHODS[LEWEL if name == PERMUTED else name]
            words = [*SMALL.split(), *method.split(), "--seed", str(seed)]
            folder = pretrain.run([*words, *self._options()])
        # Another recipe is another run, and its start another file.
        stem = f"{folder.name}{'-permuted' * (name == PERMUTED)}" if folder else f"random-s{seed}"
        path = self.output_dir / "starts" / f"{stem}.pth"
        if not path.exists():
            torch.manual_seed(seed)
            if folder is None:
                network = load_backbone(Weights(BACKBONE))
            else:
                network = build_resnet(read_backbone(folder / CHECKPOINT))
            if name == PERMUTED:
                permute(network, seed)
            recalibrate(network, open_images(DEMO), SIZE)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                torch.save(network.state_dict(), file)
        return path

    def transfer(self, name: str, seed: int, config: str, *options: str) -> Path:
        """The run folder of a segmentation from a start."""
        words = ["--config", config, "--weights", str(self.start(name, seed)), "--label", name]
        (folder,) = transfer.run([*words, "--seed", str(seed), *self._options(), *options])
        return folder

    def knn(self, name: str, seed: int) -> NDArray[np.float64]:
        """100 for the validation images that the nearest training images classify right, else 0."""
        network = build_resnet(read_backbone(self.start(name, seed)))
        memory, queries = (
            extract(network, images, SIZE, 1, ALONE)
            for images in (open_images(DEMO), open_validation(DEMO, None))
            if images is not None
        )
        (found,) = predict(queries.vectors, memory.vectors, memory.labels, [NEIGHBOURS])
        right: NDArray[np.float64] = 100 * (found == queries.labels).double().numpy()
        return right

    def _options(self) -> list[str]:
        return ["--output-dir", str(self.output_dir), *self.where]


@torch.no_grad()
def recalibrate(network: nn.Module, images: ImageSource, size: int) -> None:
    """Make BatchNorm's statistics the mean over batches of the images, of ``size`` pixels."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    for batch in images.evaluation_batches(centre_crop(size), 128, 1, 0, 1):
        network(batch.views[0])


@torch.no_grad()
def permute(network: nn.Module, seed: int) -> None:
    """Shuffle the weights within each convolution, and reset BatchNorm's.

    What is left of a pre-training is the distribution of each layer's weights: the control.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            order = torch.randperm(module.weight.numel(), generator=generator)
            module.weight.copy_(module.weight.flatten()[order].view_as(module.weight))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def paired(differences: Sequence[float] | NDArray[np.float64]) -> Difference:
    """The mean of paired differences (n,), with its t interval; n is at least 2."""
    mean = float(np.mean(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return Difference(mean, mean - half, mean + half)


def miou_difference(ours: Path, theirs: Path) -> Difference:
    """The difference in mIoU of two runs, with a bootstrap interval over the test images."""
    from segmentation.predictions import confusions, miou

    both = [confusions(folder, TEST_SET) for folder in (ours, theirs)]
    images = len(both[0])
    drawn = np.random.default_rng(0).multinomial(images, [1 / images] * images, RESAMPLES)

    def difference(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The difference where image i counts counts[i] times."""
        a, b = (miou(np.tensordot(counts, confusion, axes=(-1, 0))) for confusion in both)
        return a - b

    low, high = np.percentile(difference(drawn), [2.5, 97.5])
    return Difference(float(difference(np.ones(images, np.int64))), float(low), float(high))
