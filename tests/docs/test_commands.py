"""Every command that the README and ``docs/`` show does what they say, as far as is said here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from detection.config import read, resolve
from launch.slurm.site import PREFIX
from tests.docs.commands import ROWS, Row
from tests.docs.pages import DATA, ROOT, SHELL, blocks, calls
from tests.docs.play import Command
from tests.launch.slurm.fake_slurm import SCRIPTS, FakeSlurm

# Jobs of a Slurm that has no node to spare: each one waits.
WAITING = """
[ "$ENDED" ] && exit
for job in "$here"/*.sh; do name=${job##*/}; echo "${name%.sh}|PENDING|None"; done
"""
PRETRAINING = (
    "launch/pretrain.py --epochs 1 --batch-size 60 --image-size 32 --proj-dim 16 --hidden-dim 32 "
    "--workers 0 --knn-every 0 --name NAME --cluster debug"
)
IMAGES = 1200  # as many as a batch of 1024 needs
STARTED: dict[str, dict[str, str]] = {
    "run": {},
    "help": {},
    "torchrun": {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "8"},
}


def test_every_command_has_a_row(tmp_path: Path) -> None:
    shown = {
        shlex.join(words)
        for block in blocks()
        if block.language in SHELL
        for words in calls(block.text, tmp_path / "calls")
    }
    assert {block.language for block in blocks()} <= {*SHELL, *DATA}
    known = [row.command for row in ROWS]
    assert len(set(known)) == len(known)
    assert shown - {*known} == set() and {*known} - shown == set()


def draw(root: Path, demo_root: Path) -> None:
    """Data sets as the published ones are laid out, of drawn images."""
    for split in ("train", "val"):
        for folder in (demo_root / "imagenet" / split).iterdir():
            (root / "imagenet" / split / folder.name).mkdir(parents=True)
            for image in folder.iterdir():
                (root / "imagenet" / split / folder.name / image.name).symlink_to(image)
    drawn = sorted((root / "imagenet" / "train").glob("*/*"))
    for number in range(IMAGES - len(drawn)):
        image = drawn[number % len(drawn)]
        image.with_name(f"{number}_{image.name}").symlink_to(image.readlink())
    (root / "coco" / "annotations").mkdir(parents=True)
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    for split in ("train2017", "val2017"):
        (root / "coco" / split).symlink_to(demo_root / "coco" / split)
        content = json.loads((demo_root / f"coco/annotations/instances_{split}.json").read_text())
        ids = [category["id"] for category in content["categories"]]
        content["categories"] = [{"id": c["id"], "name": c["name"]} for c in things]
        for one in content["annotations"]:
            one["category_id"] = things[ids.index(one["category_id"])]["id"]
        (root / f"coco/annotations/instances_{split}.json").write_text(json.dumps(content))
    for name in ("VOC2007", "VOC2012"):
        (root / name).symlink_to(demo_root / name)


def own_data(folder: Path, demo_root: Path) -> None:
    """``cells/``: a data set of one's own."""
    (folder / "cells").mkdir(parents=True)
    (folder / "cells" / "images").symlink_to(demo_root / "coco" / "train2017")
    for split in ("train", "val"):
        truth = demo_root / "coco" / "annotations" / f"instances_{split}2017.json"
        (folder / "cells" / f"{split}.json").symlink_to(truth)


def prepare(folder: Path, demo_root: Path) -> None:
    """What commands name: own data, a list of images, a trained detector."""
    own_data(folder, demo_root)
    images = sorted((demo_root / "imagenet" / "train").glob("*/*"))[:12]
    (folder / "1percent.txt").write_text("".join(f"{image.name}\n" for image in images))
    detector = folder / "runs" / "transfer" / "NAME"
    detector.mkdir(parents=True)
    torch.save(
        {"model": {"backbone.w": torch.zeros(2)}, "iteration": 3}, detector / "model_final.pth"
    )
    cfg = resolve(read(ROOT / "det_configs" / "coco_R_50_FPN_1x_infomin.yaml")).detectron2()
    (detector / "config.yaml").write_text(cfg.dump())


def settings(folder: Path, demo_root: Path) -> None:
    """The files of a site and of one's own data sets, as the pages show them."""
    own_data(folder, demo_root)
    names = {"slurm.md": "slurm.toml", "own-data.md": "datasets.toml"}
    for block in blocks():
        if block.language == "toml":
            (folder / names[block.page]).write_text(block.text)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """A folder for all of it."""
    folder = tmp_path_factory.mktemp("docs")
    draw(folder / "data", demo_root)
    prepare(folder / "prepared", demo_root)
    settings(folder / "config" / "lewel-transfer", demo_root)
    return folder


@pytest.fixture(scope="module")
def slurm(scratch: Path) -> FakeSlurm:
    """Slurm's commands, which keep what they are told."""
    (scratch / "slurm").mkdir()
    return FakeSlurm(scratch / "slurm", {**SCRIPTS, "squeue": WAITING})


@pytest.fixture(scope="module")
def answers(scratch: Path, slurm: FakeSlurm, demo_root: Path) -> dict[str, tuple[int, str]]:
    """Status and output of every command that is run by Python."""
    data = scratch / "data"
    kept = {n: v for n, v in os.environ.items() if not n.startswith((PREFIX, "SBATCH_", "SLURM_"))}
    environment = kept | {
        "IMAGENET_DIR": str(data / "imagenet"),
        "DETECTRON2_DATASETS": str(data),
        "XDG_CONFIG_HOME": str(scratch / "config"),
        "LEWEL_CACHE": str(scratch / "cache"),
        "PATH": f"{slurm.folder}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "PYTHONPATH": str(ROOT),
    }
    rows = [row for row in ROWS if row.how in ("run", "help", "torchrun")]
    unfinished = "launch/pretrain.py --name UNFINISHED --then coco_R_50_FPN_1x_infomin".split()
    commands: list[Command] = [
        ([*PRETRAINING.split(), "--data", str(demo_root / "imagenet")], {}, True),
        (
            ["-c", "import shutil; shutil.copy('runs/pretrain/NAME/checkpoint.pth.tar', '.')"],
            {},
            True,
        ),
        (unfinished, {}, True),
        *((words(row), row.variables | STARTED[row.how], False) for row in rows),
    ]
    program = [sys.executable, "-m", "tests.docs.play", str(scratch / "prepared")]
    done = subprocess.run(
        program,
        cwd=ROOT,
        env=environment,
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    first, copied, submitted, *found = json.loads(done.stdout)
    for status, output in (first, copied, submitted):
        assert status == 0, output
    return {row.command: tuple(answer) for row, answer in zip(rows, found, strict=True)}


def words(row: Row) -> list[str]:
    """What Python gets of a command."""
    typed = shlex.split(row.command)
    if row.how == "torchrun":
        return typed[typed.index("launch/pretrain.py") :]
    return [*typed[1:], *["--help"] * (row.how == "help")]


@pytest.mark.parametrize("row", [row for row in ROWS if row.how != "file"], ids=lambda r: r.command)
def test_a_command(row: Row, request: pytest.FixtureRequest) -> None:
    if row.how == "make":
        command = ["make", "-n", *shlex.split(row.command)[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    else:
        status, output = request.getfixturevalue("answers")[row.command]
    assert status == row.status, output
    assert re.search(row.output, output, re.MULTILINE), output
    jobs = {job.split("_")[0] for job in re.findall(r"^slurm jobs? (\w+)", output, re.MULTILINE)}
    assert len(jobs) == row.submits, output
    if row.how == "help":
        for option in re.findall(r"--[a-z-]+", row.command):
            assert option in output, option


def test_files_that_commands_name_are_there(
    scratch: Path, answers: dict[str, tuple[int, str]]
) -> None:
    named = [row.command.split()[-1] for row in ROWS if row.how == "file"]
    assert named
    for name in named:
        assert (ROOT / name).is_file() or (scratch / "prepared" / name).is_file(), name
