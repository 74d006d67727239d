"""``python -m demo [ROOT]``: draw the embedded data set, and say where it is and what is in it."""

import argparse
from pathlib import Path

from common.errors import UserError, command
from demo.datasets import default_root, ensure, manifest, write


@command
def main() -> None:
    """Draw the set if need be, and print its folder and counts."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "root",
        nargs="?",
        type=Path,
        help="the set's own folder; default: LEWEL_DEMO_DIR, or data/demo here",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="draw anew with this seed; default: keep a set that is there, or draw with seed 0",
    )
    arguments = parser.parse_args()
    if arguments.seed is None:
        root = ensure(arguments.root)
    elif arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: a seed is not negative; give 0 or more.")
    else:
        root = write(arguments.root or default_root(), arguments.seed)
    found = manifest(root) or {}
    print(f"demo set (seed {found.get('seed')}) in {root}")
    print(f"  {len(found['classes'])} classes: {', '.join(found['classes'])}")
    for name, count in found["counts"].items():
        each = " a class" if name.startswith("imagenet") else ""
        print(f"  {name}: {count} images{each}")


if __name__ == "__main__":
    main()
