"""The demo: pre-train LEWEL on drawn images, and show what that is worth beside a random start."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(ROOT)

from common.errors import command
from launch.options import parse


@dataclass(frozen=True)
class Command:
    """Pre-train LEWEL with a small ResNet on drawn images, segment drawn scenes from it and from a
    random start, and print the tables and the differences.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
        cluster: Where the jobs run.
        seed: Seed of everything.
    """

    output_dir: Path = ROOT
    cluster: Literal["local", "debug"] = "local"
    seed: int = 0


@command
def main() -> None:
    """The console command."""
    options = parse(Command, "launch/demo.py")
    import torch

    from launch import results
    from launch.evidence import (
        FCN,
        LEWEL,
        LINEAR,
        RANDOM,
        Bench,
        miou_difference,
        paired,
    )

    gpus = str(min(1, torch.cuda.device_count()))
    bench = Bench(options.output_dir, ("--cluster", options.cluster, "--gpus-per-node", gpus))
    runs = {
        (config, name): bench.transfer(name, options.seed, config)
        for name in (LEWEL, RANDOM)
        for config in (LINEAR, FCN)
    }
    knn = paired(bench.knn(LEWEL, options.seed) - bench.knn(RANDOM, options.seed))
    linear, tuned = (
        miou_difference(runs[config, LEWEL], runs[config, RANDOM]) for config in (LINEAR, FCN)
    )
    results.show(options.output_dir)
    print(
        f"{LEWEL} less random, one seed, 95 % intervals over the test images: kNN accuracy {knn}, "
        f"mIoU of the frozen backbone {linear}, mIoU after fine-tuning {tuned}"
    )


if __name__ == "__main__":
    main()
