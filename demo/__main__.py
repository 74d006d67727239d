"""``python -m demo [ROOT]``: draw the embedded data set, and say where it is and what is in it."""

from pathlib import Path
from typing import Annotated

import tyro

from common.errors import UserError, command
from demo.datasets import default_root, ensure, manifest, write


def draw(
    root: Annotated[Path | None, tyro.conf.Positional] = None, seed: int | None = None
) -> None:
    """Draw the embedded data set if need be, and print its folder and counts.

    Args:
        root: The set's own folder; default: LEWEL_DEMO_DIR, or data/demo here.
        seed: Draw anew with this seed; default: keep a set that is there, or draw with seed 0.
    """
    if seed is not None and seed < 0:
        raise UserError(f"--seed {seed}: a seed is not negative; give 0 or more.")
    root = ensure(root) if seed is None else write(root or default_root(), seed)
    found = manifest(root)
    print(f"demo set (seed {found['seed']}) in {root}")
    print(f"  {len(found['classes'])} classes: {', '.join(found['classes'])}")
    for name, count in found["counts"].items():
        print(f"  {name}: {count} images{' a class' if name.startswith('imagenet') else ''}")


@command
def main() -> None:
    """The console command."""
    tyro.cli(draw, prog="python -m demo")


if __name__ == "__main__":
    main()
