"""kNN accuracy of features on a few images, cross-validated over all of them.

    python -m benchmarks.knn --weights lewel.pth.tar byol.pth.tar --data /path/to/imagenet

For sets too small for a sharp figure from their validation images: every training image is
classified once by those of the other folds. The folds are not independent, so that the intervals
are approximate. Differences are from the first checkpoint, image by image. Nothing is written.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from common.errors import command


@dataclass(frozen=True)
class Options:
    """The checkpoints to compare, and the images.

    Attributes:
        weights: Checkpoints; "none" is a random ResNet, with BN statistics of these images.
        data: Images, as for launch/pretrain.py; its training split is used.
        backbone: The random ResNet.
        image_size: Side of the images' centre crop in pixels.
        folds: Of the cross-validation.
        k: Neighbours.
        seed: Of the folds and the random ResNet.
        workers: Data-loader processes.
    """

    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]
    data: str | None = None
    backbone: str = "resnet18"
    image_size: int = 224
    folds: int = 10
    k: int = 20
    seed: int = 0
    workers: int = 2


@command
def main(arguments: list[str] | None = None) -> None:
    """Print a row for each checkpoint."""
    options = tyro.cli(Options, description=__doc__, args=arguments)

    import torch
    from rich.console import Console
    from rich.table import Table

    from common.backbones import build_resnet, read_backbone
    from common.distributed import World
    from common.weights import Weights
    from launch.evidence import paired, recalibrate
    from pretrain.data.locate import open_images
    from pretrain.evaluation.classifier import load_backbone
    from pretrain.evaluation.features import Accuracy, extract
    from pretrain.evaluation.knn import cross_validated

    images = open_images(options.data)
    world = World(0, 1, 0, 1, torch.device("cpu"))
    table = Table(title=f"{options.folds}-fold kNN of {len(images)} images, top-1 in percent")
    for name in ("weights", "k", "top-1", "95 % interval", "less the first, 95 % interval"):
        table.add_column(name, overflow="fold")
    first = None
    for wanted in options.weights:
        torch.manual_seed(options.seed)
        if wanted == "none":
            network = load_backbone(Weights(options.backbone))
            recalibrate(network, images, options.image_size)
        else:
            network = build_resnet(read_backbone(wanted))
        found = extract(network, images, options.image_size, options.workers, world, None, 100)
        k, right = cross_validated(
            found.vectors, found.labels, options.folds, options.k, seed=options.seed
        )
        accuracy = Accuracy(int(right.sum()), len(right))
        low, high = accuracy.interval
        first = right if first is None else first
        difference = (
            "" if right is first else str(paired(100 * (right.double() - first.double()).numpy()))
        )
        shown = (f"{accuracy.percent:.2f}", f"{low:.2f} to {high:.2f}", difference)
        table.add_row(wanted, str(k), *shown)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
