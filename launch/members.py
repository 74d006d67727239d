"""The runs of a transfer command: what each is told, where it starts from, and its job."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detection.config import TransferConfig
from detection.evaluation import kind_of
from launch.awaited import Awaited, start_awaited, waiting_folder
from launch.cluster.jobs import Job
from launch.options import RunOptions
from launch.weights import Source, find_weights
from segmentation.train import transfer


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        config: what the job is told.
        source: the weights that it starts from.
        label: ``--label``.
    """

    config: TransferConfig
    source: Source
    label: str | None = None

    def job(self, run: RunOptions) -> Job:
        """The run as a job; if its weights are yet to come, one that waits for them."""
        cfg = self.config.detectron2()
        kind, name = kind_of(cfg).job, self.config.run_name()
        steps = 0 if self.config.eval_only else cfg.SOLVER.MAX_ITER
        output_dir, folder = run.output_dir.resolve(), run.folder(kind, name)
        if self.source.awaited is None:
            return Job(transfer, self.config, folder, output_dir, steps)
        checkpoint = str(self.source.awaited.checkpoint)
        run = replace(run, output_dir=output_dir)
        waiting = AwaitedTransfer(self.config.config, self.config, checkpoint, self.label, run)
        folder = waiting_folder(run, kind, name)
        return Job(start_awaited, waiting, folder, output_dir, steps)


@dataclass(frozen=True)
class AwaitedTransfer(Awaited):
    """A transfer whose weights are yet to come.

    Attributes:
        config: path of the Detectron2 YAML.
        transfer: what the job will be told, but for that path and the weights.
        checkpoint: the weights.
        label: ``--label``.
        run: where its folder will be.
    """

    config: str
    transfer: TransferConfig
    checkpoint: str
    label: str | None
    run: RunOptions

    def identity(self) -> dict[str, Any]:
        """The run's, with a placeholder for the weights."""
        return replace(self.transfer, config=self.config).identity()

    def prepare(self) -> Job:
        """The run, from weights that are there; converts them."""
        source = find_weights(self.checkpoint, self.config, self.label, self.run.output_dir)
        config = replace(self.transfer, config=self.config, weights=source.weights)
        source.check_fits(config.detectron2())
        source.write()
        return Member(config, source, self.label).job(self.run)


def located(config: Path, folder: Path) -> Path:
    """The absolute path of a config, which may be the bare name of one of ``folder``.

    What is typed as ``det_configs/NAME`` is found from any working folder.
    """
    ours = folder / f"{config.name.removesuffix('.yaml')}.yaml"
    bare = str(config.parent) in (".", folder.name)
    return (ours if bare and not os.path.exists(config) and ours.exists() else config).resolve()
