"""The runs that a report is about: finished, and not finished yet."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common import runs
from common.errors import UserError
from common.metrics import read_lines
from launch.slurm.states import Record
from launch.slurm.unfinished import KINDS, unfinished

FINISHED = "finished"


@dataclass(frozen=True)
class Run:
    """A run folder."""

    number: int  # in the report, from 1
    kind: str
    folder: Path
    metrics: dict[str, Any]  # of metrics.json; empty unless finished
    state: str = FINISHED
    progress: str = ""  # in steps, of an unfinished run

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; none if it is something else."""
        try:
            found = read_lines(self.folder / "metrics.jsonl")
        except (OSError, UnicodeDecodeError):
            return []
        return [row for row in found if isinstance(row, dict)]

    @cached_property
    def config(self) -> str:
        """The resolved configuration, as JSON or as Detectron2's YAML; "" if there is none."""
        for name in ("config.json", "config.yaml"):
            try:
                return (self.folder / name).read_text()
            except (OSError, UnicodeDecodeError):
                continue
        return ""

    @property
    def title(self) -> str:
        """A run's name for people; the folder's while it is not known."""
        known = self.metrics
        if not known:
            return self.folder.name
        ours = self.kind == "pretrain"
        epochs = known.get("epochs" if ours else "pretrain_epochs")
        words = [known.get(k) for k in ("config", "title" if ours else "method", "norm")]
        words += [f"{epochs} epochs" if epochs else ""]
        words += [
            f"{k} {known[k]:g}" for k in ("lr", "seed") if isinstance(known.get(k), int | float)
        ]
        return ", ".join(str(word) for word in words if word)

    def provenance(self) -> dict[str, str]:
        """The origin of the run, its scores and configuration aside."""
        record = Record.read(self.folder)
        shown = {k: v for k, v in self.metrics.items() if _is_recipe(k) and v not in (None, "")}
        return {
            "folder": str(self.folder),
            **({"command": record.command} if record is not None else {}),
            **{name: str(value) for name, value in shown.items()},
        }


def collect(output_dir: Path) -> tuple[list[Run], list[str]]:
    """All runs, kind by kind, the finished ones first and the oldest first; and what was left out.

    UserError if there is none.
    """
    with _warnings() as left_out:
        found = [
            (kind, folder, metrics, FINISHED, "")
            for kind in KINDS
            for folder, metrics in runs.finished_runs(output_dir, kind)
        ]
        for one in unfinished(output_dir):
            folder = runs.run_folder(output_dir, one.kind, one.name)
            found.append((one.kind, folder, {}, one.state, one.progress))
    if not found:
        others = f" ({left_out[0]})" if left_out else ""
        raise UserError(
            f"no run in {output_dir.resolve() / 'runs'}{others}; start one with launch/pretrain.py "
            "or launch/transfer.py, or give --output-dir."
        )
    found.sort(key=lambda run: KINDS.index(run[0]))
    return [Run(number, *run) for number, run in enumerate(found, 1)], left_out


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings about folders that are no runs, in the place of the terminal."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    runs.log.addHandler(handler)
    before, runs.log.propagate = runs.log.propagate, False
    try:
        yield told
    finally:
        runs.log.removeHandler(handler)
        runs.log.propagate = before


def _is_recipe(name: str) -> bool:
    """True for keys of metrics.json that are not scores."""
    return not name.startswith(("box_", "mask_", "IoU-")) and name not in (
        *("mIoU", "fwIoU", "mACC", "pACC", "top1", "top1_low", "top1_high", "top5", "loss"),
        *("best_knn", "kind"),
    )
