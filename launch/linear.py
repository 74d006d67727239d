"""Linear evaluation: ``python launch/linear.py --weights checkpoint.pth.tar``."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import command
from launch.classify import WeightOptions, start
from launch.options import Resources, RunOptions, parse, resources
from pretrain.evaluation.config import LinearConfig


@dataclass(frozen=True)
class Command:
    """Train a linear classifier of ImageNet on frozen features; a row of results/linear.csv.

    Typed again, the same command resumes the run, or says that it is finished.
    """

    weights: WeightOptions = field(default_factory=WeightOptions)
    config: LinearConfig = field(default_factory=LinearConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)


def run(arguments: list[str] | None = None) -> Path:
    """Check the command line, submit or run the job, and return its run folder."""
    options = parse(Command, "launch/linear.py", arguments)
    return start(options.config, options.weights, options.run, options.resources)


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
