"""Curves and dots, drawn by Matplotlib as SVG that takes the page's colours, light or dark."""

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.resources import files
from typing import Any, NamedTuple, TypeGuard

import matplotlib
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.errors import UserError
from launch.reports.collect import Run
from launch.tables.published import FIGURES
from launch.tables.summary import experiments, figures_of, published_beside
from pretrain import methods
from pretrain.config import ResolvedConfig
from pretrain.data.locate import DEMO

INK = "#0a0b0c"  # the page's text colour takes its place
PALETTE = ("#3b82c4", "#e07b39", "#3f9d63", "#b04f9e", "#8a7a1f", "#c2454a")
POINTS = 160  # of a curve: more steps are averaged
STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    **dict.fromkeys(
        (
            *("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"),
            *("xtick.color", "ytick.color"),
        ),
        INK,
    ),
}
PANELS = (  # titles, a pattern of columns, and the column of the published log
    ("Loss", r"loss(_\w+)?|total_loss", "loss"),
    ("kNN accuracy (20 neighbours), %", "knn20_top1", "knn20_val_bank"),
    ("Spread of the embeddings", "embedding_std", ""),
    ("AP, %", "(box|mask)_AP", ""),
    ("AP50, %", "(box|mask)_AP50", ""),
    ("mIoU, %", "mIoU", ""),
    ("Top-1 accuracy, %", "top1", ""),
)
IMAGENET_STEPS = 1251  # of 1024 images, in an epoch of ImageNet: of the published log


class Panel(NamedTuple):
    """A figure and what it shows."""

    title: str
    svg: str


def panels(run: Run) -> list[Panel]:
    """The learning curves of a run: its losses, and its scores while it trained."""
    series, known = _series(run), published_log(run)
    found = [
        _panel(title, {k: v for k, v in series.items() if re.fullmatch(names, k)}, known, column)
        for title, names, column in PANELS
    ]
    return [panel for panel in found if panel is not None]


def _series(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    """Columns of metrics.jsonl as (steps, values), without what is not finite.

    The final scores of a run that was fine-tuned are behind those on the way.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    steps = run.metrics.get("iterations")
    final = {"iteration": steps - 1, **{k: run.metrics.get(k) for k in FIGURES}} if steps else {}
    for row in (*run.rows, final):
        step = row.get("step", row.get("iteration"))
        for name, value in row.items():
            if _finite(step) and _finite(value):
                x, y = found.setdefault(name, ([], []))
                x.append(int(step) + 1)
                y.append(value)
    return found


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def published_log(run: Run) -> pd.DataFrame | None:
    """The published log of a run's recipe on ImageNet; None if there is none.

    Steps count from 1, and an epoch's mean is at its middle.
    """
    if run.kind != "pretrain":
        return None
    try:
        config = json.loads(run.config)
        names = {field.name for field in fields(ResolvedConfig)}
        recipe = ResolvedConfig(**{k: v for k, v in config.items() if k in names})
        same = recipe.unpublished() == "" and recipe.backbone == "resnet50"
        title = f"{methods.find(recipe.method).title} {recipe.norm} {recipe.epochs}"
    except (ValueError, TypeError, AttributeError, UserError):  # of another version, or cut short
        return None
    ends = [row for row in run.rows if "epoch_loss" in row]
    per_epoch = (ends[0]["step"] + 1) / (ends[0]["epoch"] + 1) if ends else 0
    if not same or recipe.data == DEMO or per_epoch != IMAGENET_STEPS:
        return None
    with (files("pretrain") / "published_log.csv").open() as file:
        table = pd.read_csv(file)
    table = table[table["run"] == title]
    middle = table["step"].add(1).fillna((table["epoch"] + 0.5) * IMAGENET_STEPS)
    ends_at = (table["epoch"] + 1) * IMAGENET_STEPS
    table = table.assign(x=middle.where(table["knn20_val_bank"].isna(), ends_at))
    return table if len(table) else None


def _panel(
    title: str,
    series: dict[str, tuple[list[int], list[float]]],
    known: pd.DataFrame | None,
    column: str,
) -> Panel | None:
    series = {name: points for name, points in series.items() if len(points[0]) > 1}
    if not series:
        return None
    known = known if column else None

    def draw(axes: Axes) -> None:
        for name, (x, y) in series.items():
            marker = "o" if len(x) < 12 else None
            axes.plot(_thin(x), _thin(y), label=name, linewidth=1.4, marker=marker, markersize=3)
        if known is not None:
            rows = known.dropna(subset=column)
            label = "LEWEL's log" + (" (among 5,000 val images)" if "knn" in column else "")
            axes.plot(rows["x"], rows[column], "--", color=INK, linewidth=1, label=label)
        axes.set_xlabel("steps")
        if len(series) > 1 or known is not None:
            axes.figure.legend(loc="outside lower center", ncols=3, fontsize=7.5)

    return Panel(title, _svg((3.2, 2.3), draw))


def _thin(values: Sequence[float]) -> list[float]:
    """Means of neighbours, ``POINTS`` of them at most."""
    parts = np.array_split(np.asarray(values, float), min(len(values), POINTS))
    return [float(part.mean()) for part in parts]


def spread(kind: str, frame: pd.DataFrame) -> list[Panel]:
    """The figures of every experiment's seeds, with their mean and what was published.

    A filled diamond is a figure of the same recipe, a hollow one of another.
    """
    found = []
    groups: dict[str, list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for row, group in experiments(frame):
        groups.setdefault(str(row.get("config", kind)), []).append((row, group))
    for config, members in groups.items():
        for name in figures_of(frame):
            if not name.endswith(("_AP", "mIoU", "top1")):
                continue
            rows = [(row, group[name].dropna().astype(float)) for row, group in members]
            rows = [(row, values) for row, values in rows if len(values)]
            if rows:
                found.append(Panel(f"{config}: {name}", _dots(kind, name, rows)))
    return found


def _dots(kind: str, name: str, rows: list[tuple[dict[str, Any], pd.Series]]) -> str:
    labels = [f"{one:.44}" for one in _label_experiments([row for row, _ in rows])]

    def draw(axes: Axes) -> None:
        for y, ((row, values), label) in enumerate(zip(rows, labels, strict=True)):
            axes.plot(values, [y] * len(values), "o", color=PALETTE[0], alpha=0.55, markersize=5)
            axes.plot([values.mean()] * 2, [y - 0.22, y + 0.22], color=PALETTE[0], linewidth=2)
            for known in published_beside(kind, row):
                if pd.notna(known[name]):
                    filled = "none" if known["why"] else PALETTE[1]
                    axes.plot(known[name], y, "D", color=PALETTE[1], mfc=filled, markersize=5)
            axes.annotate(
                label, (0, y - 0.5), xycoords=("axes fraction", "data"), va="center", fontsize=8
            )
        axes.set_ylim(len(rows) - 0.5, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.1)

    return _svg((3.3, 0.5 + 0.42 * len(rows)), draw)


def _label_experiments(rows: list[dict[str, Any]]) -> list[str]:
    """Names of experiments: their method, and what else tells them from the others."""
    keys = [k for k in rows[0] if k not in ("config", "weights_sha256", "config_hash")]
    told = [k for k in keys if len({str(row[k]) for row in rows}) > 1 or k in ("method", "norm")]
    plain = ("method", "norm", "overrides", "pretrain_recipe")
    return [
        " ".join(
            str(row[k]) if k in plain else f"{k} {row[k]:g}" if _finite(row[k]) else f"{k} {row[k]}"
            for k in told
            if pd.notna(row[k]) and row[k] != ""
        )
        for row in rows
    ]


def _svg(inches: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """A figure of the width of its place on the page, in the page's font and colours."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(inches, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = re.sub(r' id="(?![mp][0-9a-f]{8})[^"]*"', "", text)  # the same in every figure
    return re.sub(r"(\.\d{2})\d+", r"\1", re.sub(r"\s*\n\s*", " ", text))
