"""The cost of a pre-training: a table before it is submitted, and a limit of memory."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from common import runs
from common.errors import UserError
from launch.console import print_table
from launch.slurm.resources import SLURM_GPUS, Resources, check_numbers, resolve_cluster
from pretrain.config import PretrainConfig, ResolvedConfig
from pretrain.data.locate import DEMO, check_enough, open_images

if TYPE_CHECKING:
    from pretrain.plan import Cost

CARDS_GB = (16.0, 32.0, 40.0, 80.0, 141.0)
NEAR, TOO_MUCH = 0.9, 1.15  # of a GPU's memory; the count is no measurement
KEPT = 2  # checkpoints
IMAGENET = 1_281_167  # training images


def show(options: PretrainConfig, resources: Resources) -> None:
    """Print what a run would cost on GPUs, which need not be here."""
    processes = _processes(options, resources)
    nowhere = options.data is None and not os.environ.get("IMAGENET_DIR")
    config = (replace(options, data=DEMO) if nowhere else options).resolve()
    runs.check_divides("--batch-size", config.batch_size, processes)
    images = IMAGENET if nowhere else len(open_images(config.data))
    check_enough(images, config.data, config.batch_size)
    steps = config.epochs * (images // config.batch_size)
    from pretrain.plan import count

    cost = count(config, processes)
    _print_counts(cost, config, processes, f"{images} images{' of ImageNet' * nowhere}")
    _print_memory(cost, resources.gpu_memory_gb)
    _print_hours(cost, config, processes, steps)
    if resources.gpu_memory_gb:
        check(cost, resources.gpu_memory_gb)


def check(cost: "Cost", limit_gb: float) -> None:
    """Raise a UserError if a GPU needs far more memory than it has; near that, say so."""
    needed = _gib(cost.memory)
    if needed > TOO_MUCH * limit_gb:
        raise UserError(
            f"{cost.images} images a GPU need about {needed:.1f} GiB, and --gpu-memory-gb is "
            f"{limit_gb:g}; use more GPUs or a smaller --batch-size."
        )
    if needed > NEAR * limit_gb:
        print(
            f"note: {cost.images} images a GPU need about {needed:.1f} GiB, which is near "
            f"--gpu-memory-gb {limit_gb:g}",
            flush=True,
        )


def _processes(options: PretrainConfig, resources: Resources) -> int:
    check_numbers(resources)
    gpus = resources.gpus_per_node
    if gpus == 0 or options.device == "cpu":
        typed = "--gpus-per-node 0" if gpus == 0 else "--device cpu"
        raise UserError(f"--plan counts what a job on GPUs needs; leave out {typed}.")
    if gpus is None:
        import torch

        on_slurm = resolve_cluster(Resources(resources.cluster)) == "slurm"
        gpus = SLURM_GPUS if on_slurm else torch.cuda.device_count() or SLURM_GPUS
    return resources.nodes * (resources.tasks_per_node or gpus)


def _print_counts(cost: "Cost", config: ResolvedConfig, processes: int, images: str) -> None:
    parts = [f"{_gib(cost.live):.2f} of tensors"]
    parts += [f"{_gib(cost.gathered):.2f} gathered images"] * (cost.gathered > 0)
    parts += ["1.5 context and fragmentation"]
    summed = f"{cost.reduced / 1e6:.0f} MB of gradients" if processes > 1 else "nothing"
    step = cost.flops * processes / 1e12
    rows = [
        ("training", f"{config.epochs} epochs of {images}"),
        ("batch", f"{config.batch_size}, {cost.images} on each of {processes} GPUs"),
        ("parameters", f"{cost.parameters / 1e6:.1f} M, {cost.trained / 1e6:.1f} M trained"),
        ("a sample", f"{cost.flops / cost.images / 1e9:.1f} GFLOP"),
        ("a step", f"{step:.1f} TFLOP, {step / processes:.1f} on each GPU"),
        ("memory of a GPU", f"{_gib(cost.memory):.1f} GiB: {', '.join(parts)}"),
        ("all-reduced a step", summed),
        ("checkpoints", f"{KEPT} of {cost.checkpoint / 1e9:.2f} GB, and one being written"),
    ]
    caption = (
        "counted on tensors without data, as one process; without the statistics, buffers and "
        "embeddings that processes exchange"
    )
    title = f"{config.method} {config.norm}, {config.backbone} at {config.image_size} px"
    print_table(title, ("what", "count"), rows, caption)


def _print_memory(cost: "Cost", limit_gb: float | None) -> None:
    rows = []
    for card in sorted({*CARDS_GB, *([limit_gb] if limit_gb else [])}):
        share = _gib(cost.memory) / card
        fits = "fits" if share <= NEAR else "close" if share <= TOO_MUCH else "too much"
        rows.append((f"{card:g} GB", f"{share:.0%}", fits))
    print_table("memory", ("GPU", "used", "verdict"), rows)


def _print_hours(cost: "Cost", config: ResolvedConfig, processes: int, steps: int) -> None:
    from pretrain.plan import SPEEDS, speed

    rows = []
    for gpu in SPEEDS:
        found = speed(cost, config, steps, gpu)
        ranges = ["?"] * 4  # nothing was published
        if found is not None:
            least, most = found.hours
            of_gpus = least * processes, most * processes
            ranges = [_range(*r) for r in (found.hours, of_gpus, found.samples, found.cores)]
        rows.append((gpu, *ranges))
    columns = ("GPU", "hours", "GPU hours", "samples/s a GPU", "loader cores a GPU")
    caption = (
        "from the speed of NVIDIA's ResNet-50 down to the share of it that LEWEL's published run "
        "had; without waits for data and between nodes"
    )
    print_table(f"{steps} steps", columns, rows, caption)


def _gib(size: int) -> float:
    return size / 2**30


def _range(least: float, most: float) -> str:
    digits = 0 if least >= 10 or isinstance(least, int) else 1
    return f"{least:.{digits}f} to {most:.{digits}f}"
