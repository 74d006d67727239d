"""``published.csv`` and ``protocols.csv`` say what was published, and what our configs are."""

import pandas as pd
import pytest

from detection.config import read
from launch.options import CONFIGS
from launch.tables import published

# The fields that ``differs`` names with a value, as Detectron2 calls them, and what ours have.
RECIPE = {
    "weight decay": ("SOLVER", "WEIGHT_DECAY", 1e-4),
    "longer side in training": ("INPUT", "MAX_SIZE_TRAIN", 1333),
}


def test_every_published_row_is_whole() -> None:
    frame = published.read()
    ours = {published.benchmark_of("transfer", config) for config in published.protocols().index}
    assert set(frame["benchmark"]) == {*ours, "imagenet_linear"} - {"coco_R_50_FPN_2x_moco"}
    statuses = {"published", "superseded", "not reproduced", "other recipe"}
    assert set(frame["status"]) == statuses and frame["source"].str.len().min() > 5
    for row in frame.to_dict("records"):
        assert row["differs"] or row["status"] != "other recipe", row
        assert not row["differs"] or row["status"] != "published", row
        assert any(pd.notna(row[name]) for name in published.FIGURES)
        assert pd.notna(row["pretrain_epochs"]) or row["method"] == "random"
    same = ["benchmark", "method", "pretrain_epochs", "source", "status"]
    assert not frame.duplicated(same).any()


@pytest.mark.parametrize(
    ("benchmark", "method", "epochs", "figures"),
    [  # as their READMEs and model zoos have them
        ("coco_R_50_C4_1x", "InsLoc", 200, [(39.5, 34.5)]),
        ("coco_R_50_C4_2x", "InsLoc", 400, [(41.8, 36.3)]),
        ("coco_R_50_FPN_1x", "InsLoc", 400, [(42.0, 37.6)]),
        ("coco_R_50_FPN_2x", "InsLoc", 200, [(43.2, 38.7)]),
        ("coco_R_50_FPN_2x", "MoCo v2", 800, [(42.5, 38.2)]),
        ("coco_R_50_C4_2x", "BYOL", 200, [(40.2, 34.9), (40.3, 35.1)]),
    ],
)
def test_figures_are_as_published(
    benchmark: str, method: str, epochs: int, figures: list[tuple[float, float]]
) -> None:
    frame = published.read().set_index(["benchmark", "method", "pretrain_epochs"])
    found = frame.loc[[(benchmark, method, epochs)]]
    assert list(zip(found["box_AP"], found["mask_AP"], strict=True)) == figures


def test_voc_segmentation_at_stride_8_is_as_published() -> None:
    frame = published.read()
    frame = frame[frame["benchmark"] == "pascal_voc_R_50_FCN_D8_20k"].set_index("method")["mIoU"]
    assert frame["MoCo v2"].tolist() == [67.5, 67.55] and frame["DenseCL"].tolist() == [69.4, 69.47]
    assert frame.drop(["MoCo v2", "DenseCL"]).to_dict() == {
        "supervised": 67.7, "BYOL": 67.16, "SwAV": 63.73, "SimCLR": 64.03, "NPID": 65.45,
        "Rotation-Pred": 64.31, "Relative-Loc": 63.49,
    }  # fmt: skip


def test_a_recipe_that_differs_does_so_from_our_config() -> None:
    compared = set()
    frame = published.read()
    for row in frame[frame["differs"] != ""].to_dict("records"):
        for words in row["differs"].split("; "):
            name, value = words.rsplit(" ", 1)
            if name in RECIPE:
                section, key, expected = RECIPE[name]
                cfg = read(CONFIGS / f"{row['benchmark']}_infomin.yaml").cfg
                assert cfg[section][key] == expected != float(value)
                compared.add(name)
    assert compared == RECIPE.keys()


def test_a_variant_that_differs_does_so_in_its_config() -> None:
    """``SyncBN`` and ``BGR pixels`` are said of variants, not of rows."""
    for name in ("coco_R_50_C4_1x", "coco_R_50_C4_2x", "pascal_voc_R_50_C4_24k"):
        cfgs = {e: read(CONFIGS / f"{name}{e}.yaml").cfg for e in
                ("", "_rand", "_infomin", "_moco")}  # fmt: skip
        assert [cfg.INPUT.FORMAT for cfg in cfgs.values()] == ["BGR", "BGR", "RGB", "RGB"]
        assert [cfg.MODEL.RESNETS.NORM for cfg in cfgs.values()] == [*["SyncBN"] * 3, "naiveSyncBN"]


def test_our_configs_are_the_protocols() -> None:
    """One that was changed on purpose is another protocol: its line is to be written anew."""
    shipped = sorted(path for path in CONFIGS.glob("[!B]*.yaml") if "demo" not in path.name)
    assert list(published.protocols().index) == [path.stem for path in shipped]
    for path in shipped:
        yaml = read(path)
        solver = yaml.cfg.SOLVER
        expected = [yaml.hash, solver.BASE_LR]
        assert published.protocols().loc[path.stem].tolist() == expected
        assert solver.IMS_PER_BATCH == 16
