"""Means over seeds, and published figures of the same protocol beside them."""

import statistics
from typing import Any

import pandas as pd
import pytest

from detection.config import read
from launch.options import CONFIGS
from launch.tables.published import LINEAR
from launch.tables.summary import markdown, summarise


def rows(*seeds_and_figures: tuple[int, float], name: str = "box_AP", **changes: Any) -> Any:
    common = {
        "config": "coco_R_50_FPN_1x_infomin", "method": "LEWEL_B", "norm": "eman",
        "pretrain_epochs": 200, "lr": 0.02, "batch_size": 16, "iterations": 90000,
        "overrides": "", "weights_sha256": "ab",
    }  # fmt: skip
    return pd.DataFrame(
        [{**common, **changes, "seed": seed, name: value} for seed, value in seeds_and_figures]
    )


def summary_of(frame: pd.DataFrame, kind: str = "transfer") -> dict[str, Any]:
    """The only row of a summary, without what is empty."""
    (row,) = summarise(kind, frame).to_dict("records")
    return {name: value for name, value in row.items() if pd.notna(value)}


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = [57.0, 57.4, 56.9, 57.1, 57.6]
    row = summary_of(rows(*enumerate(values)))
    expected = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert (row["seeds"], row["box_AP"]) == (5, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain_epochs": 100},  # never published
        {"pretrain_epochs": None},
        {"overrides": "SOLVER.MAX_ITER 100"},  # another protocol
        {"method": "mine"},
        {"config": "coco_R_50_FPN_1x_moco"},  # another head: LEWEL's figures are not its
        {"config": "mine_infomin"},
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
    assert "published" in summary_of(rows((0, 41.0)))
    assert "published" not in summary_of(rows((0, 41.0), **changes))


@pytest.mark.parametrize(("batch", "lr"), [(16, 0.02), (8, 0.01)])
def test_our_own_config_stands_beside_it(batch: int, lr: float) -> None:
    own = read(CONFIGS / "coco_R_50_FPN_1x_infomin.yaml").hash
    row = summary_of(rows((0, 41.0), config_hash=own, lr=lr, batch_size=batch))
    assert (row["box_AP"], row["published"], row["difference"], row["source"]) == (
        *("41.00", "box_AP 41.3", "-0.30", "LEWEL README, lr ?"),
    )


SEARCHED = "other recipe: learning rate searched"
SIDE = "other recipe: longer side in training 1200"
C4, FPN, VOC = "coco_R_50_C4_1x", "coco_R_50_FPN_1x", "pascal_voc_R_50_C4_24k"
D8, FCN = "pascal_voc_R_50_FCN_D8_20k", "pascal_voc_R_50_FCN_30k"


@pytest.mark.parametrize(
    ("config", "method", "epochs", "published", "difference"),
    [
        (f"{C4}_infomin", "SoCo", 100, "box_AP 40.4 (other recipe: weight decay 2.5e-5)", None),
        (f"{C4}_infomin", "BYOL", 200, f"box_AP 37.9 ({SEARCHED})", None),
        (f"{C4}_infomin", "MoCo v2", 200, "box_AP 38.9", "+2.10"),  # 39.2: searched
        (f"{C4}_infomin", "PixPro", 400, "box_AP 40.5", "+0.50"),
        (f"{C4}_moco", "PixPro", 400, "box_AP 40.5 (other recipe: SyncBN)", None),
        (f"{FPN}_moco", "supervised", 90, "box_AP 38.9 (other recipe: BGR pixels)", None),
        ("coco_R_50_C4_2x_infomin", "BYOL", 200,
         f"box_AP 40.2 ({SIDE}); box_AP 40.3 (superseded; {SIDE})", None),
        ("coco_R_50_C4_2x_infomin", "SimCLR", 200, f"box_AP 39.6 ({SIDE})", None),
        (f"{VOC}_infomin", "BYOL", 200, "box_AP 49", "-8.00"),  # not 51.87, 55.3
        (f"{VOC}_moco", "BYOL", 200,
         "box_AP 49 (other recipe: SyncBN); box_AP 51.87 (superseded; other recipe: SyncBN); "
         f"box_AP 55.3 ({SEARCHED}, SyncBN)", None),
        (f"{FPN}_infomin", "InsLoc", 400,
         "box_AP 42 (other recipe: norm after the box head's fc, FPN and box head pre-trained)",
         None),
        (FPN, "supervised", None, "box_AP 39.7", "+1.30"),
        (f"{FPN}_infomin", "supervised", None, "box_AP 39.7 (other recipe: BGR pixels)", None),
        (f"{FPN}_rand", "random", None, "box_AP 32.8", "+8.20"),
        ("coco_R_50_FPN_2x_rand", "random", None, "box_AP 38.4", "+2.60"),
        (D8, "DenseCL", 200, "mIoU 69.4", "-28.40"),
        (FCN, "BYOL", 1000, f"mIoU 76.3 (not reproduced; {SEARCHED}, central crop of 513 at test)",
         None),
        (FCN, "SimCLR", 1000, f"mIoU 75.2 ({SEARCHED}, central crop of 513 at test)", None),
        (f"{FCN}_infomin", "SimCLR", 1000, None, None),  # not ours, though a variant elsewhere
    ],
)  # fmt: skip
def test_a_difference_is_only_from_a_figure_of_the_same_recipe(
    config: str, method: str, epochs: int | None, published: str, difference: str | None
) -> None:
    lr = 0.01 if config == D8 else 0.003 if config.startswith(FCN) else 0.02
    kind, name = ("segmentation", "mIoU") if "FCN" in config else ("transfer", "box_AP")
    changes = {"config": config, "method": method, "pretrain_epochs": epochs, "norm": None}
    row = summary_of(rows((0, 41.0), name=name, lr=lr, **changes), kind)
    assert (row.get("published"), row.get("difference")) == (published, difference)


@pytest.mark.parametrize(
    ("changes", "published", "difference"),
    [
        (  # the rate is what differs: any rate stands beside it
            {"config": FCN, "method": "SimCLR", "pretrain_epochs": 1000, "lr": 0.01},
            f"mIoU 75.2 ({SEARCHED}, central crop of 513 at test)",
            None,
        ),
        (
            {"pretrain_recipe": "adapt mlp norms True"},
            "box_AP 41.3 (other recipe: pre-training: adapt mlp norms True)",
            None,
        ),
        ({"method": "LEWEL_M (re-implementation)"}, "box_AP 40", "+1.00"),
    ],
)
def test_a_row_that_is_not_quite_what_was_published(
    changes: dict[str, Any], published: str, difference: str | None
) -> None:
    name = "mIoU" if "config" in changes else "box_AP"
    row = summary_of(rows((0, 41.0), name=name, **changes))
    assert (row["published"], row.get("difference")) == (published, difference)


@pytest.mark.parametrize(
    ("changes", "published"),
    [
        ({}, "top1 73.8"),
        ({"image_size": 96}, None),
        ({"epochs": 10}, None),
        ({"architecture": "resnet18"}, None),
        ({"demo": True}, None),
        (
            {"method": "MoCo v2", "norm": None, "pretrain_epochs": 200},
            "top1 67.5 (other recipe: learning rate 30, epochs 100)",
        ),
    ],
)
def test_linear_evaluation(changes: dict[str, Any], published: str | None) -> None:
    row = {"method": "LEWEL_B", "norm": "syncbn", "pretrain_epochs": 400, "seed": 0, "top1": 70.0}
    row |= {"lr": 0.4, "batch_size": 256, **LINEAR, **changes}
    assert summary_of(pd.DataFrame([row]), "linear").get("published") == published


def test_experiments_that_differ_are_not_averaged() -> None:
    others = ({"lr": 2e-4}, {"norm": "syncbn"}, {"config_hash": "0123abcd"},
              {"pretrain_recipe": "lr 1.2"}, {"own_data": "cells_val 01234567"})  # fmt: skip
    frame = pd.concat([rows((0, 40.0)), *(rows((0, 30.0), **changes) for changes in others)])
    assert list(summarise("transfer", frame)["seeds"]) == [1] * 6


def test_seeds_of_before_and_of_now_are_one_experiment() -> None:
    """Rows of older versions lack what is told now."""
    now = rows((3, 41.5), (4, 41.5), dataset="coco_2017_val", own_data=None, pretrain_recipe=None)
    row = summary_of(pd.concat([rows((0, 41.0), (1, 41.0)), now]))
    assert row["seeds"] == 4 and row["difference"] == "-0.05"


def test_seeds_of_a_drawn_subset_are_one_experiment_and_a_seed_counts_once() -> None:
    frame = pd.DataFrame(
        [{"method": "mine", "subset": f"seeded 10% seed {s}", "image_size": size, "seed": s,
          "top1": 20.0 + s} for s, size in ((0, 96), (1, 96), (1, 96), (1, 224))]
    )  # fmt: skip
    summary = summarise("semi", frame)
    assert list(summary["seeds"]) == [2, 1] and list(summary["top1"]) == ["20.67 ± 0.58", "21.00"]


def test_markdown_has_no_empty_column() -> None:
    text = markdown("transfer", summarise("transfer", rows((0, 41.0), norm=None, method="mine")))
    title, table = text.split("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert title == "## transfer" and set("".join(cells[1])) == {"-"}
    row = dict(zip(cells[0], cells[2], strict=True))
    assert "norm" not in row and list(row)[:2] == ["config", "method"]
    assert (row["lr"], row["iterations"], row["box_AP"]) == ("0.02", "90000", "41.00")
