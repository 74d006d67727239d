"""Check what a job needs, and name what is missing: ``python launch/doctor.py``."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  this is for older ones
    sys.exit("missing  Python: 3.11 to 3.13 is needed\n         to mend it: make setup")
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import UserError, command
from launch.checks.check import Check
from launch.checks.software import detectron2, pytorch, software

MAIN = "coco_R_50_FPN_1x_infomin"  # what LEWEL reports
OTHERS = (MAIN, "pascal_voc_R_50_C4_24k_infomin", "pascal_voc_R_50_FCN_D8_20k")  # all data sets


@dataclass(frozen=True)
class Command:
    """Look for what a job needs: software, GPUs, disk, Slurm and data sets.

    Each thing that is missing has the command that mends it. The exit status is 0 if the job can
    run here, and 1 if something of it is missing; other things are named but do not decide.
    The job is a pre-training on ImageNet, and a transfer of it by --config.

    Attributes:
        config: The transfer: a file or name of det_configs/, or any Detectron2 YAML.
        transfer_only: The transfer alone, of a checkpoint that you have.
        data: ImageNet, as for launch/pretrain.py. Default: IMAGENET_DIR.
        output_dir: Folder that is to hold runs/ and results/.
    """

    config: Path = Path(MAIN)
    transfer_only: bool = False
    data: str | None = None
    output_dir: Path = Path()


def run(arguments: list[str] | None = None) -> int:
    """Print the checks as they are made; return the exit status."""
    checks = list(software())
    try:
        from common.command_line import parse
    except ImportError:  # as the checks say
        options = Command()
    else:
        from launch.options import located

        options = parse(Command, "launch/doctor.py", arguments)
        if not located(options.config).is_file():
            raise UserError(f"--config {options.config}: no such file; see det_configs/.")
    shown: list[Check] = []
    for look in (lambda: checks, _frameworks, lambda: _rest(options)):
        if not _stopping(shown):
            for check in look():
                same = bool(shown) and check.mend == shown[-1].mend
                print(replace(check, mend="likewise") if same and check.mend else check, flush=True)
                shown.append(check)
    job = f"transfer.py --config {options.config}"
    job = job if options.transfer_only else f"pretrain.py, then {job}"
    missing = _stopping(shown)
    print(f"\n{job}: {f'cannot run without {missing}' if missing else 'can run'}")
    return int(bool(missing))


def _frameworks() -> Iterator[Check]:
    yield pytorch()
    yield detectron2()


def _rest(options: Command) -> Iterator[Check]:
    """The checks that need all of the software."""
    import segmentation  # noqa: F401  its configs name what it registers
    from detection.config import PLACEHOLDER, read
    from detection.datasets import uses_demo
    from launch.checks import datasets, machine, slurm
    from launch.checks.check import attempt
    from launch.options import located

    job = read(located(options.config))
    pretrains = not options.transfer_only and job.cfg.MODEL.WEIGHTS == PLACEHOLDER
    yield machine.gpus(slurm.is_here())
    yield from slurm.slurm()
    if slurm.is_here():
        yield machine.shared("shared runs", options.output_dir)
        yield machine.shared("shared Python", Path(sys.prefix))
    needs = {"pre-training": machine.size_of_pretraining()} if pretrains else {}
    needs[job.name] = machine.size_of_transfer(job.cfg)
    mend = "--output-dir FOLDER that you may write"
    yield attempt("disk", lambda: machine.disk(options.output_dir, needs), mend, needed=True)
    yield from datasets.imagenet(options.data, pretrains and not uses_demo(job.cfg))
    seen: set[str] = set()
    for cfg in (job.cfg, *(read(located(Path(name))).cfg for name in OTHERS)):
        yield from datasets.of_config(cfg, seen, needed=cfg is job.cfg)


def _stopping(checks: list[Check]) -> str:
    return ", ".join(check.name for check in checks if check.stops)


@command
def main() -> int:
    """The console command."""
    return run()


if __name__ == "__main__":
    main()
