"""Published figures of the same protocols, each with its source: ``published.csv``."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
VARIANT = re.compile(r"_(infomin|moco|rand)$")

# A column of our tables -> the column of published.csv with the same figure.
FIGURES = {
    "box_AP": "box_AP",
    "box_AP50": "box_AP50",
    "box_AP75": "box_AP75",
    "mask_AP": "mask_AP",
    "mask_AP50": "mask_AP50",
    "mask_AP75": "mask_AP75",
    "mIoU": "mIoU",
    "top1": "top1",
}


def read() -> pd.DataFrame:
    """All published rows, as in the file."""
    return pd.read_csv(FILE, dtype={"pretrain_epochs": "Int64", "lr": str})


def benchmark_of(kind: str, config: str) -> str:
    """What ``published.csv`` calls the protocol of a run.

    A config's variants differ in pixel statistics and weights, not in protocol; but MoCo's FPN has
    another head, and is a protocol of its own.

    >>> benchmark_of("transfer", "coco_R_50_FPN_1x_infomin")
    'coco_R_50_FPN_1x'
    >>> benchmark_of("transfer", "coco_R_50_FPN_1x_moco")
    'coco_R_50_FPN_1x_moco'
    """
    if kind == "linear":
        return "imagenet_linear"
    if "_FPN_" in config and config.endswith("_moco"):
        return config
    return VARIANT.sub("", config)


def method_of(method: str, norm: str) -> str:
    """What ``published.csv`` calls a method of ours.

    >>> method_of("LEWEL_B", "eman")
    'LEWEL_B (EMAN)'
    """
    norms = {"eman": "EMAN", "syncbn": "SyncBN"}
    if method == "LEWEL_B" and norm in norms:
        return f"LEWEL_B ({norms[norm]})"
    return method.removesuffix(" (re-implementation)")


def find(kind: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """The published row of the same protocol, method and pre-training epochs as one of ours.

    Args:
        kind: of the run, as in ``runs/<kind>/``.
        row: a row of its results table.

    Returns:
        Its figures and its ``source``; None if nothing is published. Of several rows the first,
        unless another one was made with the config's own learning rate.
    """
    frame = read()
    config = row.get("config")
    wanted = frame["benchmark"] == benchmark_of(kind, "" if pd.isna(config) else str(config))
    norm = row.get("norm")
    wanted &= frame["method"] == method_of(str(row["method"]), "" if pd.isna(norm) else str(norm))
    epochs = row.get("pretrain_epochs")
    published = frame["pretrain_epochs"]
    if row["method"] not in ("random", "supervised"):
        wanted &= False if pd.isna(epochs) else published == epochs
    found = frame[wanted.fillna(False)]
    if not len(found):
        return None
    own = found[found["lr"].isin(["0.02", "0.003"])]
    return dict((own if len(own) else found).iloc[0])
