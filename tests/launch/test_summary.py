"""Means over seeds, and published figures of the same protocol beside them."""

import statistics
from typing import Any

import pandas as pd
import pytest

from detection.config import CONFIGS, config_hash, read_config
from launch import published
from launch.published import LINEAR
from launch.summary import markdown, summarise


def rows(*seeds_and_aps: tuple[int, float], **changes: Any) -> pd.DataFrame:
    common = {
        "config": "coco_R_50_FPN_1x_infomin", "method": "LEWEL_B", "norm": "eman",
        "pretrain_epochs": 200, "lr": 0.02, "batch_size": 16, "iterations": 90000,
        "overrides": "", "weights_sha256": "ab",
    }  # fmt: skip
    return pd.DataFrame(
        [{**common, **changes, "seed": seed, "box_AP": ap} for seed, ap in seeds_and_aps]
    )


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = [57.0, 57.4, 56.9, 57.1, 57.6]
    (row,) = summarise("transfer", rows(*enumerate(values))).to_dict("records")
    expected = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert (row["seeds"], row["box_AP"]) == (5, expected)


def test_one_run_has_no_deviation_and_stands_beside_the_published_figure() -> None:
    (row,) = summarise("transfer", rows((0, 41.0))).to_dict("records")
    assert row["box_AP"] == "41.00" and row["source"] == "LEWEL README, lr ?"
    assert (row["published"], row["difference"]) == ("box_AP 41.3", "-0.30")


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain_epochs": 100},  # never published
        {"overrides": "SOLVER.MAX_ITER 100"},  # another protocol
        {"method": "mine"},
        {"config": "coco_R_50_FPN_1x_moco"},  # another head: LEWEL's figures are not its
        {"config_hash": "0123abcd"},  # a YAML of that name that says something else
        {"lr": 0.04},  # LEWEL's README tells no rate: the config's own
        {"demo": True},
        {"own_data": "cells_train 01234567, cells_val 89abcdef"},
        {"low_lr": True},
        {"eval_only": True},
        {"method": "MoCo v2", "norm": None, "lr": 0.03},  # published with 0.02
        {"method": "SoCo", "norm": None, "config": "coco_R_50_C4_1x_infomin", "lr": 0.03},
    ],
)
def test_nothing_else_stands_beside_a_published_figure(changes: dict[str, Any]) -> None:
    frame = summarise("transfer", rows((0, 41.0), **changes))
    assert "published" not in frame or frame["published"].isna().all()


@pytest.mark.parametrize("lr", [0.003, 0.01])
@pytest.mark.parametrize(("ending", "published"), [("", 75.2), ("_infomin", None)])
def test_a_config_that_is_not_ours_has_none(
    ending: str, published: float | None, lr: float
) -> None:
    """Though ``_infomin`` is a variant of the same protocol elsewhere."""
    config = f"pascal_voc_R_50_FCN_30k{ending}"
    frame = rows((0, 41.0), config=config, method="SimCLR", pretrain_epochs=1000, lr=lr)
    frame = frame.rename(columns={"box_AP": "mIoU"})
    (row,) = summarise("segmentation", frame).to_dict("records")
    why = "other recipe: learning rate searched, central crop of 513 at test"
    assert row.get("published") == (f"mIoU {published} ({why})" if published else None)


SEARCHED = "other recipe: learning rate searched"
SIDE = "other recipe: longer side in training 1200"


@pytest.mark.parametrize(
    ("config", "method", "epochs", "published", "difference"),
    [
        ("coco_R_50_C4_1x_infomin", "SoCo", 100, "box_AP 40.4 (other recipe: weight decay 2.5e-5)",
         None),
        ("coco_R_50_C4_1x_infomin", "BYOL", 200, f"box_AP 37.9 ({SEARCHED})", None),
        ("coco_R_50_C4_1x_infomin", "MoCo v2", 200, "box_AP 38.9", "+2.10"),  # 39.2: searched
        ("coco_R_50_C4_1x_infomin", "PixPro", 400, "box_AP 40.5", "+0.50"),
        ("coco_R_50_C4_1x_moco", "PixPro", 400, "box_AP 40.5 (other recipe: SyncBN)", None),
        ("coco_R_50_FPN_1x_moco", "supervised", 90, "box_AP 38.9 (other recipe: BGR pixels)", None),
        ("coco_R_50_C4_2x_infomin", "BYOL", 200,
         f"box_AP 40.2 ({SIDE}); box_AP 40.3 (superseded; {SIDE})", None),
        ("coco_R_50_C4_2x_infomin", "SimCLR", 200, f"box_AP 39.6 ({SIDE})", None),
        ("pascal_voc_R_50_C4_24k_infomin", "BYOL", 200, "box_AP 49", "-8.00"),  # not 51.87, 55.3
        ("pascal_voc_R_50_C4_24k_moco", "BYOL", 200,
         "box_AP 49 (other recipe: SyncBN); box_AP 51.87 (superseded; other recipe: SyncBN); "
         f"box_AP 55.3 ({SEARCHED}, SyncBN)", None),
        ("coco_R_50_FPN_1x_infomin", "InsLoc", 400,
         "box_AP 42 (other recipe: norm after the box head's fc, FPN and box head pre-trained)",
         None),
        ("coco_R_50_FPN_1x", "supervised", None, "box_AP 39.7", "+1.30"),
        ("coco_R_50_FPN_1x_infomin", "supervised", None, "box_AP 39.7 (other recipe: BGR pixels)",
         None),
        ("coco_R_50_FPN_2x_rand", "random", None, "box_AP 38.4", "+2.60"),
    ],
)  # fmt: skip
def test_a_difference_is_only_from_a_figure_of_the_same_recipe(
    config: str, method: str, epochs: int | None, published: str, difference: str | None
) -> None:
    frame = rows((0, 41.0), config=config, method=method, pretrain_epochs=epochs, norm=None)
    (row,) = summarise("transfer", frame).to_dict("records")
    assert row["published"] == published
    assert row.get("difference") == difference or (
        difference is None and pd.isna(row["difference"])
    )


def test_what_could_not_be_reproduced_says_so() -> None:
    frame = rows((0, 41.0), config="pascal_voc_R_50_FCN_30k", method="BYOL", pretrain_epochs=1000,
                 lr=0.003).rename(columns={"box_AP": "mIoU"})  # fmt: skip
    (row,) = summarise("segmentation", frame).to_dict("records")
    assert row["published"].startswith("mIoU 76.3 (not reproduced; other recipe: learning rate")
    assert "difference" not in row or pd.isna(row["difference"])


def test_every_published_row_is_whole() -> None:
    frame = published.read()
    ours = {published.benchmark_of("transfer", config) for config in published.protocols().index}
    assert set(frame["benchmark"]) == {*ours, "imagenet_linear"} - {"coco_R_50_FPN_2x_moco"}
    statuses = {"published", "superseded", "not reproduced", "other recipe"}
    assert set(frame["status"]) == statuses and frame["source"].str.len().min() > 5
    for row in frame.to_dict("records"):
        differs = pd.notna(row["differs"])
        assert differs or row["status"] != "other recipe", row
        assert not differs or row["status"] != "published", row
        assert sum(pd.notna(row[name]) for name in published.FIGURES) >= 1
        assert pd.notna(row["pretrain_epochs"]) or row["method"] == "random"
    assert not frame.duplicated(
        ["benchmark", "method", "pretrain_epochs", "source", "status"]
    ).any()


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
    ours = rows(
        (0, 68.0), config="pascal_voc_R_50_FCN_D8_20k", method="DenseCL", lr=0.01, norm=None
    )
    (row,) = summarise("segmentation", ours.rename(columns={"box_AP": "mIoU"})).to_dict("records")
    expected = ("mIoU 69.4", "-1.40", "DenseCL README, lr 0.01")
    assert (row["published"], row["difference"], row["source"]) == expected


# The fields that ``differs`` names with a value, as Detectron2 calls them, and what ours have.
RECIPE = {
    "weight decay": ("SOLVER", "WEIGHT_DECAY", 1e-4),
    "longer side in training": ("INPUT", "MAX_SIZE_TRAIN", 1333),
}


def test_a_recipe_that_differs_does_so_from_our_config() -> None:
    compared = set()
    for row in published.read().dropna(subset=["differs"]).to_dict("records"):
        for words in row["differs"].split("; "):
            name, value = words.rsplit(" ", 1)
            if name in RECIPE:
                section, key, expected = RECIPE[name]
                cfg = read_config(str(CONFIGS / f"{row['benchmark']}_infomin.yaml"))
                assert cfg[section][key] == expected != float(value)
                compared.add(name)
    assert compared == RECIPE.keys()


def test_a_variant_that_differs_does_so_in_its_config() -> None:
    """``SyncBN`` and ``BGR pixels`` are said of variants, not of rows."""
    for name in ("coco_R_50_C4_1x", "coco_R_50_C4_2x", "pascal_voc_R_50_C4_24k"):
        cfgs = {e: read_config(str(CONFIGS / f"{name}{e}.yaml")) for e in
                ("", "_rand", "_infomin", "_moco")}  # fmt: skip
        assert [cfg.INPUT.FORMAT for cfg in cfgs.values()] == ["BGR", "BGR", "RGB", "RGB"]
        assert [cfg.MODEL.RESNETS.NORM for cfg in cfgs.values()] == [*["SyncBN"] * 3, "naiveSyncBN"]


@pytest.mark.parametrize(("batch", "lr"), [(16, 0.02), (8, 0.01)])
def test_our_own_config_stands_beside_it(batch: int, lr: float) -> None:
    own = config_hash(str(CONFIGS / "coco_R_50_FPN_1x_infomin.yaml"))
    frame = rows((0, 41.0), config_hash=own, lr=lr, batch_size=batch)
    assert summarise("transfer", frame)["published"].tolist() == ["box_AP 41.3"]


def test_our_configs_are_the_protocols() -> None:
    """One that was changed on purpose is another protocol: its line is to be written anew."""
    shipped = sorted(path for path in CONFIGS.glob("[!B]*.yaml") if "demo" not in path.name)
    assert list(published.protocols().index) == [path.stem for path in shipped]
    for path in shipped:
        solver = read_config(str(path)).SOLVER
        expected = [config_hash(str(path)), solver.BASE_LR]
        assert published.protocols().loc[path.stem].tolist() == expected
        assert solver.IMS_PER_BATCH == 16


def test_experiments_that_differ_are_not_averaged() -> None:
    others = ({"lr": 2e-4}, {"norm": "syncbn"}, {"config_hash": "0123abcd"},
              {"pretrain_recipe": "lr 1.2"}, {"own_data": "cells_val 01234567"})  # fmt: skip
    frame = pd.concat([rows((0, 40.0)), *(rows((0, 30.0), **changes) for changes in others)])
    assert list(summarise("transfer", frame)["seeds"]) == [1] * 6


def test_seeds_of_before_and_of_now_are_one_experiment() -> None:
    """Rows of older versions lack what is told now."""
    now = rows((3, 41.5), (4, 41.5), dataset="coco_2017_val", own_data=None, pretrain_recipe=None)
    (row,) = summarise("transfer", pd.concat([rows((0, 41.0), (1, 41.0)), now])).to_dict("records")
    assert row["seeds"] == 4 and row["difference"] == "-0.05"


def test_a_pretraining_of_another_recipe_has_no_reference() -> None:
    frame = rows((0, 41.0), pretrain_recipe="adapt mlp norms True")
    (row,) = summarise("transfer", frame).to_dict("records")
    why = "other recipe: pre-training: adapt mlp norms True"
    assert row["published"] == f"box_AP 41.3 ({why})" and not row.get("difference")


@pytest.mark.parametrize(
    ("kind", "row", "box", "top1"),
    [
        ("transfer", {"config": "coco_R_50_FPN_1x_rand", "method": "random"}, 32.8, None),
        ("transfer", {"config": "coco_R_50_FPN_1x", "method": "supervised"}, 39.7, None),
        (
            "transfer",
            {"config": "coco_R_50_C4_1x_infomin", "method": "MoCo v2", "pretrain_epochs": 200},
            38.9,  # of lr 0.02; the one whose learning rate was searched has 39.2
            None,
        ),
        (
            "transfer",
            {"config": "coco_R_50_FPN_1x_infomin", "method": "LEWEL_M (re-implementation)",
             "norm": "eman", "pretrain_epochs": 200},
            40.0,
            None,
        ),
        (
            "linear",
            {"method": "LEWEL_B", "norm": "syncbn", "pretrain_epochs": 400, **LINEAR},
            None,
            73.8,
        ),
    ],
)  # fmt: skip
def test_what_was_published(kind: str, row: dict[str, Any], box: float, top1: float) -> None:
    found, *others = published.find(kind, row)
    assert found["source"] and not found["why"] and not others
    assert (found["top1"] if box is None else found["box_AP"]) == (box or top1)


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 96}, {"epochs": 10}, {"architecture": "resnet18"}, {"demo": True}],
)
def test_another_linear_evaluation_has_no_published_figure(changes: dict[str, Any]) -> None:
    row = {"method": "LEWEL_B", "norm": "syncbn", "pretrain_epochs": 400, **LINEAR}
    assert published.find("linear", row) and not published.find("linear", row | changes)


def test_a_linear_evaluation_of_another_recipe_is_no_reference() -> None:
    row = {"method": "MoCo v2", "pretrain_epochs": 200, "lr": 0.4, "batch_size": 256, **LINEAR}
    (found,) = published.find("linear", row)
    assert (found["top1"], found["why"]) == (67.5, "other recipe: learning rate 30, epochs 100")


def test_seeds_of_a_drawn_subset_are_one_experiment_and_a_seed_counts_once() -> None:
    frame = pd.DataFrame(
        [{"method": "mine", "subset": f"seeded 10% seed {s}", "image_size": size, "seed": s,
          "top1": 20.0 + s} for s, size in ((0, 96), (1, 96), (1, 96), (1, 224))]
    )  # fmt: skip
    summary = summarise("semi", frame)
    assert list(summary["seeds"]) == [2, 1] and list(summary["top1"]) == ["20.67 ± 0.58", "21.00"]


def test_markdown_has_no_empty_column() -> None:
    text = markdown("transfer", summarise("transfer", rows((0, 41.0), norm=None, method="mine")))
    head, rule, row, *_ = text.split("\n\n")[1].splitlines()
    assert "norm" not in head and "| config | method |" in head
    assert head.count("|") == rule.count("|") == row.count("|")
