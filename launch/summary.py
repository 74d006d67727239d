"""Tables to read: mean and deviation over seeds, and the published figure beside them."""

import math
from typing import Any

import pandas as pd

from launch import published

# What makes two rows the same experiment but for the seed; those that a table has.
SAME = (
    "config",
    "own_data",
    "method",
    "norm",
    "pretrain_epochs",
    "pretrain_recipe",
    "architecture",
    "percent",
    "subset",
    "image_size",
    "weight_decay",
    "images_train",
    "images_val",
    "demo",
    "lr",
    "low_lr",
    "backbone_lr",
    "head_lr",
    "batch_size",
    "epochs",
    "scaled",
    "eval_only",
    "iterations",
    "overrides",
    "config_hash",
    "weights_sha256",
)
HIDDEN = (
    "pretrain_recipe",
    "overrides",
    "config_hash",
    "weights_sha256",
    "weight_decay",
    "images_val",
)


def summarise(kind: str, frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each experiment of a results table.

    Args:
        kind: of the runs, as in ``runs/<kind>/``.
        frame: the table, one row a run.

    Returns:
        What the rows of an experiment share; ``seeds``, their number; for each figure its mean,
        over several seeds with the sample's standard deviation (``38.5 ± 0.2``); and where the
        same protocol, method and epochs were published, ``published`` figures of the kinds that
        the run has, and their ``source`` with its learning rate. The ``difference`` is from a
        figure of the same recipe; behind every other stands in brackets what is wrong with it.
    """
    if "subset" in frame:  # drawn anew for each seed
        frame = frame.assign(subset=frame["subset"].str.replace(r" seed \d+$", "", regex=True))
    same = [name for name in SAME if name in frame]
    figures = [name for name in published.FIGURES if name in frame and frame[name].notna().any()]
    rows = []
    for values, group in frame.groupby(same, dropna=False, sort=False):
        row = dict(zip(same, values, strict=True))
        row["seeds"] = group["seed"].nunique()
        row |= {name: _mean_and_deviation(group[name]) for name in figures}
        rows.append({k: v for k, v in row.items() if k not in HIDDEN} | _beside(kind, row, group))
    return pd.DataFrame(rows).convert_dtypes()


def _mean_and_deviation(values: pd.Series) -> str:
    values = values.dropna().astype(float)
    if not len(values):
        return ""
    mean = f"{values.mean():.2f}"
    return f"{mean} ± {values.std(ddof=1):.2f}" if len(values) > 1 else mean


def _beside(kind: str, row: dict[str, object], group: pd.DataFrame) -> dict[str, object]:
    """The published figures of the same experiment, and how far the mean is from them."""
    overrides = row.get("overrides")
    if pd.notna(overrides) and overrides:  # another protocol
        return {}
    shown = [(known, _both(known, group)) for known in published.find(kind, row)]
    if not shown:
        return {}
    (first, both), *_ = shown
    differences = [f"{group[name].mean() - first[name]:+.2f}" for name in both]
    return {
        "published": "; ".join(_figures(known, both) for known, both in shown),
        "difference": None if first["why"] else ", ".join(differences),
        "source": "; ".join(dict.fromkeys(_source(known) for known, _ in shown)),
    }


def _both(known: dict[str, Any], group: pd.DataFrame) -> list[str]:
    """Names of the figures that the run and a published row have."""
    ours = [name for name in published.FIGURES if name in group and group[name].notna().any()]
    return [name for name in ours if not math.isnan(float(known[name]))]


def _figures(known: dict[str, Any], names: list[str]) -> str:
    """For example ``box_AP 40.4 (other recipe: weight decay 2.5e-5)``."""
    figures = ", ".join(f"{name} {known[name]:g}" for name in names)
    return f"{figures} ({known['why']})" if known["why"] else figures


def _source(known: dict[str, Any]) -> str:
    return f"{known['source']}, lr {'?' if pd.isna(known['lr']) else known['lr']}"


def markdown(kind: str, summary: pd.DataFrame) -> str:
    """The summary as a Markdown table under a heading; empty columns are left out."""
    shown = summary.dropna(axis=1, how="all")
    lines = ["| " + " | ".join(map(str, shown.columns)) + " |", "| --- " * shown.shape[1] + "|"]
    for row in shown.itertuples(index=False):
        lines.append("| " + " | ".join("" if pd.isna(v) else _text(v) for v in row) + " |")
    return f"## {kind}\n\n" + "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
