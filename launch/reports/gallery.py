"""Test sets in the report: what runs predicted on them, in pictures and as kinds of errors."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hotcoco import COCO

from common.errors import UserError
from launch.reports import pictures
from launch.reports.collect import Run
from launch.reports.errors import KINDS, Errors, errors
from launch.reports.predictions import by_image, dataset_name, detections, ground_truth, masks
from launch.reports.tables import Table, of_errors


class Strip(NamedTuple):
    """A test image: its ground truth, and what each run predicted."""

    name: str
    truth: str
    predictions: list[tuple[Run, str]]


class Gallery(NamedTuple):
    """A test set, and what is known of predictions on it."""

    name: str
    notes: list[str]  # why there is less than there could be
    strips: list[Strip]
    errors: Table | None
    details: list[tuple[Run, Errors]]


def galleries(runs: Sequence[Run], count: int) -> Iterator[Gallery]:
    """The test sets of runs; ``count`` pictures of each."""
    by_set: dict[str, list[Run]] = {}
    for run in runs:
        by_set.setdefault(dataset_name(run), []).append(run)
    for name, members in by_set.items():
        print(f"predictions on {name or 'unknown test sets'}: {len(members)} runs", flush=True)
        yield _gallery(name or "unknown", members, count)


def _gallery(name: str, runs: Sequence[Run], count: int) -> Gallery:
    gallery = Gallery(name, [], [], None, [])
    try:
        found = ground_truth(runs[0])
        ids = pictures.choose(found, count)
        strips = [
            Strip(found.images[i].name, pictures.data_uri(pictures.truth(found, i)), [])
            for i in ids
        ]
        of_objects = runs[0].kind == "transfer"
        truth = COCO(found.annotations) if of_objects else None
        for run in runs:
            try:
                predicted = detections(run, found) if of_objects else masks(run)
            except UserError as error:
                gallery.notes.append(f"#{run.number}: {error}.")
                continue
            rows = by_image(predicted)
            for i, strip in zip(ids, strips, strict=True):
                image = pictures.predicted(found, i, rows[i])
                strip.predictions.append((run, pictures.data_uri(image)))
            if truth is not None and (judged := errors(found, truth, predicted)):
                gallery.details.append((run, judged))
    except (UserError, OSError, ValueError, KeyError) as error:
        gallery.notes.append(f"No pictures and no errors: {str(error).rstrip('.')}.")
        return gallery
    table = of_errors([(run, one.delta_ap) for run, one in gallery.details], KINDS)
    return gallery._replace(strips=strips, errors=table if gallery.details else None)
