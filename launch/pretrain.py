"""Pre-train LEWEL: ``python launch/pretrain.py --epochs 200 --norm eman``."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find this file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.distributed import check_divides
from common.errors import command
from launch.cluster import device, processes
from launch.jobs import Job
from launch.options import Resources, RunOptions, parse
from launch.submit import launch
from pretrain.config import PretrainConfig
from pretrain.data import steps_per_epoch
from pretrain.train import pretrain


@dataclass(frozen=True)
class Command:
    """Pre-train LEWEL_B on ImageNet with a published recipe, picked by --norm and --epochs.

    Typed again, the same command resumes the run, or says that it is finished.
    """

    config: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=Resources)


def run(arguments: list[str] | None = None) -> Path:
    """Check the command line, submit or run the job, and return its run folder."""
    options = parse(Command, "launch/pretrain.py", arguments)
    config = options.config.resolve()
    if config.device == "auto":
        config = dataclasses.replace(config, device=device(options.resources))
    check_divides("--batch-size", config.batch_size, processes(options.resources))
    steps = config.epochs * steps_per_epoch(config.data, config.batch_size)
    folder = options.run.folder("pretrain", config.run_name())
    job = Job(pretrain, config, folder, options.run.output_dir.resolve(), steps)
    launch([job], options.resources, options.run.fresh)
    return folder


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
