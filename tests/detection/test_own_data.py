"""Data sets of one's own: their names, classes and scores, and what a job refuses."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import demo
from common.errors import UserError
from detection import own_data
from detection.coco import require_usable
from detection.config import TransferConfig, read, resolve
from detection.evaluation import DETECTION, kind_of
from detection.own_data import OwnDataset, find
from detection.train import transfer
from tests.detection.helpers import CONFIGS
from tests.detection.oracles import assert_scores_are_pycocotools, open_truth, perturbed
from tests.detection.small_datasets import instances

DEMO = str(CONFIGS / "demo_R_18_FPN.yaml")
RETINANET = 'MODEL: {META_ARCHITECTURE: "RetinaNet"}\n'
SMALL = ("INPUT.MIN_SIZE_TEST", "32", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu")
IMAGES = demo.default_root() / "coco" / "val2017"
IDS = {
    "from 0": tuple(range(8)),
    "from 1": tuple(range(1, 9)),
    "apart": (90, 4, 17, 5, 60, 8, 33, 71),
}


@pytest.fixture(autouse=True)
def known() -> Iterator[frozenset[str]]:
    """The data sets before a test; Detectron2 forgets those of the test."""
    before = frozenset(DatasetCatalog.list())
    yield before
    forget(before)


def forget(known: frozenset[str]) -> None:
    for name in {*DatasetCatalog.list()} - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def written(path: Path, ids: tuple[int, ...] = IDS["from 0"]) -> str:
    """The embedded COCO val set as ``--dataset`` names it, its categories with other ids."""
    renumbered = dict(zip(demo.COCO_IDS, ids, strict=True))
    content = instances()
    for one in content["annotations"]:
        one["category_id"] = renumbered[one["category_id"]]
    for one in content["categories"]:
        one["id"] = renumbered[one["id"]]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return f"{path.stem}={path}:{IMAGES}"


def job(*words: str, config: str = DEMO, overrides: tuple[str, ...] = SMALL) -> TransferConfig:
    return resolve(read(config), overrides=overrides, datasets=find(words))


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_the_classes_are_those_of_the_file(tmp_path: Path, ids: tuple[int, ...]) -> None:
    words = [written(tmp_path / f"{name}.json", ids) for name in ("mine", "other")]
    cfg = job(*words).detectron2()
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("mine",), ("other",))
    truth = open_truth(tmp_path / "mine.json")
    records = DatasetCatalog.get("mine")
    classes = MetadataCatalog.get("mine").thing_classes
    assert classes == [truth.cats[i]["name"] for i in sorted(ids)]
    for record in records:
        wanted = [truth.cats[a["category_id"]]["name"] for a in truth.imgToAnns[record["image_id"]]]
        assert [classes[a["category_id"]] for a in record["annotations"]] == wanted


def test_the_number_of_classes_is_set_whatever_the_config_has(tmp_path: Path) -> None:
    word = written(tmp_path / "mine.json")
    (tmp_path / "retinanet.yaml").write_text(f'_BASE_: "{DEMO}"\n{RETINANET}')
    others = ("coco_R_50_FPN_1x_infomin", "coco_R_50_C4_1x_infomin", "pascal_voc_R_50_C4_24k")
    for path in (tmp_path / "retinanet.yaml", *(CONFIGS / f"{name}.yaml" for name in others)):
        cfg = job(word, word, config=str(path)).detectron2()
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 8
        require_usable(cfg)
        kind_of(cfg, [DETECTION])  # of VOC's config, too: it is the set that decides


def test_the_scores_are_pycocotools(tmp_path: Path) -> None:
    word = written(tmp_path / "mine.json", IDS["apart"])
    cfg = job(word, word).detectron2()
    answers = perturbed(open_truth(tmp_path / "mine.json"))
    assert_scores_are_pycocotools(cfg, answers, tmp_path / "inference")


def test_a_path_may_have_colons_and_equals_signs(tmp_path: Path) -> None:
    word = written(tmp_path / "a:b=c" / "mine.json")
    (found,) = find([word], eval_only=True)
    assert (found.name, found.annotations) == ("mine", f"{tmp_path}/a:b=c/mine.json")


@pytest.mark.parametrize("how", ["variable", "home"])
def test_data_sets_are_defined_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Paths are relative to the file that defines them, wherever the command is typed."""
    file = tmp_path / "lewel-transfer" / "datasets.toml"
    written(file.parent / "val.json")
    images = os.path.relpath(IMAGES, file.parent)
    file.write_text(f'[cells_val]\nannotations = "val.json"\nimages = "{images}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path if how == "home" else tmp_path / "none"))
    if how == "variable":
        monkeypatch.setenv(own_data.VARIABLE, str(file))
    (found,) = find(["cells_val"], eval_only=True)
    assert found.annotations == str(file.parent / "val.json")
    assert Path(found.images).samefile(IMAGES)


def test_another_set_is_another_run(known: frozenset[str]) -> None:
    one = OwnDataset("mine", "/a.json", "/a", "0" * 64, ((0, "cell"),))
    edited, moved = dataclasses.replace(one, sha256="1" * 64), dataclasses.replace(one, images="/b")
    other = dataclasses.replace(one, name="other")
    names, identities = [], []
    for datasets in ((), (one, other), (other, one), (edited, other), (moved, other)):
        each = resolve(read(DEMO), datasets=datasets)
        names.append(each.run_name())
        identities.append(json.dumps(each.identity(), sort_keys=True))
        forget(known)
    assert names[0] == "demo_R_18_FPN-random-lr0.02-b4-s0"  # as ever
    assert names[1].startswith("demo_R_18_FPN-mine-other-random-lr0.02-b4-s0-")
    assert len({*names[:4]}) == 4 and len({*identities}) == 5
    assert names[4] == names[1]  # and the folder is refused, for its identity is another one


def test_a_name_is_of_one_data_set() -> None:
    one = OwnDataset("mine", "/a.json", "/a", "0" * 64, ((0, "cell"),))
    other = dataclasses.replace(one, annotations="/b.json")
    for datasets in ((one, one), (dataclasses.replace(one, name="new"), one)):
        assert resolve(read(DEMO), datasets=datasets).detectron2().DATASETS.TEST == ("mine",)
    for wrong in (other, dataclasses.replace(one, name="coco_2017_val")):
        with pytest.raises(UserError, match=rf"--dataset {wrong.name}: another data set has this"):
            resolve(read(DEMO), datasets=(one, wrong)).detectron2()


def test_a_job_refuses_what_was_changed_since(tmp_path: Path) -> None:
    word = written(tmp_path / "mine.json")
    one = job(word, word)
    written(tmp_path / "mine.json", IDS["from 1"])
    with pytest.raises(UserError, match=r"mine is not what it was: \S*/mine\.json was changed"):
        transfer(one, tmp_path / "run")
    (tmp_path / "mine.json").unlink()
    with pytest.raises(UserError, match=r"mine is not there: looked for \S*/mine\.json"):
        transfer(one, tmp_path / "run")
