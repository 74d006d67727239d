"""Write one page about all runs, to read or to send: ``python launch/report.py``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import UserError, command, option
from common.files import atomic_write, check_output
from launch.options import parse

LEAST = {"newest": 0, "pictures": 0, "map_size": 64}


@dataclass(frozen=True)
class Command:
    """Write results/report.html, one file that needs no network.

    It has the results beside published figures, learning curves, scores of classes, kinds of
    errors, predictions beside the ground truth, alignment maps, and the recipe and provenance of
    each run. The tables are also written as summary.md and summary.tex. Pictures and errors need
    the test sets, under DETECTRON2_DATASETS.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
        output: The page to write. Default: results/report.html.
        newest: Runs with more than their rows in tables, the newest. It is curves, scores of
            classes, predictions, errors and alignment maps.
        pictures: Images of each test set.
        map_images: Images to compute alignment maps of. Default: some validation images of each
            pre-training run.
        map_size: Side in pixels at which alignment maps are computed. There is one position for
            each 32 pixels.
    """

    output_dir: Path = Path()
    output: Path | None = None
    newest: int = 20
    pictures: int = 4
    map_images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")] = ()
    map_size: int = 256


def write(options: Command) -> Path:
    """Write the page and the tables, and return the page's path."""
    for name, least in LEAST.items():
        if getattr(options, name) < least:
            raise UserError(f"{option(name)} {getattr(options, name)}: must be at least {least}.")
    results = options.output_dir / "results"
    path = options.output or results / "report.html"
    check_output(path)
    from launch.reports.collect import collect

    runs, left_out = collect(options.output_dir)
    from launch.reports.alignment import read_images
    from launch.reports.page import render
    from launch.tables.summary import latex, markdown, summarise
    from launch.tables.tables import TABLES, read, rebuild

    map_images = read_images(options.map_images)
    rebuild(options.output_dir)
    frames = {kind: read(options.output_dir, kind) for kind in TABLES}
    frames = {kind: frame for kind, frame in frames.items() if len(frame)}
    page = render(
        runs,
        frames,
        left_out,
        folder=options.output_dir.resolve(),
        newest=options.newest,
        pictures=options.pictures,
        map_images=map_images,
        map_size=options.map_size,
    )
    summaries = {kind: summarise(kind, frame) for kind, frame in frames.items()}
    for name, form in (("summary.md", markdown), ("summary.tex", latex)):
        if summaries:
            with atomic_write(results / name, "w") as file:
                file.write("\n".join(form(kind, found) for kind, found in summaries.items()))
    with atomic_write(path, "w") as file:
        file.write(page)
    print(f"{path}: {len(runs)} runs, {path.stat().st_size / 1e6:.1f} MB")
    return path


@command
def main() -> None:
    """The console command."""
    write(parse(Command, "launch/report.py"))


if __name__ == "__main__":
    main()
