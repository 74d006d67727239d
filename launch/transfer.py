"""Fine-tune and evaluate a detector on pre-trained weights.

``python launch/transfer.py --config det_configs/coco_R_50_FPN_1x_infomin.yaml --lr 2e-4``
"""

import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.distributed import check_divides
from common.errors import UserError, command
from detection.config import LOW_LR, TransferConfig, read_config
from detection.datasets import require_datasets
from detection.evaluation import check_evaluators
from detection.train import transfer
from launch.cluster import device, processes
from launch.jobs import Job
from launch.options import Resources, RunOptions, parse
from launch.submit import launch
from launch.weights import Source, find_weights

OVERRIDE_KEY = re.compile(
    r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|VERSION|VIS_PERIOD|"
    r"CUDNN_BENCHMARK"
)

NAMES = ("--config", "--weights", "--label", "--name", "--output-dir", "--partition")


@dataclass(frozen=True)
class Command:
    """Fine-tune a detector from self-supervised weights and write a row of results/transfer.csv.

    Trailing KEY VALUE pairs override the Detectron2 config, as in Detectron2's own tools.

    Attributes:
        config: A file of det_configs/, or any Detectron2 YAML.
        weights: A checkpoint, Detectron2 weights (.pkl), or "none" for a random start. Default:
            the config's own MODEL.WEIGHTS; where that is a placeholder, the newest finished
            pre-training run.
        lr: SOLVER.BASE_LR, literally; several values make several runs. Default: the config's.
        label: Name of the pre-training method in the results table, where the checkpoint does
            not tell.
        seed: Seed of heads, order and augmentation.
    """

    config: Path
    weights: str | None = None
    lr: Annotated[tuple[float, ...], tyro.conf.arg(metavar="LR [LR ...]")] = ()
    label: str | None = None
    seed: int = 0
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=Resources)


def split_overrides(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Options, and the KEY VALUE pairs that follow them, from the first Detectron2 key on."""
    for position, word in enumerate(words):
        is_value = position > 0 and words[position - 1] in NAMES
        if OVERRIDE_KEY.fullmatch(word) and not is_value:
            return words[:position], tuple(words[position:])
    return words, ()


def run(arguments: list[str] | None = None) -> list[Path]:
    """Check the command line, submit or run the jobs, and return their run folders."""
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments)
    options = parse(Command, "launch/transfer.py", words)
    output_dir = options.run.output_dir.resolve()
    path = str(options.config.resolve())
    source = find_weights(options.weights, path, options.label, output_dir)
    configs = [
        TransferConfig(path, source.weights, lr, options.seed, overrides, device(options.resources))
        for lr in options.lr or (None,)
    ]
    _check(configs, source, options)
    jobs = [
        Job(
            transfer,
            config,
            options.run.folder("transfer", config.run_name()),
            output_dir,
            config.detectron2().SOLVER.MAX_ITER,
        )
        for config in configs
    ]
    source.write()
    print(source.description, flush=True)
    launch(jobs, options.resources, options.run.fresh)
    return [job.folder for job in jobs]


def _check(configs: list[TransferConfig], source: Source, options: Command) -> None:
    """Everything that can be wrong before a job starts."""
    if options.run.name and len(configs) > 1:
        raise UserError(
            f"--name {options.run.name} is one folder, but --lr has {len(configs)} "
            "values; leave one of them out."
        )
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be at least 0.")
    count = processes(options.resources)
    for config in configs:
        cfg = config.detectron2()
        source.check_fits(cfg)
        require_datasets(cfg)
        check_evaluators(cfg)
        if not 0 < cfg.SOLVER.BASE_LR < math.inf:
            raise UserError(f"--lr {cfg.SOLVER.BASE_LR:g}: must be more than 0.")
        check_divides("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, count)
        if config.low_lr():
            own = read_config(config.config).SOLVER.BASE_LR
            print(
                f"warning: lr {cfg.SOLVER.BASE_LR:g} is under {LOW_LR:g} times "
                f"{config.config_name}'s own {own:g}; the run goes on with it and its row is "
                "marked low_lr (README, 'The learning rate 2e-4')",
                flush=True,
            )


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
