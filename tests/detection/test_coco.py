"""COCO files as users have them: a perfect detector scores 100 on them, or they are refused."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools import mask as rle

import demo
from common.errors import UserError
from detection import coco as judged
from detection.coco import require_usable
from detection.evaluation import DETECTION, evaluate
from detection.inspection import usable_datasets
from tests.detection.helpers import config, warnings
from tests.detection.oracles import perfect
from tests.detection.small_datasets import instances
from tests.detection.test_annotations import Change, every, images, twice, without

SIZES = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 10**10)}  # COCO's, in pixels
SMALL = (
    *("INPUT.MIN_SIZE_TEST", 32, "DATALOADER.NUM_WORKERS", 0),
    *("INPUT.MASK_FORMAT", "bitmask"),  # for run lengths, in training
)


@pytest.fixture
def truth(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], str]:
    """Six images with their ground truth: folder, content, and a config of as many classes."""
    real = request.param == "real"
    root: Path = request.getfixturevalue("real_data" if real else "demo_root")
    content = json.loads((root / "coco/annotations/instances_val2017.json").read_text())
    wanted = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}  # with a crowd, first
    content["images"].sort(key=lambda image: image["id"] not in wanted)
    del content["images"][6:]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    return root, content, "coco_R_50_FPN_1x_infomin" if real else "demo_R_18_FPN"


def small(truth: tuple[Path, dict[str, Any], str], folder: Path, registered: list[str],
          change: Change) -> tuple[str, Any]:  # fmt: skip
    """A copy, changed, as the test set of a config: its name and the config."""
    root, content, name = truth
    content = copy.deepcopy(content)
    images = [image["file_name"] for image in content["images"]]
    change(content)
    (folder / "images").mkdir(parents=True)
    for image in images:
        shutil.copy(root / "coco" / "val2017" / image, folder / "images")
    (folder / "truth.json").write_text(json.dumps(content))
    dataset = f"coco_{folder.parent.name}_{folder.name}"
    register_coco_instances(dataset, {}, str(folder / "truth.json"), str(folder / "images"))
    registered.append(dataset)
    train = "demo_coco_train" if "demo" in name else dataset
    return dataset, config(name, "DATASETS.TRAIN", (train,), "DATASETS.TEST", (dataset,), *SMALL)


def compressed(it: dict[str, Any]) -> None:
    """Masks in run lengths, every second as plain counts."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in it["images"]}
    for annotation in it["annotations"][::2]:
        if not annotation["iscrowd"]:
            parts = rle.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]])
            mask = rle.merge(parts)
            annotation["segmentation"] = mask | {"counts": mask["counts"].decode()}


def labels_are_words(it: dict[str, Any]) -> None:
    names = {c["id"]: f"label {c['id']}" for c in sorted(it["categories"], key=lambda c: c["id"])}
    for category in it["categories"]:
        category["id"] = names[category["id"]]
    for annotation in it["annotations"]:
        annotation["category_id"] = names[annotation["category_id"]]


def as_exported(it: dict[str, Any]) -> None:
    """The header and fields of a well-known exporter's files, which hotcoco does not read."""
    it["info"] = {"year": "2024", "version": "1"}
    it["licenses"] = [{"id": "x", "name": None}]
    for image in it["images"]:
        image |= {"license": "x", "date_captured": 0}


FINE: dict[str, Change] = {
    "as it is": lambda it: None,
    "run lengths": compressed,
    "category ids from 0": lambda it: [
        item.update({key: item[key] - 1})
        for items, key in (("categories", "id"), ("annotations", "category_id"))
        for item in it[items]
    ],
    "no iscrowd where it is 0": lambda it: [
        a.pop("iscrowd") for a in it["annotations"] if not a["iscrowd"]
    ],
}
ANEW, COMPUTED = "annotations numbered anew: ", "areas computed: "
REPAIRED: dict[str, tuple[Change, str]] = {
    "ids from zero": (every("id", lambda n: n), ANEW),
    "ids all one": (every("id", lambda n: 1), ANEW),
    "ids too large": (every("id", lambda n: 2**64 + n), ANEW),
    "ids are lists": (every("id", lambda n: [n]), ANEW),
    "no ids": (without("id"), ANEW),
    "no area": (without("area"), COMPUTED),
    "areas not a number": (every("area", lambda _: float("nan")), COMPUTED),
    "image ids are words": (images(lambda i: f"img_{i}"), "image ids made whole numbers: 6"),
    "image ids with a point": (images(lambda i: i + 0.5), "image ids made whole numbers: 6"),
    "category ids are words": (labels_are_words, "category ids made whole numbers: "),
    "an image twice": (twice("images"), "images listed twice, taken once: 1"),
    "an annotation twice": (twice("annotations"), "annotations listed twice, taken once: 1"),
    "sizes with a point": (
        lambda it: [i.update(width=float(i["width"])) for i in it["images"]],
        "image sizes made whole numbers: 6",
    ),
    "marks that are null": (every("ignore", lambda _: None), "marks that are null, taken for 0: "),
    "as exported": (as_exported, "fields that the evaluator has no use for, left out"),
    "points among polygons": (
        lambda it: [
            a["segmentation"].insert(0, [3, 3, 4, 4]) for a in it["annotations"] if not a["iscrowd"]
        ],
        "masks with polygons of fewer than three points, these left out: ",
    ),
}
ON_REAL_DATA = ("as it is", "run lengths", "ids from zero", "no area", "points among polygons")


@pytest.mark.parametrize(
    ("truth", "case"),
    [*(("demo", case) for case in (*FINE, *REPAIRED)), *(("real", case) for case in ON_REAL_DATA)],
    indirect=["truth"],
)
def test_a_perfect_detector_scores_100(
    truth: tuple[Path, dict[str, Any], str], tmp_path: Path, registered: list[str],
    caplog: pytest.LogCaptureFixture, case: str,
) -> None:  # fmt: skip
    folder = tmp_path / "data"
    change, repairs = REPAIRED[case] if case in REPAIRED else (FINE[case], "")
    name, cfg = small(truth, folder, registered, change)
    text = (folder / "truth.json").read_text()
    said = [sentence for sentence in require_usable(cfg) if name in sentence]
    start = f"dataset {name}: {folder}/truth.json is repaired for this run: {repairs}"
    assert len(said) == (case in REPAIRED) and all(s.startswith(start) for s in said)
    loader = DatasetCatalog[name]
    with usable_datasets(cfg, tmp_path / "run"):
        assert (MetadataCatalog.get(name).json_file == f"{folder}/truth.json") is (case in FINE)
        found = evaluate(cfg, DETECTION, perfect(truth[1]), str(tmp_path / "inference"))
    objects = [a["area"] for a in truth[1]["annotations"] if not a["iscrowd"]]
    present = {s for s, (low, high) in SIZES.items() if any(low <= a < high for a in objects)}
    assert {"s", "m"} <= present
    for task in ("box", "mask"):
        for kind in ("AP", "AP50", "AP75", *(f"AP{size}" for size in sorted(present))):
            assert found[f"{task}_{kind}"] == pytest.approx(100), kind
    assert all(any(sentence in w for w in warnings(caplog)) for sentence in said)
    # The user's file and Detectron2's catalogue are as they were.
    assert (folder / "truth.json").read_text() == text
    assert MetadataCatalog.get(name).json_file == f"{folder}/truth.json"
    assert DatasetCatalog[name] is loader


def words_for_images_alone(it: dict[str, Any]) -> None:
    for image in it["images"]:
        image["id"] = str(image["id"])


short = {"size": [240, 320], "counts": [37430, 6, 37694, 10]}
REFUSED: dict[str, tuple[Change, str]] = {
    "negative boxes": (
        lambda it: [a.update(bbox=[50, 50, -20, -10]) for a in it["annotations"][:2]],
        r"cannot be scored by: 2 of its images and annotations cannot be used, such as annotation "
        r"\d+ of \S+\.jpg: a box of width -20 and height -10; mend \S+truth\.json\.$",
    ),
    "short run lengths": (
        lambda it: [
            a["segmentation"].update(size=[i["height"], i["width"]])
            for i in it["images"]
            for a in it["annotations"]
            if a["image_id"] == i["id"]
            if not a["iscrowd"] and not a.update(segmentation=dict(short))
        ],
        r"such as annotation \d+ of \S+\.jpg: a mask of 75140 pixels, in an image of \d+ x \d+;",
    ),
    "no size": (
        lambda it: [i.update(width=-1, height=-1) for i in it["images"]],
        r"such as image \d+ \(\S+\.jpg\): the width -1 and the height -1;",
    ),
    "no annotations": (
        lambda it: it["annotations"].clear(),
        r"cannot be scored by: \S+truth\.json has no object, or crowds alone",
    ),
    "all crowds": (every("iscrowd", lambda _: 1), r"has no object, or crowds alone"),
    "no annotations key": (
        lambda it: it.pop("annotations"),
        r'truth\.json is no ground truth in COCO\'s format: it has no "annotations"',
    ),
    "image ids of two kinds": (
        words_for_images_alone,
        r"such as annotation \d+: the image_id \d+, which is none of the file's",
    ),
    "an image under two ids": (
        lambda it: it["images"].append(it["images"][0] | {"id": 10**9}),
        r"such as image 1000000000 \(\S+\.jpg\): another id elsewhere in the list;",
    ),
    "other classes": (
        lambda it: it["categories"][0].update(name="cow shed"),
        r"has the classes .*, and coco_\w+ cow shed, .*; give their files the same categories",
    ),
}


@pytest.fixture
def embedded(tmp_path: Path, registered: list[str]) -> Callable[[Change], Any]:
    """A function that makes a config of the embedded val set, ``it/truth.json``, changed."""
    truth = demo.default_root(), instances(), "demo_R_18_FPN"
    return lambda change: small(truth, tmp_path / "it", registered, change)[1]


@pytest.mark.parametrize("case", REFUSED)
def test_a_test_set_is_refused(
    tmp_path: Path, embedded: Callable[[Change], Any], case: str
) -> None:
    change, message = REFUSED[case]
    cfg = embedded(change)
    with pytest.raises(UserError, match=message), usable_datasets(cfg, tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_json_is_named(tmp_path: Path, embedded: Callable[[Change], Any]) -> None:
    cfg, path = embedded(FINE["as it is"]), tmp_path / "it" / "truth.json"
    for text, why in (
        ('{"images": [{"id": 1, "fi', "Unterminated string"),
        ("", "Expecting value"),
        ("[" * 10**6, "recursion"),
        ("\xff", "codec can't decode"),
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=rf"cannot be read: {path}: .*{why}.*; mend {path}\.$"):
            require_usable(cfg)


def test_a_file_is_read_once(
    tmp_path: Path, embedded: Callable[[Change], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, read, judge = embedded(every("id", lambda n: n)), [], judged.judge

    def counted(*args: Any, **kwargs: Any) -> Any:
        read.append(args)
        return judge(*args, **kwargs)

    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judged, "judge", counted)
    said = require_usable(cfg)
    assert len(read) == 2 and len(said) == 1  # of training and test
    assert require_usable(cfg) == said and len(read) == 2
    (tmp_path / "it" / "truth.json").write_text(json.dumps(instances()))
    assert require_usable(cfg) == [] and len(read) == 3
    monkeypatch.setenv("LEWEL_CACHE", "/dev/null")  # nothing can be kept there
    assert require_usable(cfg) == [] and len(read) == 5


def test_a_file_with_a_mark_of_its_encoding_is_read(
    tmp_path: Path, embedded: Callable[[Change], Any]
) -> None:
    cfg = embedded(FINE["as it is"])
    file = tmp_path / "it" / "truth.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert any("the mark of its encoding, left out" in it for it in require_usable(cfg))
    with usable_datasets(cfg, tmp_path / "run"):
        assert len(DatasetCatalog.get(cfg.DATASETS.TEST[0])) == len(instances()["images"])


def test_a_data_set_of_the_users_own_code_is_left_as_it_is(
    tmp_path: Path, registered: list[str]
) -> None:
    records = DatasetCatalog.get("demo_coco_val")[:3]
    json_file = MetadataCatalog.get("demo_coco_val").json_file
    content = json.loads(Path(json_file).read_text())
    every("id", lambda n: 0)(content)  # which a file in COCO's format would be repaired for
    (tmp_path / "own.json").write_text(json.dumps(content))
    DatasetCatalog.register("of_own_code", lambda: records)
    registered.append("of_own_code")
    MetadataCatalog.get("of_own_code").set(
        evaluator_type="coco", json_file=str(tmp_path / "own.json")
    )
    cfg = config("demo_R_18_FPN", "DATASETS.TRAIN", ("of_own_code",), *SMALL)
    with usable_datasets(cfg, tmp_path / "run"):
        assert DatasetCatalog.get("of_own_code") == records
    assert not (tmp_path / "run").exists()
