"""Log lines: the main process to the terminal and ``log.txt``, the others to files of their own."""

import logging
import sys
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm as keep_bar_below

__all__ = ["keep_bar_below", "setup_logging"]

FORMAT = "[%(asctime)s] %(levelname)s %(name)s: %(message)s"


def setup_logging(folder: Path, rank: int) -> None:
    """Send the log of this process to its file in ``folder``; rank 0 also to stdout."""
    handlers: list[logging.Handler] = [
        logging.FileHandler(folder / ("log.txt" if rank == 0 else f"log_rank{rank}.txt"))
    ]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    logging.basicConfig(
        level=logging.INFO, format=FORMAT, datefmt="%m-%d %H:%M:%S", handlers=handlers, force=True
    )
    logging.captureWarnings(True)
