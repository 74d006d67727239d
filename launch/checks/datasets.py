"""Checks of the data sets: whether they are there, and their counts beside the official ones."""

import os
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import UserError
from launch.checks.check import Check, attempt

# Of the ILSVRC 2012 classification set, by split.
IMAGENET = {"train": 1_281_167, "val": 50_000}
CLASSES = 1_000
# Of Detectron2's data sets: images of COCO's 2017 files, and lines of Pascal VOC's ImageSets;
# train_aug's are MoCo's (arXiv 1911.05722, appendix A.5).
OFFICIAL = {
    "coco_2017_train": 118_287,
    "coco_2017_val": 5_000,
    "voc_2007_trainval": 5_011,
    "voc_2007_test": 4_952,
    "voc_2012_trainval": 11_540,
    "voc_2012_train_aug_sem_seg": 10_582,
    "voc_2012_val_sem_seg": 1_449,
}
ROOT = "DETECTRON2_DATASETS"
COCO = "http://images.cocodataset.org"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
FILES = {
    "coco_2017_train": ("zips/train2017.zip", "annotations/annotations_trainval2017.zip"),
    "coco_2017_val": ("zips/val2017.zip", "annotations/annotations_trainval2017.zip"),
    "voc_2007_trainval": ("voc2007/VOCtrainval_06-Nov-2007.tar",),
    "voc_2007_test": ("voc2007/VOCtest_06-Nov-2007.tar",),
    "voc_2012_trainval": ("voc2012/VOCtrainval_11-May-2012.tar",),
    "voc_2012_val_sem_seg": ("voc2012/VOCtrainval_11-May-2012.tar",),
}


def imagenet(data: str | None, needed: bool) -> Iterator[Check]:
    """The images of pre-training, and those of the kNN monitor and of linear evaluation."""
    from pretrain.data.locate import open_images, open_validation

    def training() -> Check:
        return _imagenet("train", open_images(data))

    def validation() -> Check:
        source = open_validation(data, None)
        if source is None:
            raise UserError("no val/ beside train/: no kNN monitor, no linear evaluation")
        return _imagenet("val", source)

    mend = "export IMAGENET_DIR=/path/to/imagenet    # with train/<class>/<image> and val/ in it"
    first = attempt("ImageNet train", training, mend, needed)
    yield first
    if first.mark != "missing":
        yield attempt(
            "ImageNet val",
            validation,
            "bash extract_ILSVRC.sh    # github.com/pytorch/examples, imagenet/",
        )


def _imagenet(split: str, source: Any) -> Check:
    images, classes = len(source), len(set(source.labels))
    found = f"{_of(images, IMAGENET[split])} images in {_of(classes, CLASSES)} classes"
    whole = (images, classes) == (IMAGENET[split], CLASSES)
    return Check(
        f"ImageNet {split}", "ok" if whole else "warning", f"{found}, {source.description}"
    )


def of_config(cfg: Any, seen: set[str], needed: bool) -> Iterator[Check]:
    """The data sets of a Detectron2 config but those ``seen``, which it fills.

    Not the embedded ones, which are drawn when they are used.
    """
    from detection.datasets import DEMO_PREFIX

    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        if name not in seen and not name.startswith(DEMO_PREFIX):
            seen.add(name)
            yield attempt(name, partial(_dataset, cfg, name), _mend(name), needed)


def _dataset(cfg: Any, name: str) -> Check:
    """Read the list of a data set, as a job's command does, and count its images on the disk."""
    from detectron2.data import MetadataCatalog

    from detection.coco import coco_files, require_usable, verdict_of
    from detection.datasets import image_list

    alone = cfg.clone()
    alone.defrost()
    for split in ("TRAIN", "TEST"):
        names = (name,) if name in cfg.DATASETS[split] else ()
        alone.DATASETS[split] = names
    repairs = require_usable(alone)
    listed = image_list(name)
    if listed is not None:
        wanted = {f"{one}.jpg" for one in listed.read_text().split()}
        count, present = len(wanted), len(wanted & _names(listed.parents[2] / "JPEGImages"))
        words = "images listed"
        masks = MetadataCatalog.get(name).get("sem_seg_root")
        if masks:
            wanted = {f"{Path(one).stem}.png" for one in wanted}
            present = min(present, len(wanted & _names(Path(masks))))
            words += " with masks"
    else:
        (file,) = coco_files(alone).values()
        verdict = verdict_of(alone, name, file)
        count, present = verdict.images, len(_names(Path(MetadataCatalog.get(name).image_root)))
        words = f"images, {verdict.annotated:,} of them with objects"
    official = OFFICIAL.get(name, count)
    found = [f"{_of(count, official)} {words}", *repairs]
    if present < count:
        found.append(f"{count - present:,} of their files are not on the disk")
        return Check(name, "warning", "; ".join(found), _mend(name))
    return Check(name, "ok" if count == official else "warning", "; ".join(found))


def _names(folder: Path) -> set[str]:
    """The names in a folder, without a look at the files themselves."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _of(found: int, official: int) -> str:
    return f"{found:,}" if found == official else f"{found:,} of {official:,}"


def _mend(name: str) -> str:
    """The command that brings a data set of Detectron2's to its place."""
    root = os.environ.get(ROOT)
    if not root:
        return f"export {ROOT}=/path/to/datasets    # with coco/, VOC2007/ and VOC2012/ in it"
    place = Path(root).expanduser()
    if name == "voc_2012_train_aug_sem_seg":
        return f"python -m segmentation.train_aug SBD {shlex.quote(str(place / 'VOC2012'))}"
    files = FILES.get(name, ())
    if name.startswith("coco"):
        coco = shlex.quote(str(place / "coco"))
        fetch = " ".join(f"-O {COCO}/{file}" for file in files)
        return f"mkdir -p {coco} && cd {coco} && curl {fetch} && unzip '*.zip'"
    unpack = f"tar x --strip-components=1 -C {shlex.quote(str(place))}"
    return "; ".join(f"curl {VOC}/{file} | {unpack}" for file in files)
