"""mIoU of semantic segmentation."""

from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator

from common.errors import UserError
from detection.evaluation import Kind, Scores
from segmentation.mapper import SegmentationMapper
from segmentation.masks import read_mask

NAMES = ("mIoU", "fwIoU", "mACC", "pACC")


class MaskEvaluator(SemSegEvaluator):
    """Detectron2's evaluator, which names a mask that is not one.

    It reads palette masks as indices. IoU is over all of the set's pixels that are not ignored.
    mIoU is the mean over the classes in the ground truth, whatever was predicted: Detectron2's
    head has this rule, its 0.6 counts classes that were only predicted as 0. On the whole of VOC
    val, which has all classes, the two agree with each other and with mmsegmentation.
    """

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for given, found in zip(inputs, outputs, strict=True):
            path = self.input_file_to_gt_file[given["file_name"]]
            try:
                mask = read_mask(path, self._num_classes, self._ignore_label)
            except OSError as error:
                raise UserError(f"{error}; mend it, and the same command goes on.") from error
            if mask.shape != tuple(found["sem_seg"].shape[-2:]):
                raise UserError(f"mask {path} is not of its image's size; unpack it again.")
            super().process([given], [found])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{"sem_seg": {"mIoU": ..., "IoU-cat": ...}}`` in percent; None off rank 0.

        The IoU of a class that is not in the ground truth is NaN.
        """
        found: dict[str, dict[str, float]] | None = super().evaluate()
        if found:
            scores = found["sem_seg"]
            ious = [iou for name, iou in scores.items() if name.startswith("IoU-")]
            scores["mIoU"] = float(np.nanmean(ious))
        return found


def _flatten(found: Scores) -> dict[str, float]:
    scores = found.get("sem_seg", {})
    return {k: float(v) for k, v in scores.items() if k in NAMES or k.startswith("IoU-")}


def _evaluator(cfg: Any, name: str, folder: str) -> DatasetEvaluator:
    ignored = MetadataCatalog.get(name).ignore_label
    if ignored != cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE}, but "
            f"dataset {name} marks pixels to ignore by {ignored}; set it to {ignored}."
        )
    return MaskEvaluator(name, output_dir=folder)


SEGMENTATION = Kind("segmentation", {"sem_seg": _evaluator}, SegmentationMapper, _flatten)
