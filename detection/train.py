"""Fine-tuning and evaluation of a detector or any other registered model, top to bottom."""

import dataclasses
import functools
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, SimpleTrainer, hooks
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

from common import checkpoints, distributed, runs
from common.distributed import World
from common.errors import UserError
from common.files import atomic_write, write_json
from common.metrics import rewind
from common.provenance import device_name, git_commit, precision, ran_on
from common.resnets import COUNTER
from common.run_checkpoints import RunCheckpoints
from common.running import Run, running
from detection import compat, convert
from detection.checkpoint import RunCheckpointer, require_backbone
from detection.config import TransferConfig, fit_to_device
from detection.datasets import uses_demo
from detection.evaluation import DETECTION, Kind, evaluate
from detection.hooks import Clock, PeriodicEval, Saving, SharedPreciseBN, Writing
from detection.inspection import usable_datasets
from detection.schedule import build_lr_scheduler, steps_of
from detection.stream import Stream

log = logging.getLogger("detection")

LOG_PERIOD = 20
DATASETS = "datasets.json"  # one's own: names, files and categories


def transfer(config: TransferConfig, folder: Path, kind: Kind = DETECTION) -> dict[str, Any]:
    """Fine-tune a model to its last iteration and evaluate it, resuming what is in the folder.

    Every process of the job calls this with the same arguments.

    Args:
        config: the job.
        folder: the run folder: log, config, checkpoints, metrics.
        kind: of the config's test set: how images are read and what is scored.

    Returns:
        The final metrics, as written to ``metrics.json``; nothing in other processes.

    Raises:
        UserError: if the folder holds another run, a data set is not as it should be, the batch
            does not split over the processes, or the weights do not fit.
    """
    cfg = config.detectron2()
    for dataset in config.datasets:
        dataset.require_unchanged()
    device = "cpu" if cfg.MODEL.DEVICE == "cpu" else config.device
    with (
        running(folder, config.identity(), device) as run,
        compat.process_groups(run.world),
        usable_datasets(cfg, folder),
    ):
        world = run.world
        config = run.settled(config)
        cfg.MODEL.WEIGHTS = distributed.by_main(lambda: _weights_file(config, folder))
        fit_to_device(cfg, world.device.type, world.size)
        cfg.OUTPUT_DIR = str(folder)
        cfg.freeze()
        if not config.eval_only:
            batch = cfg.SOLVER.IMS_PER_BATCH
            runs.check_divides("SOLVER.IMS_PER_BATCH", batch, world.size)
        if world.is_main:
            with atomic_write(folder / "config.yaml", "w") as file:
                file.write(cfg.dump())
            if config.datasets:
                write_json(folder / DATASETS, [dataclasses.asdict(one) for one in config.datasets])
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        about = _about(config, cfg, kind, world)
        measured = (_only_evaluate if config.eval_only else _fit)(config, cfg, kind, run)
        if not world.is_main:
            return {}
        metrics = about | measured | {"restarts": run.attempt.restarts}
        run.finish(metrics)
        log.info("finished: %s", folder / runs.FINAL)
        return metrics


def _weights_file(config: TransferConfig, folder: Path) -> str:
    """The file that Detectron2 loads; a checkpoint is converted, once for all jobs."""
    path = config.weights.path
    if not path or config.eval_only or checkpoints.is_pickle(Path(path)):
        return path
    cache = folder.parent.parent / "weights"
    return str(convert.converted(path, config.weights.sha256, cache))


def _fit(config: TransferConfig, cfg: Any, kind: Kind, run: Run) -> dict[str, Any]:
    folder, world = run.folder, run.world
    seed_all_rng(config.seed + world.rank)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    parallel = compat.data_parallel(model, world)
    mapper = kind.mapper(cfg)
    stream, clock = Stream(cfg, mapper, config.seed), Clock()
    score = functools.partial(evaluate, cfg, kind, parallel, str(folder / "inference"))
    trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
    trainer = trainer_class(parallel, stream, optimizer)
    series = RunCheckpoints(run.attempt, "model", ".pth")
    checkpointer = RunCheckpointer(model, series, trainer=trainer, stream=stream, clock=clock)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)),
            SharedPreciseBN(cfg, parallel, mapper, config.seed)
            if cfg.TEST.PRECISE_BN.ENABLED
            else None,
            PeriodicEval(cfg.TEST.EVAL_PERIOD, score, checkpointer, run.preemption)
            if cfg.TEST.EVAL_PERIOD > 0
            else None,
        ]
    )
    start = stream.start = _load(cfg.MODEL.WEIGHTS, checkpointer, trainer, world)
    if world.is_main:
        rewind(folder / "metrics.jsonl", "iteration", start)
        writers = [
            CommonMetricPrinter(cfg.SOLVER.MAX_ITER),
            JSONWriter(str(folder / "metrics.jsonl")),
            TensorboardXWriter(str(folder / "tensorboard")),
        ]
        trainer.register_hooks([Writing(writers, LOG_PERIOD)])
    trainer.register_hooks([Saving(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, run.preemption)])
    log.info(
        "%s on %s (%s): iterations %d to %d of %d images, lr %g",
        config.config_name,
        device_name(world.device, world.size),
        precision(world.device, _autocast(cfg)),
        start,
        cfg.SOLVER.MAX_ITER,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.BASE_LR,
    )
    if start < cfg.SOLVER.MAX_ITER:
        _train(trainer, start, cfg, run)
    if world.is_main:
        checkpointer.finish()
    results = _rounded(score())
    return {**results, "wall_time_s": round(clock.seconds, 1), **stream.state_dict()}


def _load(weights: str, checkpointer: RunCheckpointer, trainer: SimpleTrainer, world: World) -> int:
    """Load the folder's newest checkpoint, or else the weights; the iteration to start at."""
    if checkpointer.resume(world):
        return int(trainer.iter) + 1
    checkpointer.load(weights, checkpointables=[])
    if weights:
        require_backbone(checkpointer, weights)
    else:
        log.info("random initialisation")
    return 0


def _train(trainer: SimpleTrainer, start: int, cfg: Any, run: Run) -> None:
    try:
        with run.preemption.deferred():
            trainer.train(start, cfg.SOLVER.MAX_ITER)
    except FloatingPointError as error:  # Detectron2's, in the main process only
        raise UserError(
            f"the loss is infinite or NaN at iteration {trainer.iter} with lr "
            f"{cfg.SOLVER.BASE_LR:g}; the last checkpoint in {run.folder} is from before; try a "
            "lower --lr."
        ) from error


def _only_evaluate(config: TransferConfig, cfg: Any, kind: Kind, run: Run) -> dict[str, Any]:
    """Evaluate a trained model, every tensor of which must be in the weights."""
    started = time.monotonic()
    model = build_model(cfg)
    checkpointer = RunCheckpointer(model)
    checkpointer.load(cfg.MODEL.WEIGHTS, checkpointables=[])
    missing = [k for k in checkpointer.missing if not k.endswith(COUNTER)]
    if missing:
        raise UserError(
            f"{config.weights.path} lacks {len(missing)} tensors of {config.config_name}, such as "
            f"{missing[0]}; is it a detector of this config?"
        )
    parallel = compat.data_parallel(model, run.world)
    results = evaluate(cfg, kind, parallel, str(run.folder / "inference"))
    # What trained it is not in this config.
    unknown = ("lr", "low_lr", "batch_size", "batch_per_process", "scaled", "steps")
    return {
        **_rounded(results),
        **dict.fromkeys((*unknown, "warmup_iterations")),
        "iterations": 0,
        "wall_time_s": round(time.monotonic() - started, 1),
    }


def _about(config: TransferConfig, cfg: Any, kind: Kind, world: World) -> dict[str, Any]:
    """The columns of the run's row, without its results."""
    weights = config.weights
    return {
        "kind": kind.job,
        "config": config.config_name,
        "config_hash": config.config_hash,
        "dataset": cfg.DATASETS.TEST[0],
        "own_data": ", ".join(map(str, config.datasets)) or None,
        "classes": MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes"),
        "method": weights.method,
        "norm": weights.norm,
        "pretrain_epochs": weights.epochs,
        "pretrain_recipe": weights.recipe or None,
        "lr": cfg.SOLVER.BASE_LR,
        "low_lr": config.low_lr,
        "batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "batch_per_process": cfg.SOLVER.IMS_PER_BATCH // world.size,
        "scaled": config.scaled,
        "eval_only": config.eval_only,
        "seed": config.seed,
        "iterations": cfg.SOLVER.MAX_ITER,
        "steps": steps_of(cfg.SOLVER),
        "warmup_iterations": cfg.SOLVER.WARMUP_ITERS,
        "weights_sha256": weights.sha256,
        "overrides": " ".join(config.overrides),
        "demo": uses_demo(cfg),
        **ran_on(world.device, world.size, _autocast(cfg)),
        "git_commit": git_commit(),  # of the code that runs, whatever is checked out later
    }


def _autocast(cfg: Any) -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if cfg.SOLVER.AMP.ENABLED else None


def _rounded(results: dict[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(value) else round(value, 4) for k, value in results.items()}
