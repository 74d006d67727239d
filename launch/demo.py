"""The whole job on the embedded data, in minutes: pre-train, transfer, compare with random."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(ROOT)

from common.errors import command
from launch import pretrain, results, transfer
from launch.options import CONFIGS, parse
from pretrain.config import CHECKPOINT

# What starts from LEWEL, and from nothing.
JOBS = (
    ("demo_R_18_FPN", "lewel"),
    ("demo_R_18_FPN", "none"),
    ("demo_voc_R_18_FPN", "lewel"),
    ("demo_voc_R_18_FCN", "lewel"),
)
PRETRAIN = (
    "--data demo --backbone resnet18 --epochs 20 --batch-size 60 --lr 1.2 "
    "--image-size 64 --proj-dim 64 --hidden-dim 256 --workers 2"
)


@dataclass(frozen=True)
class Command:
    """Pre-train LEWEL with a small ResNet on drawn images, fine-tune small models from it on drawn
    COCO and VOC images, and a detector from nothing, and print the tables.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
        cluster: Where the jobs run.
    """

    output_dir: Path = ROOT
    cluster: Literal["local", "debug"] = "local"


@command
def main() -> None:
    """The console command."""
    options = parse(Command, "launch/demo.py")
    common = ["--output-dir", str(options.output_dir), "--cluster", options.cluster]
    import torch

    common += ["--gpus-per-node", str(min(1, torch.cuda.device_count()))]
    folder = pretrain.run([*PRETRAIN.split(), *common])
    assert folder is not None
    for name, start in JOBS:
        weights = str(folder / CHECKPOINT) if start == "lewel" else start
        transfer.run(["--config", str(CONFIGS / f"{name}.yaml"), "--weights", weights, *common])
    results.show(options.output_dir)


if __name__ == "__main__":
    main()
