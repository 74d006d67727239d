"""The page: what was found about the runs, put into its template."""

import datetime
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from PIL import Image

from common.errors import UserError
from launch.reports import alignment, tables
from launch.reports.collect import FINISHED, Run
from launch.reports.curves import Panel, panels, spread
from launch.reports.gallery import galleries
from launch.reports.pictures import data_uri
from launch.tables.summary import summarise

NAMES = {
    "pretrain": "Pre-training",
    "transfer": "Detection",
    "segmentation": "Segmentation",
    "linear": "Linear evaluation",
    "semi": "Semi-supervised",
}


class Results(NamedTuple):
    """The results of a kind of jobs."""

    kind: str
    name: str
    spread: list[Panel]
    summary: tables.Table | None
    runs: tables.Table
    classes: list[tuple[str, tables.Table]]


class Maps(NamedTuple):
    """The alignment maps of a run, or why there are none."""

    run: Run
    pictures: list[str]
    note: str = ""


def render(
    runs: Sequence[Run],
    frames: dict[str, pd.DataFrame],
    notes: Sequence[str],
    *,
    folder: Path,
    newest: int,
    pictures: int,
    map_images: Sequence[Image.Image],
    map_size: int,
) -> str:
    """The page as HTML; ``frames`` are the results tables of the kinds that have finished runs."""
    finished = [run for run in runs if run.state == FINISHED]
    looked_at = _newest(runs, newest)
    shown = [r for r in looked_at if r.kind in ("transfer", "segmentation") and r in finished]
    if len(looked_at) < len(runs):
        notes = [
            f"Curves, classes, predictions, errors and alignment maps are of the newest {newest} "
            f"of {len(runs)} runs (--newest); the tables have all.",
            *notes,
        ]
    pretrained = [run for run in looked_at if run.kind == "pretrain"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("launch.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        made=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        folder=folder,
        notes=notes,
        runs=runs,
        finished=finished,
        names=NAMES,
        results=[
            *_pretrained([run for run in finished if run.kind == "pretrain"]),
            *(
                _results(kind, frame, [r for r in finished if r.kind == kind], looked_at)
                for kind, frame in frames.items()
            ),
        ],
        galleries=list(galleries(shown, pictures)),
        maps=list(_maps(pretrained, map_images, map_size)),
        map_size=map_size,
        panels={run.number: panels(run) for run in looked_at},
        detailed=looked_at,
    )


def _newest(runs: Sequence[Run], count: int) -> list[Run]:
    """The runs that have last written a line or ended, in the order of the page."""

    def last(run: Run) -> int:
        files = [run.folder / name for name in ("metrics.json", "metrics.jsonl")]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    kept = {run.number for run in sorted(runs, key=last, reverse=True)[:count]}
    return [run for run in runs if run.number in kept]


def _pretrained(runs: Sequence[Run]) -> list[Results]:
    table = tables.of_pretraining(runs)
    return [Results("pretrain", NAMES["pretrain"], [], None, table, [])] if runs else []


def _results(
    kind: str, frame: pd.DataFrame, runs: Sequence[Run], looked_at: Sequence[Run]
) -> Results:
    classes: list[tuple[str, tables.Table]] = []
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        if run in looked_at:
            by_config.setdefault(str(run.metrics.get("config", "")), []).append(run)
    for config, members in by_config.items():
        for score in ("box_AP", "box_AP50", "mask_AP", "IoU"):
            if table := tables.of_classes(members, score):
                classes.append((f"{config}: {score}", table))
    return Results(
        kind,
        NAMES[kind],
        spread(kind, frame),
        tables.summary(summarise(kind, frame)),
        tables.of_runs(frame, runs),
        classes,
    )


def _maps(runs: Iterable[Run], images: Sequence[Image.Image], size: int) -> Iterator[Maps]:
    for run in runs:
        print(f"alignment maps: {run.folder.name}", flush=True)
        try:
            shown = images or alignment.default_images(json.loads(run.config))
            found = alignment.stages(run.folder, shown, size)
        except (UserError, ValueError, KeyError, TypeError, RuntimeError) as error:
            yield Maps(run, [], str(error))
            continue
        if found:
            drawn = [alignment.draw(shown, found, size, only=i) for i in range(len(shown))]
            yield Maps(run, [data_uri(image) for image in drawn])
