"""Box and mask AP of a detector on a config's test sets."""

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.evaluation import COCOEvaluator, inference_on_dataset, print_csv_format
from torch import nn

from common.errors import UserError
from detection.compat import faster_coco_eval

AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TASKS = {"bbox": "box", "segm": "mask"}


class FasterCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator on faster-coco-eval, which computes pycocotools' numbers."""

    def _eval_predictions(self, *args: Any, **kwargs: Any) -> None:
        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # Detectron2 prints it
        with faster_coco_eval():
            super()._eval_predictions(*args, **kwargs)


def check_evaluators(cfg: Any) -> None:
    """Raise unless there is an evaluator for each of the config's test sets.

    Raises:
        UserError: naming the data set and its kind.
    """
    for name in cfg.DATASETS.TEST:
        kind = MetadataCatalog.get(name).get("evaluator_type", "none")
        if kind != "coco":
            raise UserError(
                f"DATASETS.TEST: {name} is evaluated by {kind!r}; only COCO's box "
                "and mask AP are supported."
            )


def evaluate(cfg: Any, model: nn.Module, folder: str) -> dict[str, float]:
    """Box and mask AP, in percent, on the config's test set; every process takes a share.

    Args:
        cfg: a Detectron2 config.
        model: the detector, on its device.
        folder: where the predictions are written.

    Returns:
        ``{"box_AP": ..., "mask_AP50": ...}`` in the main process, nothing in the others. NaN
        where the test set has no object of that size.
    """
    results: dict[str, float] = {}
    for name in cfg.DATASETS.TEST:
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        evaluator = FasterCOCOEvaluator(name, tasks=tasks, output_dir=folder)
        loader = build_detection_test_loader(cfg, name)
        found = inference_on_dataset(model, loader, evaluator)
        if found:
            print_csv_format(found)
            results |= flatten(found)
    return results


def flatten(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Detectron2's results by task as ``box_AP``, ``mask_AP50`` and so on."""
    return {
        f"{name}_{ap}": float(found[task][ap])
        for task, name in TASKS.items()
        if task in found
        for ap in AP_NAMES
    }
