"""Kinds of a detector's errors, and the images that it finds hardest, by hotcoco.

TIDE: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval

from launch.reports.predictions import GroundTruth

KINDS = {
    "Cls": "wrong class",
    "Loc": "poor box",
    "Both": "both of these",
    "Dupe": "found twice",
    "Bkg": "nothing there",
    "Miss": "not found",
}
HARDEST = 5
BINS = 10


class Errors(NamedTuple):
    """The errors of one detector's boxes at an overlap of 0.5."""

    delta_ap: dict[str, float]  # points of AP50 that it would gain without errors of a kind
    f1: list[int]  # images by their F1, from 0 to 1
    hardest: list[dict[str, Any]]  # images of the lowest F1, those with most errors first
    doubtful: int  # objects whose annotation may be wrong rather than the detector


def errors(found: GroundTruth, truth: COCO, predictions: list[dict[str, Any]]) -> Errors | None:
    """The errors in COCO's predictions; None where there are none to judge."""
    if not predictions:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        boxes = [{k: v for k, v in one.items() if k != "segmentation"} for one in predictions]
        judged = COCOeval(truth, truth.load_res(boxes), "bbox")
        judged.evaluate()
        tide, images = judged.tide_errors(), judged.image_diagnostics()
    rows = [{"image": found.images[i].name, **row} for i, row in images["img_summary"].items()]
    rows.sort(key=lambda row: (row["f1"], -row["fp"] - row["fn"]))
    counts, _ = np.histogram([row["f1"] for row in rows], BINS, (0, 1))
    return Errors(
        {kind: 100 * tide["delta_ap"][kind] for kind in KINDS},
        counts.tolist(),
        rows[:HARDEST],
        len(images["label_errors"]),
    )
