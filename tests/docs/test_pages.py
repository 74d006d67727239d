"""The README and ``docs/`` hold what files of the project say: links, figures, formats, options."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pytest
import yaml

from common.formats import FORMATS
from detection.config import read
from launch.tables import published
from pretrain import methods
from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, tables

README = ROOT / "README.md"
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # that has what is gone
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
SCRIPTS = "pretrain transfer linear semi benchmark results report doctor"
COMMANDS = (
    *([f"launch/{name}.py", "--help-all"] for name in SCRIPTS.split()),
    ["-m", "detection.convert", "--help-all"],
    ["-m", "install_detectron2", "--help"],
)


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        address = urlparse(link)
        if address.scheme:
            assert address.scheme in ("http", "https") and "." in address.netloc, link
            continue
        target = (page.parent / address.path).resolve() if address.path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        if address.fragment:
            assert address.fragment in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    linked = {(ROOT / urlparse(link).path).resolve() for link in links(README)}
    assert {*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"} <= linked
    assert 100 <= len(README.read_text().splitlines()) <= 170


def test_published_figures_are_those_of_the_csv() -> None:
    frame = published.read()
    (shown,) = (rows for rows in tables(README) if "box AP" in rows[0])
    config = ""
    for row in shown:
        config = row["config"].strip("`") or config
        epochs = int(row["epochs"]) if row["epochs"] else pd.NA
        wanted = frame[
            (frame["benchmark"] == config)
            & (frame["method"] == row["method"])
            & (
                frame["pretrain_epochs"].isna()
                if epochs is pd.NA
                else frame["pretrain_epochs"] == epochs
            )
            & (frame["source"] == row["source"])
            & (frame["status"] == "published")
        ]
        assert len(wanted) == 1, row
        figures = [f"{wanted[name].iat[0]:.1f}" for name in ("box_AP", "mask_AP")]
        assert figures == [row["box AP"], row["mask AP"]], row
    assert f"All {len(frame)} rows" in README.read_text()


def test_figures_in_sentences_are_those_of_the_csv() -> None:
    frame = published.read()
    supervised = frame[frame["method"] == "supervised"].set_index("benchmark")["box_AP"]
    miou = frame.groupby("benchmark")["mIoU"]
    low, high = miou.min(), miou.max()
    text = " ".join((ROOT / "docs" / "protocols.md").read_text().split())
    fpn, d8, fcn = "coco_R_50_FPN_1x", "pascal_voc_R_50_FCN_D8_20k", "pascal_voc_R_50_FCN_30k"
    for sentence in (
        f"has {supervised[fpn]} box AP in InfoMin's at 1x",
        f"and {supervised[f'{fpn}_moco']} in MoCo's",
        f"FCN-D8 is the one of most published figures of this family ({low[d8]:.1f} to "
        f"{high[d8]:.1f} mIoU), FCN-16s that of MoCo and BYOL ({low[fcn]:.1f} to {high[fcn]:.1f})",
    ):
        assert sentence in text, sentence


def test_recipes_are_those_of_the_methods() -> None:
    (shown,) = (rows for rows in tables(ROOT / "docs" / "pretraining.md") if "lr" in rows[0])
    known = {
        (name, recipe.norm, str(recipe.epochs)): recipe
        for name, method in methods.methods().items()
        for recipe in method.recipes
    }
    name = ""
    for row in (row for row in shown if row["batch"]):
        name = row["method"].strip("`") or name
        for norm in re.findall(r"\w+", row["norm"]):
            recipe = known.pop((name, norm, row["epochs"]))
            numbers = (recipe.batch_size, recipe.lr, recipe.weight_decay, recipe.base_momentum)
            columns = ("batch", "lr", "weight decay", "momentum")
            assert tuple(float(row[column]) for column in columns) == numbers, row
            if row["MLPs' norms"]:
                assert recipe.adapt_mlp_norms == (row["MLPs' norms"] == "adapted"), row
    assert {name for name, _, _ in known} == {"byol"}  # which has LEWEL_B's


def test_all_formats_are_in_the_table() -> None:
    (shown,) = (rows for rows in tables(ROOT / "docs" / "checkpoints.md") if "format" in rows[0])
    yes = {True: "yes", False: "no"}
    assert [tuple(row.values()) for row in shown] == [
        (one.name, yes[bool(one.method or one.told)], yes[one.target is not None])
        for one in FORMATS
    ]


def test_configs_that_pages_name_are_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = {*re.findall(r"\b((?:coco|pascal_voc)_R_50_\w+)", text)}
    shipped = {*published.protocols().index}
    assert len(named) > 10 and named <= shipped, named - shipped


@functools.cache
def options() -> set[str]:
    """The options of all commands, as their help has them."""
    found: set[str] = set()
    for command in COMMANDS:
        words = [sys.executable, *command]
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        found |= {*re.findall(r"--[a-z][a-z0-9-]*", done.stdout)}
    return found


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_options_that_a_page_names_are_there(page: Path) -> None:
    quoted = " ".join(re.findall(r"`[^`\n]+`", page.read_text()))
    named = {*re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", quoted)}
    others = {"--help-all", "--nproc-per-node"}  # torchrun has the second
    assert named - others <= options(), named - others - options()


def test_yaml_of_a_page_is_a_config(tmp_path: Path) -> None:
    (tmp_path / "det_configs").symlink_to(ROOT / "det_configs")
    shown = [block for block in blocks() if block.language == "yaml"]
    assert shown
    for block in shown:
        (tmp_path / "mine.yaml").write_text(block.text)
        mine = read(tmp_path / "mine.yaml")
        base = read(tmp_path / yaml.safe_load(block.text)["_BASE_"])
        assert mine.hash != base.hash and mine.cfg.SOLVER.MAX_ITER == base.cfg.SOLVER.MAX_ITER


def test_citation_has_what_the_format_wants() -> None:
    """Citation File Format 1.2.0, schema-guide.md: required keys, there and in a reference."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys() and paper["year"] == 2022
    assert paper["authors"][0]["family-names"] == "Huang" and len(paper["authors"]) == 6
