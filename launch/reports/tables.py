"""Tables of the page: of the summary, of the runs, of classes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from launch.reports.collect import Run
from launch.reports.predictions import per_class
from launch.tables.summary import is_numeric, split_shared, texts

# Columns of a run's row before its scores, and behind them; the CSV has all.
FIRST = "config own_data method norm pretrain_epochs percent lr backbone_lr head_lr seed".split()
LAST = (
    "low_lr batch_size iterations epochs image_size overrides eval_only demo pretrain_recipe "
    "restarts wall_time_s"
).split()
PRETRAINED = (
    "title norm backbone epochs lr seed loss best_knn batch_size weight_decay image_size demo "
    "unreadable_images restarts wall_time_s"
).split()
SCORES = (
    "box_",
    "mask_",
    "mIoU",
    "fwIoU",
    "mACC",
    "pACC",
    "top1",
    "top5",
    "seeds",
    "published",
    "difference",
)


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    href: str = ""
    share: float | None = None  # of a hundred: how dark its ground is


class Table(NamedTuple):
    """A table that can be sorted by its columns."""

    columns: list[tuple[str, bool]]  # names, and whether they are of numbers
    rows: list[list[Cell]]
    caption: str = ""


def summary(frame: pd.DataFrame) -> Table:
    """The experiments of a kind; what all share stands in the caption."""
    shown, shared = split_shared(texts(frame))
    return _table(shown[_ordered(shown)], shared)


def of_runs(frame: pd.DataFrame, runs: Sequence[Run]) -> Table:
    """The runs of a kind with their scores, as in the CSV; numbers lead to what is known of one.

    ``frame`` has their rows in the same order.
    """
    wanted = [n for n in _ordered(frame) if n in (*FIRST, *LAST) or n.startswith(SCORES)]
    return _of_runs(frame[wanted], runs)


def _ordered(frame: pd.DataFrame) -> list[str]:
    """Columns: what tells rows apart, scores, the rest."""
    first = [name for name in FIRST if name in frame]
    scores = [name for name in frame if name.startswith(SCORES)]
    last = [name for name in LAST if name in frame]
    return first + scores + last + [n for n in frame if n not in {*first, *scores, *last}]


def _of_runs(frame: pd.DataFrame, runs: Sequence[Run]) -> Table:
    shown = frame.dropna(axis=1, how="all").map(lambda v: "" if pd.isna(v) else str(v))
    shown = shown.loc[:, (shown != "").any()]
    shown, shared = split_shared(shown)
    table = _table(shown, shared)
    rows = [[_link(run), *row] for run, row in zip(runs, table.rows, strict=True)]
    return Table([("run", True), *table.columns], rows, table.caption)


def of_pretraining(runs: Sequence[Run]) -> Table:
    """Finished pre-training runs: what was chosen, the last epoch's loss, the best kNN."""
    frame = pd.DataFrame([run.metrics for run in runs]).reindex(columns=PRETRAINED)
    frame["loss"], frame["best_knn"] = frame["loss"].round(4), frame["best_knn"].round(2)
    return _of_runs(frame, runs)


def of_classes(runs: Iterable[Run], score: str) -> Table | None:
    """A score of each class, a column for each run; None where no run has kept any."""
    columns = [(run, per_class(run).get(score)) for run in runs]
    kept = [(run, scores) for run, scores in columns if scores]
    if not kept:
        return None
    names = list(dict.fromkeys(name for _, scores in kept for name in scores))
    rows = [[Cell(name), *(_shade(scores.get(name)) for _, scores in kept)] for name in names]
    return Table([("class", False), *((f"#{run.number}", True) for run, _ in kept)], rows)


def _table(shown: pd.DataFrame, shared: dict[str, str]) -> Table:
    caption = ", ".join(f"{name} {value}" for name, value in shared.items() if value)
    columns = [(name, is_numeric(shown[name])) for name in shown]
    rows = [[Cell(text) for text in row] for row in shown.itertuples(index=False)]
    return Table(columns, rows, caption and f"All: {caption}")


def _link(run: Run) -> Cell:
    return Cell(f"#{run.number}", f"#run-{run.number}")


def _shade(value: Any) -> Cell:
    return Cell("" if value is None else f"{value:.1f}", share=value)


def of_errors(rows: Iterable[tuple[Run, dict[str, float]]], kinds: dict[str, str]) -> Table:
    """Kinds of errors of several runs, in points of AP50."""
    return Table(
        [("run", True), *((name, True) for name in kinds.values())],
        [[_link(run), *(Cell(f"{of[k]:.1f}", share=of[k]) for k in kinds)] for run, of in rows],
    )
