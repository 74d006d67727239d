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
        {"low_lr": True},
        {"eval_only": True},
        {"method": "MoCo v2", "norm": None, "lr": 0.03},  # published with 0.02
    ],
)
def test_nothing_else_stands_beside_a_published_figure(changes: dict[str, Any]) -> None:
    frame = summarise("transfer", rows((0, 41.0), **changes))
    assert "published" not in frame or frame["published"].isna().all()


@pytest.mark.parametrize(("ending", "published"), [("", 76.3), ("_infomin", None)])
def test_a_config_that_is_not_ours_has_none(ending: str, published: float | None) -> None:
    """Though ``_infomin`` is a variant of the same protocol elsewhere."""
    config = f"pascal_voc_R_50_FCN_30k{ending}"
    frame = rows((0, 41.0), config=config, method="BYOL", pretrain_epochs=1000, lr=0.003)
    frame = frame.rename(columns={"box_AP": "mIoU"})
    (row,) = summarise("segmentation", frame).to_dict("records")
    assert row.get("published") == (f"mIoU {published}" if published else None)


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
    others = ({"lr": 2e-4}, {"norm": "syncbn"}, {"config_hash": "0123abcd"})
    frame = pd.concat([rows((0, 40.0)), *(rows((0, 30.0), **changes) for changes in others)])
    assert list(summarise("transfer", frame)["seeds"]) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "row", "box", "top1"),
    [
        ("transfer", {"config": "coco_R_50_FPN_1x_rand", "method": "random"}, 32.8, None),
        ("transfer", {"config": "coco_R_50_FPN_1x", "method": "supervised"}, 39.7, None),
        ("transfer", {"config": "coco_R_50_FPN_1x_moco", "method": "supervised"}, 38.9, None),
        (
            "transfer",
            {"config": "coco_R_50_C4_1x_moco", "method": "MoCo v2", "pretrain_epochs": 200},
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
    found = published.find(kind, row)
    assert found is not None and found["source"]
    assert (found["top1"] if box is None else found["box_AP"]) == (box or top1)


@pytest.mark.parametrize("config", ["coco_R_50_C4_1x", "coco_R_50_C4_2x", "pascal_voc_R_50_C4_24k"])
@pytest.mark.parametrize("method", ["LEWEL_B", "InfoMin"])
def test_what_was_published_with_syncbn_is_not_of_naive_syncbn(config: str, method: str) -> None:
    row = {"method": method, "norm": "eman", "pretrain_epochs": 200}
    assert published.find("transfer", row | {"config": f"{config}_moco"}) is None
    if (config, method) in (("coco_R_50_C4_1x", "LEWEL_B"), ("coco_R_50_C4_2x", "InfoMin")):
        assert published.find("transfer", row | {"config": f"{config}_infomin"})


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 96}, {"epochs": 10}, {"architecture": "resnet18"}, {"demo": True},
     {"method": "MoCo v2", "norm": None, "pretrain_epochs": 200}],  # of another protocol
)  # fmt: skip
def test_another_linear_evaluation_has_no_published_figure(changes: dict[str, Any]) -> None:
    row = {"method": "LEWEL_B", "norm": "syncbn", "pretrain_epochs": 400, **LINEAR}
    assert published.find("linear", row) and not published.find("linear", row | changes)


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
