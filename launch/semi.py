"""Semi-supervised evaluation: ``python launch/semi.py --percent 1``."""

import sys
from pathlib import Path

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import command
from launch import classify


def run(arguments: list[str] | None = None) -> Path:
    """Check the command line, submit or run the job, and return its run folder."""
    return classify.run(classify.Semi, "launch/semi.py", arguments)


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
