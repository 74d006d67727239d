"""Summary of the tables: mean and deviation over seeds, and the published figure beside them."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from launch.tables import published

HIDDEN = "pretrain_recipe overrides config_hash weights_sha256 weight_decay images_val".split()
# What makes two rows the same experiment but for the seed, in order; those that a table has.
SAME = (
    "config own_data method norm pretrain_epochs pretrain_recipe architecture percent subset "
    "image_size weight_decay images_train images_val demo lr low_lr backbone_lr head_lr "
    "batch_size epochs scaled eval_only iterations overrides config_hash weights_sha256"
).split()


def summarise(kind: str, frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each experiment of a results table, which has one row a run.

    It has what the runs share; ``seeds``, their number; for each figure its mean, over several
    seeds with the sample's standard deviation (``38.5 ± 0.2``); and where the same protocol, method
    and epochs were published, ``published`` figures of the kinds that the run has, and their
    ``source`` with its learning rate. The ``difference`` is from a figure of the same recipe;
    behind every other stands in brackets what is wrong with it.
    """
    figures, rows = figures_of(frame), []
    for row, group in experiments(frame):
        shown = {name: value for name, value in row.items() if name not in HIDDEN}
        shown["seeds"] = group["seed"].nunique()
        shown |= {name: _mean_and_deviation(group[name]) for name in figures}
        rows.append(shown | _beside(kind, row, group))
    return pd.DataFrame(rows).convert_dtypes()


def experiments(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The fields that the runs of each experiment share, and their rows, one a seed."""
    if "subset" in frame:  # drawn anew for each seed
        frame = frame.assign(subset=frame["subset"].str.replace(r" seed \d+$", "", regex=True))
    same = [name for name in SAME if name in frame]
    for values, group in frame.groupby(same, dropna=False, sort=False):
        yield dict(zip(same, values, strict=True)), group


def figures_of(frame: pd.DataFrame) -> list[str]:
    """The kinds of figures that a table's runs have."""
    return [name for name in published.FIGURES if name in frame and frame[name].notna().any()]


def _mean_and_deviation(values: pd.Series) -> str:
    values = values.dropna().astype(float)
    if values.empty:
        return ""
    deviation = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def _beside(kind: str, row: dict[str, Any], group: pd.DataFrame) -> dict[str, Any]:
    """The published figures of the same experiment, and how far the mean is from them."""
    found = published_beside(kind, row)
    if not found:
        return {}
    reference = found[0]
    differences = [f"{group[n].mean() - reference[n]:+.2f}" for n in _both(reference, group)]
    sources = [f"{known['source']}, lr {known['lr'] or '?'}" for known in found]
    return {
        "published": "; ".join(_figures(known, group) for known in found),
        "difference": None if reference["why"] else ", ".join(differences),
        "source": "; ".join(dict.fromkeys(sources)),
    }


def published_beside(kind: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Published rows of the same experiment, as :func:`launch.tables.published.find` has them."""
    overrides = row.get("overrides")
    if pd.notna(overrides) and overrides:  # another protocol
        return []
    return published.find(kind, row)


def _both(known: dict[str, Any], group: pd.DataFrame) -> list[str]:
    """Names of the figures that the runs and a published row have."""
    return [name for name in figures_of(group) if pd.notna(known[name])]


def _figures(known: dict[str, Any], group: pd.DataFrame) -> str:
    """For example ``box_AP 40.4 (other recipe: weight decay 2.5e-5)``."""
    figures = ", ".join(f"{name} {known[name]:g}" for name in _both(known, group))
    return f"{figures} ({known['why']})" if known["why"] else figures


def texts(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as text, without its empty columns."""
    return summary.dropna(axis=1, how="all").map(
        lambda v: "" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v)
    )


def markdown(kind: str, summary: pd.DataFrame) -> str:
    """The summary as a Markdown table under a heading."""
    table = texts(summary).to_markdown(index=False, tablefmt="github", disable_numparse=True)
    return f"## {kind}\n\n{table}\n"


def latex(kind: str, summary: pd.DataFrame) -> str:
    """The summary as a LaTeX table of the package booktabs.

    What all experiments share, names and figures aside, stands in the caption.
    """
    shown, shared = split_shared(texts(summary))
    numbers = "".join("r" if is_numeric(shown[name]) else "l" for name in shown)
    table = shown.to_latex(
        index=False,
        escape=True,
        column_format=numbers,
        caption=_escaped("; ".join([kind, *(f"{k} {v}" for k, v in shared.items())])),
        label=f"tab:{kind}",
    )
    return str(table).replace(" ± ", " $\\pm$ ")


def split_shared(shown: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """A summary's texts without the columns that are the same in all rows, and these columns.

    What is false in all rows is in neither.
    """
    shown = shown.loc[:, (shown != "False").any()]
    named = {"config", "method", "seeds", "published", "difference", *published.FIGURES}
    named |= {"title", "loss", "best_knn"}  # of a pre-training
    same = [n for n in shown if len(shown) > 1 and n not in named and shown[n].nunique() == 1]
    return shown.drop(columns=same), {name: shown[name].iloc[0] for name in same}


def is_numeric(column: pd.Series) -> bool:
    """True for texts that are all numbers, or none, maybe with a deviation behind them."""
    return bool(column.str.fullmatch(r"(?:[+-]?[\d.]+(?:e[+-]?\d+)?(?: ± [\d.]+)?|nan)?").all())


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)
