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
STARTS = ("random", "supervised")  # no pre-training whose epochs could differ

# Columns of our tables and of published.csv.
FIGURES = "box_AP box_AP50 box_AP75 mask_AP mask_AP50 mask_AP75 mIoU top1".split()

# A linear evaluation that can be compared with a published one.
LINEAR = {"architecture": "resnet50", "image_size": 224, "epochs": 50, "demo": False}


def read() -> pd.DataFrame:
    """All published rows, as in the file."""
    text = dict.fromkeys(("lr", "differs", "note"), str)
    return pd.read_csv(FILE, dtype={"pretrain_epochs": "Int64", **text}).fillna(
        dict.fromkeys(text, "")
    )


def protocols() -> pd.DataFrame:
    """Our configs by name, as they are shipped: ``config_hash`` and ``lr``.

    From a file: a YAML that is edited in its place is another protocol.
    """
    return pd.read_csv(PROTOCOLS, index_col="config", dtype={"config_hash": str})


def benchmark_of(kind: str, config: str) -> str:
    """The name of a run's protocol in ``published.csv``.

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
    return re.sub(r"_(infomin|moco|rand)$", "", config)


def method_of(method: str, norm: str) -> str:
    """The name of a method of ours in ``published.csv``.

    >>> method_of("LEWEL_B", "eman")
    'LEWEL_B (EMAN)'
    """
    norms = {"eman": "EMAN", "syncbn": "SyncBN"}
    if method == "LEWEL_B" and norm in norms:
        return f"LEWEL_B ({norms[norm]})"
    return method.removesuffix(" (re-implementation)")


def find(kind: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Published rows of the same protocol, method and pre-training epochs as a row of our tables.

    The reference alone, which is the first row of status ``published`` whose recipe is that of the
    run's config; where there is none, all others. ``why`` says why a row is no reference, "" for
    one that is. Nothing for a run that is not the protocol's (:func:`_is_protocols`) or has another
    learning rate than was published (the config's own, where none was; any, where it differs).
    """
    row = {name: value for name, value in row.items() if pd.notna(value)}
    config, method, ours = row.get("config", ""), row["method"], protocols()
    if not _is_protocols(kind, row, ours):
        return []
    frame = read()
    wanted = frame["benchmark"] == benchmark_of(kind, config)
    wanted &= frame["method"] == method_of(method, row.get("norm", ""))
    if method not in STARTS:
        wanted &= frame["pretrain_epochs"] == row.get("pretrain_epochs")
    found = []
    for known in frame[wanted.fillna(False)].to_dict("records"):
        differs = known["differs"].split("; ") if known["differs"] else []
        lr = known["lr"] or (ours.at[config, "lr"] if config else "")
        if _another_rate(row, lr) and not any(d.startswith("learning rate") for d in differs):
            continue
        differs += _variant(config, known["benchmark"], method)
        if "pretrain_recipe" in row:
            differs.append(f"pre-training: {row['pretrain_recipe']}")
        why = [known["status"]] if known["status"] in ("superseded", "not reproduced") else []
        why += ["other recipe: " + ", ".join(differs)] if differs else []
        found.append({**known, "why": "; ".join(why)})
    return [known for known in found if not known["why"]][:1] or found


def _is_protocols(kind: str, row: dict[str, Any], ours: pd.DataFrame) -> bool:
    """True if a run can be compared with its protocol's figures.

    It cannot if it is of another size or test set than the protocol's, of another YAML than ours of
    that name, or only evaluated a detector, of whose training its row does not tell.
    """
    if any(row.get(name) for name in ("demo", "low_lr", "eval_only", "own_data")):
        return False
    if kind == "linear":
        return all(row.get(name) == value for name, value in LINEAR.items())
    if "config" not in row:
        return True
    shipped = ours["config_hash"].get(row["config"])
    return shipped is not None and row.get("config_hash", shipped) == shipped


def _variant(config: str, benchmark: str, method: str) -> list[str]:
    """The differences of a variant of a benchmark's config from what the figures were made with.

    MoCo, too, measured with SyncBN, and random and supervised starts had the pixels of MSRA's
    ResNet, as our ``_rand`` and the config without a suffix do.
    """
    if not config.endswith(("_infomin", "_moco")):
        return []
    pixels = ["BGR pixels"] if method in STARTS else []
    return pixels + (["SyncBN"] if config == f"{benchmark}_moco" else [])


def _another_rate(row: dict[str, Any], published: str | float) -> bool:
    """True if a run's learning rate, scaled to the published batch, is not the published one."""
    rate = pd.to_numeric(published, errors="coerce")  # some are words
    if "lr" not in row or pd.isna(rate):
        return False
    batch = 256 if "architecture" in row else 16
    lr = row["lr"] * batch / row.get("batch_size", batch)
    return not math.isclose(lr, rate, rel_tol=1e-3)
