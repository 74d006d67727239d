"""Published figures of the same protocols, each with its source: ``published.csv``."""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
PROTOCOLS = Path(__file__).with_name("protocols.csv")
VARIANT = re.compile(r"_(infomin|moco|rand)$")
# Published with SyncBN, which MoCo's C4 and VOC configs do not have.
SYNCBN = re.compile(r"LEWEL|InfoMin")

# Columns of our tables and of published.csv.
FIGURES = (
    *("box_AP", "box_AP50", "box_AP75"),
    *("mask_AP", "mask_AP50", "mask_AP75"),
    *("mIoU", "top1"),
)

# A linear evaluation that can be compared with a published one; beside it the name of its protocol.
LINEAR = {"architecture": "resnet50", "image_size": 224, "epochs": 50, "demo": False}
LINEAR_PROTOCOL = "linear 50ep"


def read() -> pd.DataFrame:
    """All published rows, as in the file."""
    return pd.read_csv(FILE, dtype={"pretrain_epochs": "Int64", "lr": str})


def protocols() -> pd.DataFrame:
    """Our configs by name, as they are shipped: ``config_hash`` and ``lr``.

    From a file: a YAML that is edited in its place is another protocol.
    """
    return pd.read_csv(PROTOCOLS, index_col="config", dtype={"config_hash": str})


def benchmark_of(kind: str, config: str) -> str:
    """What ``published.csv`` calls the protocol of a run.

    A config's variants are one protocol, though MoCo's C4 and VOC ones synchronise BatchNorm in
    another way (see :data:`SYNCBN`); but MoCo's FPN has another head, and is a protocol of its own.

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
        Its figures and its ``source``; None if nothing is published, the run is of another size,
        norm or learning rate than the protocol's (the config's own, where no rate was published),
        of another YAML than ours of that name, or only evaluated a detector, of whose training its
        row does not tell. Of several rows the first, unless another one was made with the config's
        own learning rate.
    """
    if any(row.get(name) is True for name in ("demo", "low_lr", "eval_only")):
        return None
    if kind == "linear" and any(row.get(name) != value for name, value in LINEAR.items()):
        return None
    frame = read()
    config = "" if pd.isna(row.get("config")) else str(row["config"])
    ours, said = protocols(), row.get("config_hash")
    if config and config not in ours.index:
        return None
    if config and pd.notna(said) and said != ours.at[config, "config_hash"]:
        return None
    if "_C4_" in config and config.endswith("_moco") and SYNCBN.match(str(row["method"])):
        return None
    wanted = frame["benchmark"] == benchmark_of(kind, config)
    norm = row.get("norm")
    wanted &= frame["method"] == method_of(str(row["method"]), "" if pd.isna(norm) else str(norm))
    if kind == "linear":
        wanted &= frame["protocol"] == LINEAR_PROTOCOL
    epochs = row.get("pretrain_epochs")
    published = frame["pretrain_epochs"]
    if row["method"] not in ("random", "supervised"):
        wanted &= False if pd.isna(epochs) else published == epochs
    found = frame[wanted.fillna(False)]
    if not len(found):
        return None
    rates = pd.to_numeric(found["lr"], errors="coerce")
    own = found[rates.notna()]
    best = (own if len(own) else found).iloc[0]
    lr, theirs = row.get("lr"), pd.to_numeric(best["lr"], errors="coerce")
    if config and pd.isna(best["lr"]):
        theirs = ours.at[config, "lr"]
    if lr is not None and pd.notna(lr) and pd.notna(theirs) and not _near(lr, theirs, row):
        return None
    return dict(best)


def _near(ours: float, theirs: float, row: dict[str, Any]) -> bool:
    """Whether two learning rates are the same, ours scaled to the published batch."""
    batch = row.get("batch_size")
    published = 256 if "architecture" in row else 16
    scale = published / batch if batch is not None and pd.notna(batch) else 1
    return math.isclose(ours * scale, theirs, rel_tol=1e-3)
