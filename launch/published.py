"""Published figures of the same protocols, each with its source: ``published.csv``.

A row's ``status`` is ``published``, ``superseded`` (by its own authors), ``not reproduced`` (by
others, publicly) or ``other recipe``; ``differs`` names the fields of its recipe that are not those
of the config that it stands beside, separated by ``; ``; ``note`` tells where that was read.
"""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
PROTOCOLS = Path(__file__).with_name("protocols.csv")
VARIANT = re.compile(r"_(infomin|moco|rand)$")
STARTS = ("random", "supervised")  # no pre-training whose epochs could differ

# Columns of our tables and of published.csv.
FIGURES = (
    *("box_AP", "box_AP50", "box_AP75"),
    *("mask_AP", "mask_AP50", "mask_AP75"),
    *("mIoU", "top1"),
)

# A linear evaluation that can be compared with a published one.
LINEAR = {"architecture": "resnet50", "image_size": 224, "epochs": 50, "demo": False}


def read() -> pd.DataFrame:
    """All published rows, as in the file."""
    text = dict.fromkeys(("lr", "differs", "note"), str)
    return pd.read_csv(FILE, dtype={"pretrain_epochs": "Int64", **text})


def protocols() -> pd.DataFrame:
    """Our configs by name, as they are shipped: ``config_hash`` and ``lr``.

    From a file: a YAML that is edited in its place is another protocol.
    """
    return pd.read_csv(PROTOCOLS, index_col="config", dtype={"config_hash": str})


def benchmark_of(kind: str, config: str) -> str:
    """What ``published.csv`` calls the protocol of a run.

    A config's variants are one protocol, though not always what was published (:func:`_variant`);
    but MoCo's FPN has another head, and is a protocol of its own.

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


def find(kind: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Published rows of the same protocol, method and pre-training epochs as one of ours.

    Args:
        kind: of the run, as in ``runs/<kind>/``.
        row: a row of its results table.

    Returns:
        The reference: the first row of status ``published`` whose recipe is that of the run's
        config. Where there is none, all others. Each has its figures, its ``source`` and ``why``
        it is no reference, "" for one that is. Nothing, if nothing is published, the run is of
        another size, norm or learning rate than the protocol's (the config's own, where no rate
        was published; any, where that is what differs), of another YAML than ours of that name, or
        only evaluated a detector, of whose training its row does not tell.
    """
    if any(row.get(name) is True for name in ("demo", "low_lr", "eval_only")):
        return []
    if pd.notna(row.get("own_data")):  # scored on another test set
        return []
    if kind == "linear" and any(row.get(name) != value for name, value in LINEAR.items()):
        return []
    config = "" if pd.isna(row.get("config")) else str(row["config"])
    ours, said = protocols(), row.get("config_hash")
    if config and config not in ours.index:
        return []
    if config and pd.notna(said) and said != ours.at[config, "config_hash"]:
        return []
    frame, norm = read(), row.get("norm")
    wanted = frame["benchmark"] == benchmark_of(kind, config)
    wanted &= frame["method"] == method_of(str(row["method"]), "" if pd.isna(norm) else str(norm))
    epochs = row.get("pretrain_epochs")
    if row["method"] not in STARTS:
        wanted &= False if pd.isna(epochs) else frame["pretrain_epochs"] == epochs
    found = []
    for known in frame[wanted.fillna(False)].to_dict("records"):
        differs = str(known["differs"]).split("; ") if pd.notna(known["differs"]) else []
        theirs = pd.to_numeric(known["lr"], errors="coerce")
        if config and pd.isna(known["lr"]):
            theirs = ours.at[config, "lr"]
        if _another_rate(row, theirs) and not any(d.startswith("learning rate") for d in differs):
            continue
        differs += _variant(config, str(known["benchmark"]), str(row["method"]))
        if pd.notna(recipe := row.get("pretrain_recipe")):
            differs.append(f"pre-training: {recipe}")
        why = [known["status"]] if known["status"] not in ("published", "other recipe") else []
        why += ["other recipe: " + ", ".join(differs)] if differs else []
        found.append({**known, "why": "; ".join(why)})
    return [known for known in found if not known["why"]][:1] or found


def _variant(config: str, benchmark: str, method: str) -> list[str]:
    """In what a variant of a benchmark's config is not what the figures were made with.

    Named is what was published: MoCo, too, measured with SyncBN, and random and supervised starts
    had the pixels of MSRA's ResNet, as our ``_rand`` and the config without a suffix do.
    """
    if not config.endswith(("_infomin", "_moco")):
        return []
    pixels = ["BGR pixels"] if method in STARTS else []
    return pixels + (["SyncBN"] if config == f"{benchmark}_moco" else [])


def _another_rate(row: dict[str, Any], published: float) -> bool:
    """Whether a run's learning rate, scaled to the published batch, is not the published one."""
    lr, batch = row.get("lr"), row.get("batch_size")
    if lr is None or pd.isna(lr) or pd.isna(published):
        return False
    scale = 1 if batch is None or pd.isna(batch) else (256 if "architecture" in row else 16) / batch
    return not math.isclose(lr * scale, published, rel_tol=1e-3)
