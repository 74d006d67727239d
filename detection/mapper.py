"""Mappers from dataset dicts to images with annotations, and images that cannot be read."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from common.errors import UserError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]

CROPS = ("absolute", "absolute_range", "relative", "relative_range")


class AnnotationError(Exception):
    """An object's annotation that cannot be used."""


# What Pillow raises for files that are missing, cut short, far too large or no images (broken PNGs
# are a SyntaxError to it), and Detectron2 for an image of another size than its annotation says.
UNREADABLE = (
    *(OSError, SyntaxError, Image.DecompressionBombError),
    *(SizeMismatchError, AnnotationError),
)


class TrainMapper(DatasetMapper):
    """Detectron2's training mapper, which raises :class:`AnnotationError` for a broken object.

    Annotations of COCO files were judged before; others come here as they are.
    """

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        # Detectron2's assertions do not name the key.
        inputs = cfg.INPUT
        sampling, sizes = inputs.MIN_SIZE_TRAIN_SAMPLING, inputs.MIN_SIZE_TRAIN
        if not ((sampling == "choice" and sizes) or (sampling == "range" and len(sizes) == 2)):
            raise UserError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling} and INPUT.MIN_SIZE_TRAIN {sizes}; "
                "give choice and any sizes, or range and two."
            )
        if inputs.CROP.ENABLED and inputs.CROP.TYPE not in CROPS:
            raise UserError(
                f"INPUT.CROP.TYPE is {inputs.CROP.TYPE}; choose one of {', '.join(CROPS)}."
            )
        return dict(super().from_config(cfg, is_train))

    def _transform_annotations(self, dataset_dict: dict[str, Any], *args: Any) -> None:
        try:
            super()._transform_annotations(dataset_dict, *args)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise AnnotationError(f"an annotation that cannot be used: {reason}") from error


class TestMapper:
    """Detectron2's test mapper; an unreadable image is an error, for a score without it is false.

    It leaves masks alone: evaluators read them, and Detectron2 would take a palette for grey.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, cfg: Any) -> None:
        self.inner = DatasetMapper(cfg, is_train=False)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = {k: v for k, v in dataset_dict.items() if k != "sem_seg_file_name"}
        try:
            return dict(self.inner(record))
        except UNREADABLE as error:
            raise UserError(
                f"{record['file_name']} of the test set cannot be read ({error}); mend it, and the "
                "same command goes on with the evaluation."
            ) from error
