"""Every command of the README and ``docs/``, and what the tests hold of it.

A command that is not here fails the tests, as does a line without a command. Most are run as they
are typed, on drawn data, up to ``sbatch``, which a script stands in for; the rest is said in HOW.
"""

from dataclasses import dataclass, field
from typing import Literal

How = Literal[
    "run",  # as it is typed
    "help",  # with --help, which must know its options: it takes long, or changes the machine
    "make",  # make -n, which says what it would do
    "torchrun",  # as one of the processes that torchrun starts
    "file",  # not ours: its last word must be there
]


@dataclass(frozen=True)
class Row:
    """How a command is run, and what must come of it."""

    command: str  # with variables and loops resolved
    output: str = ""  # a pattern that must be found
    how: How = "run"
    status: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    submits: int = 0  # jobs that Slurm is given, an array being one


NOWHERE = {"IMAGENET_DIR": "/nowhere"}
INFOMIN = "python launch/transfer.py --config coco_R_50_FPN_1x_infomin"
PRETRAIN = "python launch/pretrain.py --epochs 200 --norm eman"
PUBLISHED = (
    r"90000 iterations of 16 images \(2 on each of 8 processes.*, lr 0.02, steps 60000, 80000"
)

ROWS = (
    Row("make browser", how="make"),
    Row("make demo", "launch/demo.py", how="make"),
    Row("make proof", "launch/proof.py", how="make"),
    Row("make format", how="make"),
    Row("make setup", how="make"),
    Row("make slurm", how="make"),
    Row("make slurm-trial", how="make"),
    Row("make test", "-m pytest", how="make"),
    Row("make test DETECTRON2=/path/to/checkout", "-m pytest", how="make"),
    Row("make test-slurm", "-m pytest tests/slurm", how="make"),
    Row("python -m pytest -q tests/docs/test_pages.py", how="file"),
    Row("tail -f runs/pretrain/NAME/log.txt", how="file"),
    # Pre-training
    Row(PRETRAIN, submits=1),
    Row(f"{PRETRAIN} --nodes 8 --gpus-per-node 8", submits=1),
    Row(
        f"{PRETRAIN} --nodes 4 --gpus-per-node 8 --partition gpu --account vision "
        "--slurm reservation=x",
        submits=1,
    ),
    Row(
        f"{PRETRAIN} --then coco_R_50_FPN_1x_infomin coco_R_50_C4_1x_infomin",
        "weights: of .*, once it is finished",
        submits=2,
    ),
    Row("python launch/pretrain.py --method moco_v2", submits=1),
    Row(
        "python launch/pretrain.py --data /path/to/images --method lewel_m --backbone resnet18 "
        "--image-size 64 --blur-sigma 0.57 --proj-dim 64 --hidden-dim 512 --queue-size 1024 "
        "--base-momentum 0.99 --lr 0.1 --batch-size 32 --epochs 65 --warmup-epochs 1 --knn-every 0",
        "--data /path/to/images: no such folder",
        status=2,
    ),
    Row(
        "python -m benchmarks.knn --weights none runs/pretrain/NAME/checkpoint.pth.tar "
        "--data /path/to/images --backbone resnet18 --image-size 64 --folds 5",
        how="help",
    ),
    Row("python launch/pretrain.py --list-recipes", "LEWEL's release script"),
    Row(f"{PRETRAIN} --plan", r"83.9 GFLOP(.*\n)*.*14.0 GiB(.*\n)*.*A100"),
    Row(
        "python launch/pretrain.py --data /path/to/images --epochs 100",
        "--data /path/to/images: no such folder",
        status=2,
    ),
    Row(
        "torchrun --nproc-per-node 8 launch/pretrain.py --epochs 200 --norm eman",
        "IMAGENET_DIR /nowhere: no such folder",
        how="torchrun",
        status=2,
        variables=NOWHERE,
    ),
    Row("python -m tests.slurm.kill_and_resume --processes 4", how="help"),
    # Evaluation
    Row(
        "python launch/linear.py --weights runs/pretrain/NAME/checkpoint.pth.tar",
        r"LEWEL, resnet50.*\n.*training images: 1200 \(all\)",
        submits=1,
    ),
    Row(
        "python launch/semi.py --weights runs/pretrain/NAME/checkpoint.pth.tar --percent 1",
        r"12 training images of .* \(seeded 1% seed 0\) are fewer than --batch-size 256",
        status=2,  # ImageNet has more
    ),
    Row(
        "python launch/semi.py --weights runs/pretrain/NAME/checkpoint.pth.tar --list 1percent.txt",
        r"12 training images of .* \(list 1percent.txt .*\) are fewer than --batch-size 256",
        status=2,
    ),
    # Transfer
    Row(
        "python launch/transfer.py --config det_configs/coco_R_50_FPN_1x_infomin.yaml",
        rf"{PUBLISHED}(.*\n)*.*\(the newest finished pre-training run\)",
        submits=1,
    ),
    Row(
        "python launch/transfer.py --config det_configs/coco_R_50_FPN_1x_infomin.yaml --lr 2e-4",
        r"lr 0.0002 is under 0.1 times coco_R_50_FPN_1x_infomin's own 0.02",
        submits=1,
    ),
    Row(f"{INFOMIN} --lr 2e-4", "low_lr", submits=1),
    Row(f"{INFOMIN} --lr 0.02 2e-4", PUBLISHED, submits=1),
    Row(f"{INFOMIN} SOLVER.WEIGHT_DECAY 1e-4", PUBLISHED, submits=1),
    Row(f"{INFOMIN} SOLVER.WEIGHT_DECAY 2e-4", PUBLISHED, submits=1),
    Row(f"{INFOMIN} --weights checkpoint.pth.tar", "LEWEL, resnet50", submits=1),
    Row(
        f"{INFOMIN} --gpus-per-node 4 --batch-size 8",
        r"180000 iterations of 8 images \(2 on each of 4 .*, lr 0.01, .*, scaled from the batch",
        submits=1,
    ),
    Row(
        "python launch/transfer.py --config coco_R_50_C4_1x_infomin coco_R_50_FPN_1x_infomin "
        "coco_R_50_FPN_2x_infomin --seeds 3 --array-parallelism 8",
        "coco_R_50_FPN_2x_infomin, seed 2: 180000 iterations",
        submits=1,
    ),
    Row(
        "python launch/transfer.py --config pascal_voc_R_50_C4_24k_infomin --seeds 5",
        "seed 4: 24000 iterations",
        submits=1,
    ),
    Row(
        f"{INFOMIN} --eval-only --weights runs/transfer/NAME/model_final.pth",
        "evaluation of .*model_final.pth",
        submits=1,
    ),
    Row(
        f"{INFOMIN} --dataset cells_train=cells/train.json:cells/images "
        "cells_val=cells/val.json:cells/images",
        "cells_val .{8}; 8 classes",
        submits=1,
    ),
    Row(f"{INFOMIN} --dataset cells_train cells_val", "cells_val .{8}; 8 classes", submits=1),
    Row("python launch/benchmark.py --weights checkpoint.pth.tar --dry-run", "V100 hours"),
    Row("python launch/benchmark.py --weights checkpoint.pth.tar", "linear evaluation", submits=2),
    Row("python launch/benchmark.py --weights runs/pretrain/UNFINISHED", "V100 hours", submits=2),
    Row(
        "python launch/results.py",
        r"finished pre-training(.*\n)*.*NAME(.*\n)*.*UNFINISHED.*pending",
    ),
    Row(
        "python launch/results.py --watch",
        "UNFINISHED",
        variables={"ENDED": "1"},  # Slurm knows no job any more
    ),
    Row("python -m launch.reports runs/pretrain/NAME maps.webp", "written to maps.webp"),
    Row("python launch/report.py", "report.html: 3 runs"),
    # Tools
    Row("python launch/doctor.py", r"coco_2017_val: 10 of 5,000 images(.*\n)*.*infomin: can run"),
    Row("python -m detection.convert checkpoint.pth.tar R-50.pkl", "318 of 318 backbone tensors"),
    Row(
        "python -m detection.convert checkpoint.pth.tar R-50-target.pkl --target", "target network"
    ),
    Row("python -m demo", "demo set .* in"),
    Row(
        "python -m segmentation.train_aug SBD_DIR VOC2012_DIR", "^error: .*SBD_DIR", status=2
    ),
    Row("python -m benchmarks.overfit --task detection", how="help"),
    Row("python tools/install_detectron2.py --source git", how="help"),
    Row("python -m tests.slurm.sandbox start", how="help"),
    Row("python -m tests.slurm.sandbox stop", how="help"),
)  # fmt: skip
