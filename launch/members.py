"""The runs of a transfer command: what each is told, where it starts from, and its job."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import detection.train
import segmentation.train
from common import runs
from common.errors import UserError
from detection.coco import require_usable
from detection.config import LOW_LR, TransferConfig
from detection.evaluation import DETECTION, kind_of
from detection.schedule import steps_of
from launch.awaited import Awaited, start_awaited, waiting_folder
from launch.cluster.jobs import Job
from launch.options import RunOptions
from launch.weights import Source, find_weights
from segmentation.evaluation import SEGMENTATION

ENTRIES = {DETECTION: detection.train.transfer, SEGMENTATION: segmentation.train.transfer}


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
        kind, name = kind_of(cfg, ENTRIES), self.config.run_name()
        steps = 0 if self.config.eval_only else cfg.SOLVER.MAX_ITER
        output_dir, folder = run.output_dir.resolve(), run.folder(kind.job, name)
        if self.source.awaited is None:
            return Job(ENTRIES[kind], self.config, folder, output_dir, steps)
        checkpoint = str(self.source.awaited.checkpoint)
        run = replace(run, output_dir=output_dir)
        waiting = AwaitedTransfer(self.config.config, self.config, checkpoint, self.label, run)
        folder = waiting_folder(run, kind.job, name)
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


def check_apart(members: Sequence[Member], run: RunOptions) -> None:
    """Raise if two different runs would be one folder, as those of YAMLs of one name would."""
    jobs: dict[Path, Job] = {}
    for member in members:
        job = member.job(run)
        one, other = jobs.setdefault(job.folder, job).config.identity(), job.config.identity()
        differing = [
            f"{name} ({one[name]} and {other[name]})" for name in one if one[name] != other[name]
        ]
        if differing:
            raise UserError(
                f"two of these runs would both be {job.folder}, though they differ in "
                f"{', '.join(differing)}; give one a YAML of another name, or start it by itself "
                "with a --name."
            )


def check(member: Member, count: int) -> list[str]:
    """One run, in ``count`` processes; prints what it will do where that is not plain.

    Returns:
        What was repaired in its datasets or left out of them.
    """
    config = member.config
    cfg = config.detectron2()
    solver = cfg.SOLVER
    member.source.check_fits(cfg)
    repairs = require_usable(cfg)
    kind = kind_of(cfg, ENTRIES)
    if config.eval_only:
        print(f"{config.config_name}: evaluation of {config.weights.path}", flush=True)
        return repairs
    kind.mapper(cfg)  # it refuses what it cannot do
    if not 0 < solver.BASE_LR < math.inf:
        raise UserError(f"--lr {solver.BASE_LR:g}: must be more than 0.")
    key = "--batch-size" if config.batch_size else "SOLVER.IMS_PER_BATCH"
    runs.check_divides(key, solver.IMS_PER_BATCH, count)
    print(
        f"{config.config_name}, seed {config.seed}: {solver.MAX_ITER} iterations of "
        f"{solver.IMS_PER_BATCH} images ({solver.IMS_PER_BATCH // count} on each of {count} "
        f"processes, {solver.IMS_PER_BATCH} in a synchronised BatchNorm), lr {solver.BASE_LR:g}, "
        f"steps {steps_of(solver)}"
        f"{', scaled from the batch of the config' * config.scaled()}",
        flush=True,
    )
    if config.low_lr():
        print(
            f"warning: lr {solver.BASE_LR:g} is under {LOW_LR:g} times "
            f"{config.config_name}'s own {config.own_lr():g}; the run goes on with it and its row "
            "is marked low_lr (README, 'The learning rate 2e-4')",
            flush=True,
        )
    return repairs


def warn_of_other_methods(members: Sequence[Member], run: RunOptions) -> None:
    """Say where a finished run's row names another method than its command does now."""
    for member in members:
        folder, method = member.job(run).folder, member.config.weights.method
        try:
            found = json.loads((folder / runs.FINAL).read_text())["method"]
        except (OSError, ValueError, KeyError, TypeError):  # not finished, or results.py names it
            continue
        if found != method:
            print(
                f"warning: the row of {folder} says {found}, not {method}; change its method in "
                f"{runs.FINAL} there if that is wrong, and start launch/results.py",
                flush=True,
            )


def located(config: Path, folder: Path) -> Path:
    """The absolute path of a config, which may be the bare name of one of ``folder``.

    What is typed as ``det_configs/NAME`` is found from any working folder.
    """
    ours = folder / f"{config.name.removesuffix('.yaml')}.yaml"
    bare = str(config.parent) in (".", folder.name)
    return (ours if bare and not os.path.exists(config) and ours.exists() else config).resolve()
