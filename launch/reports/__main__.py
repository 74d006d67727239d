"""Alignment maps as a picture: ``python -m launch.reports RUN_FOLDER OUT.webp [IMAGE ...]``."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from common.command_line import parse
from common.errors import UserError, command
from common.files import atomic_write, check_output

FORMATS = (".webp", ".png")


def draw(
    run: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    size: int = 256,
) -> None:
    """Draw the alignment maps of a pre-training run of LEWEL, of each checkpoint that it has.

    Args:
        run: The run folder, such as runs/pretrain/NAME.
        output: The picture to write, .webp or .png.
        images: Images to draw them of. Default: some validation images of the run.
        size: Side in pixels at which the maps are computed.
    """
    if output.suffix not in FORMATS:
        raise UserError(f"{output} is no name of a picture; give one in {' or '.join(FORMATS)}.")
    check_output(output)
    try:
        config = json.loads((run / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is not the folder of a pre-training run: {error}.") from error
    from launch.reports import alignment

    pictures = alignment.read_images(images) or alignment.default_images(config)
    found = alignment.stages(run, pictures, size)
    if not found:
        raise UserError(f"{run} is of a method without alignment maps; give a run of LEWEL.")
    with atomic_write(output) as file:
        alignment.draw(pictures, found, size, inches=1.6).save(file, output.suffix[1:])
    print(f"written to {output}")


@command
def main(arguments: list[str] | None = None) -> None:
    """The console command."""
    parse(draw, "python -m launch.reports", arguments)


if __name__ == "__main__":
    main()
