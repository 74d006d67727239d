"""Kinds of transfer jobs, and the scores of a detector on its test set."""

import math
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    PascalVOCDetectionEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from hotcoco import COCO, COCOeval
from torch import nn

from common.errors import UserError
from common.files import write_json
from common.workers import outlive_sigterm, sentence
from detection.compat import hotcoco_eval
from detection.mapper import Mapper, TestMapper, TrainMapper

Scores = Mapping[str, Mapping[str, float]]

VOC_AP = ("AP", "AP50", "AP75")
AP_NAMES = (*VOC_AP, "APs", "APm", "APl")
TASKS = {"bbox": "box", "segm": "mask"}

PER_CLASS = "per_class.json"
"""Beside the predictions, scores of each class: ``{"box_AP": {"cat": 38.5, ...}, ...}``."""

VOC_PREDICTIONS = "voc_predictions.json"
"""VOC's detections by class: ``image score x0 y0 x1 y1`` of each, pixels counted from 1."""


class HotCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator on hotcoco, which computes pycocotools' numbers."""

    def __init__(self, dataset_name: str, tasks: Sequence[str], output_dir: str) -> None:
        with hotcoco_eval():
            super().__init__(dataset_name, tasks=tasks, output_dir=output_dir)
        self._coco_api = COCO(PathManager.get_local_path(self._metadata.json_file))

    def _eval_predictions(self, *args: Any, **kwargs: Any) -> None:
        with hotcoco_eval():
            super()._eval_predictions(*args, **kwargs)

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """AP in percent; 0 without any detection, for which Detectron2 says NaN."""
        if coco_eval is None:
            coco_eval = COCOeval(self._coco_api, self._coco_api.loadRes([]), iou_type)
            coco_eval.run()
        found: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        return found


class PresentVOCEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's VOC evaluator, with means of the classes that the test set has.

    A class without an object that counts has no AP. Detectron2 takes it for 0, or NaN by the
    rules of 2012; COCO leaves it out, and so does this. The whole of VOC has objects of all. The
    predictions are kept in ``folder``, and the scores of each class are among the results.
    """

    _class_names: list[str]
    _predictions: dict[int, list[str]]

    def __init__(self, dataset_name: str, folder: str) -> None:
        super().__init__(dataset_name)
        self._folder = Path(folder)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        shares = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        lines: dict[str, list[str]] = defaultdict(list)
        for share in shares:
            for label, found in share.items():
                lines[self._class_names[label]] += found
        write_json(self._folder / VOC_PREDICTIONS, lines)
        counted = self._counted()
        scores = {n: self._scores(n, lines[n]) for n in self._class_names if n in counted}
        means = {ap: float(np.mean([one[ap] for one in scores.values()])) for ap in VOC_AP}
        return {
            "bbox": means
            | {f"{ap}-{name}": one[ap] for name, one in scores.items() for ap in ("AP", "AP50")}
        }

    def _scores(self, name: str, lines: list[str]) -> dict[str, float]:
        """AP, AP50 and AP75 of a class, in percent, by Detectron2's function."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"{name}.txt").write_text("\n".join(lines))
            files = f"{folder}/{{}}.txt", self._anno_file_template, self._image_set_path
            found = {
                overlap: 100 * voc_eval(*files, name, overlap / 100, self._is_2007)[2]
                for overlap in range(50, 100, 5)
            }
        return {"AP": float(np.mean([*found.values()])), "AP50": found[50], "AP75": found[75]}

    def _counted(self) -> set[str]:
        """Classes with an object that is not marked difficult."""
        found = set()
        for name in Path(self._image_set_path).read_text().split():
            for item in ET.parse(self._anno_file_template.format(name)).iter("object"):
                if item.findtext("difficult", "0").strip() == "0":
                    found.add(item.findtext("name", ""))
        return found


def _flatten(found: Scores) -> dict[str, float]:
    """Detectron2's AP by task as ``box_AP``, ``mask_AP50`` and so on, of those that there are."""
    return {
        f"{name}_{ap}": float(found[task][ap])
        for task, name in TASKS.items()
        if task in found
        for ap in AP_NAMES
        if ap in found[task]
    }


def _per_class(found: Scores) -> dict[str, dict[str, float | None]]:
    """The scores of each class among what an evaluator found; None for one without an object."""
    tables: dict[str, dict[str, float | None]] = defaultdict(dict)
    for task, name in TASKS.items():
        for key, value in found.get(task, {}).items():
            score, dash, label = key.partition("-")
            if dash:
                tables[f"{name}_{score}"][label] = None if math.isnan(value) else round(value, 4)
    return tables


def _coco(cfg: Any, name: str, folder: str) -> DatasetEvaluator:
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return HotCOCOEvaluator(name, tasks=tasks, output_dir=folder)


def _voc(cfg: Any, name: str, folder: str) -> DatasetEvaluator:
    return PresentVOCEvaluator(name, folder)


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of transfer job: how its images are read, and how its test set is scored."""

    job: str  # the folder of its runs, runs/<job>/, and its table, results/<job>.csv
    # By a data set's evaluator_type; each of a config, a test set's name and a folder to write to.
    evaluators: Mapping[str, Callable[[Any, str, str], DatasetEvaluator]]
    mapper: Callable[[Any], Mapper]  # the training mapper of a config
    flatten: Callable[[Scores], dict[str, float]]  # our names of what an evaluator found


DETECTION = Kind("transfer", {"coco": _coco, "pascal_voc": _voc}, TrainMapper, _flatten)


def kind_of(cfg: Any, kinds: Iterable[Kind]) -> Kind:
    """The one of several kinds that a config's test set is of.

    Raises:
        UserError: if there is none, or not one test set, or the config asks for masks in vain.
    """
    known = {evaluator: kind for kind in kinds for evaluator in kind.evaluators}
    for name in cfg.DATASETS.TEST:
        if _type_of(name) not in known:
            raise UserError(
                f"DATASETS.TEST: {name} is evaluated by {_type_of(name)!r}; only "
                f"{', '.join(known)} are supported."
            )
    if len(cfg.DATASETS.TEST) != 1:
        raise UserError(
            f"DATASETS.TEST names {len(cfg.DATASETS.TEST)} data sets; a row of the results is of "
            "one."
        )
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        if cfg.MODEL.MASK_ON and _type_of(name) == "pascal_voc":
            raise UserError(f"MODEL.MASK_ON is True, but {name} has boxes only; set it to False.")
    return known[_type_of(cfg.DATASETS.TEST[0])]


def _type_of(name: str) -> str:
    return str(MetadataCatalog.get(name).get("evaluator_type", "none"))


def evaluate(cfg: Any, kind: Kind, model: nn.Module, folder: str) -> dict[str, float]:
    """Scores, in percent, on the config's test set, of which every process takes a share.

    ``{"box_AP": ..., "mask_AP50": ...}`` or ``{"mIoU": ...}`` in the main process, nothing in the
    others; NaN where the test set has nothing of that size or class. Predictions, and a detector's
    scores of each class, are written to ``folder``. A file that cannot be read is a UserError.
    """
    name = cfg.DATASETS.TEST[0]
    evaluator = kind.evaluators[_type_of(name)](cfg, name, folder)
    loader = build_detection_test_loader(cfg, name, mapper=TestMapper(cfg))
    loader.worker_init_fn = outlive_sigterm
    try:
        found = inference_on_dataset(model, loader, evaluator)
    except UserError as error:
        raise UserError(sentence(error)) from error
    if not found:
        return {}
    print_csv_format(found)
    if per_class := _per_class(found):
        write_json(Path(folder) / PER_CLASS, per_class)
    return kind.flatten(found)
