"""Test sets in the report: what runs predicted on them, in pictures and as kinds of errors."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hotcoco import COCO

from common.errors import UserError
from launch.reports import pictures
from launch.reports.collect import Run
from launch.reports.errors import KINDS, Errors, errors
from launch.reports.predictions import GroundTruth, dataset_name, detections, ground_truth, masks
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
        draw = _segmentations if runs[0].kind == "segmentation" else _detections
        return draw(gallery, found, runs, ids)
    except (UserError, OSError, ValueError, KeyError) as error:
        gallery.notes.append(f"No pictures and no errors: {str(error).rstrip('.')}.")
        return gallery


def _segmentations(
    gallery: Gallery, found: GroundTruth, runs: Sequence[Run], ids: list[Any]
) -> Gallery:
    drawn: dict[Any, list[tuple[Run, str]]] = {i: [] for i in ids}
    for run in runs:
        try:
            predicted = masks(run)
        except UserError as error:
            gallery.notes.append(f"#{run.number}: {error}.")
            continue
        for i in ids:
            image = pictures.predicted_classes(found, i, predicted[i])
            drawn[i].append((run, pictures.data_uri(image)))
    strips = [
        Strip(found.images[i].name, pictures.data_uri(pictures.true_classes(found, i)), drawn[i])
        for i in ids
    ]
    return gallery._replace(strips=strips)


def _detections(
    gallery: Gallery, found: GroundTruth, runs: Sequence[Run], ids: list[Any]
) -> Gallery:
    truth, annotated = COCO(found.annotations), pictures.by_image(found.annotations["annotations"])
    drawn: dict[Any, list[tuple[Run, str]]] = {i: [] for i in ids}
    details = []
    for run in runs:
        try:
            predicted = detections(run, found)
        except UserError as error:
            gallery.notes.append(f"#{run.number}: {error}.")
            continue
        of_image = pictures.by_image(predicted)
        for i in ids:
            image = pictures.objects(found, i, pictures.worth_showing(of_image[i]))
            drawn[i].append((run, pictures.data_uri(image)))
        if judged := errors(found, truth, predicted):
            details.append((run, judged))
    strips = [
        Strip(
            found.images[i].name,
            pictures.data_uri(pictures.objects(found, i, annotated[i])),
            drawn[i],
        )
        for i in ids
    ]
    table = of_errors([(run, one.delta_ap) for run, one in details], KINDS)
    return gallery._replace(strips=strips, errors=table if details else None, details=details)
