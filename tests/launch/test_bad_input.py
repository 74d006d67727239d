"""A user's mistake is one sentence and status 2 before any job, and nothing is written."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import launch.linear
import launch.pretrain
import launch.semi
import launch.transfer
from common.errors import UserError
from detection.own_data import VARIABLE
from launch.options import CONFIGS
from tests.launch.test_weights import checkpoint

ROOT = CONFIGS.parent
RUN: dict[str, Any] = {
    "pretrain": launch.pretrain.run,
    "transfer": launch.transfer.run,
    "linear": launch.linear.run,
    "semi": launch.semi.run,
}
CATEGORIES = [{"id": 0, "name": "cell"}, {"id": 2, "name": "rod"}]
IMAGE = {"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}
GOOD: dict[str, Any] = {"images": [IMAGE], "annotations": [], "categories": CATEGORIES}


DOTS, RINGS = "dots", "rings"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """A folder with files that are of no use, or of some; no test may change it."""
    folder = tmp_path_factory.mktemp("somewhere")
    (folder / "empty" / "train" / "class").mkdir(parents=True)
    (folder / "blocked").write_text("")
    (folder / "deep" / "imagenet" / "train" / "class").mkdir(parents=True)  # one level too high
    (folder / "deep" / "imagenet" / "train" / "class" / "1.jpg").write_bytes(b"")
    images = demo_root / "imagenet" / "train"
    for split, name in (("alone/train", DOTS), ("alone/train", RINGS), ("other/val", DOTS)):
        shutil.copytree(images / name, folder / split / name)
    shutil.copytree(images / RINGS, folder / "other" / "val" / "square")
    (folder / "other.txt").write_text("n01440764_10026.JPEG\n")

    (folder / "broken.yaml").write_text("MODLE:\n  DEPTH: 3\n")
    checkpoint(folder / "lewel.pth.tar")
    torch.save({"fc.weight": torch.zeros(2)}, folder / "linear.pth")
    data = (folder / "linear.pth").read_bytes()
    (folder / "cut.pth").write_bytes(data[: len(data) // 2])
    (folder / "cut.pkl").write_bytes(pickle.dumps({"model": {}})[:-3])
    torch.save(torchvision.models.resnet18().state_dict(), folder / "bare.pth")
    for name in ("R-50.pkl", "R-50.pth"):
        (folder / name).write_bytes(pickle.dumps({"model": {}}))

    (folder / "images").mkdir()
    cell, rod = CATEGORIES
    contents = {
        "good": GOOD,
        "same": GOOD,
        "other": GOOD | {"categories": [rod, {"id": 0, "name": "Cell"}]},
        "list": [GOOD],
        "twice": GOOD | {"categories": [cell, {"id": 0, "name": "rod"}]},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "cut.json").write_text(json.dumps(GOOD)[:20])
    (folder / "sets.toml").write_text('x = "good.json"\n[y]\nannotations = "good.json"\n'
                                      '[z]\nannotations = "good.json"\nimages = 3\n')  # fmt: skip
    return folder


@pytest.fixture
def somewhere(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, without the variable that names ImageNet."""
    monkeypatch.chdir(prepared)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    monkeypatch.setenv(VARIABLE, str(prepared / "sets.toml"))
    return prepared


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def complete(words: str) -> list[str]:
    """The command line, for this process unless it says otherwise."""
    return [*([] if "--cluster" in words else ["--cluster", "debug"]), *words.split()]


THREE = "--cluster local --gpus-per-node 0 --tasks-per-node 3"
PRETRAIN = [
    ("", r"IMAGENET_DIR"),
    ("--data nowhere", r"--data nowhere: no such folder"),
    ("--data empty", r"no image under a class folder of .*empty"),
    ("--data deep", r"no image under a class folder of .*deep"),
    ("--data demo --backbone vgg16", r"--backbone vgg16 is not a torchvision ResNet"),
    ("--data demo --batch-size 0", r"--batch-size 0: must be at least 1"),
    ("--data demo --batch-size 6000", r"demo has 120 images, fewer than --batch-size 6000"),
    ("--data demo --lr -1", r"--lr -1.0: must be more than 0"),
    ("--data demo --seed -1", r"--seed -1: must be at least 0"),
    ("--data demo --seed 4294967296", r"--seed 4294967296: must be less than 4294967296"),
    ("--data demo --epochs 5 --warmup-epochs 5", r"--warmup-epochs 5 must be fewer than"),
    ("--data demo --base-momentum 3", r"--base-momentum 3.0: must be between 0 and 1"),
    ("--data demo --heads 3", r"--heads 3 must divide --proj-dim 256"),
    ("--data demo --cluster local --gpus-per-node 64", r"--gpus-per-node 64, but this machine has"),
    ("--data demo --cluster debug --tasks-per-node 2", r"debug is this one process; use --clus"),
    ("--data demo --cluster debug --gpus-per-node 2", r"--gpus-per-node 2, but --cluster debug"),
    ("--data demo --cluster slurm", r"sbatch is not on the PATH"),
    ("--data demo --cluster local --nodes 2", r"--nodes 2 needs Slurm"),
    (f"--data demo {THREE} --batch-size 16", r"--batch-size 16 does not split evenly over 3 proc"),
    ("--data demo --output-dir blocked", r"blocked is a file where the run folder"),
    ("--data demo --name a/b", r"--name a/b is not a plain folder name"),
]

DEMO = "--config demo_R_18_FPN"
FCN = "--config demo_voc_R_18_FCN --weights none"
NONE = f"{DEMO} --weights none"
TRANSFER = [
    ("--config nothing.yaml", r"--config \S*nothing\.yaml: no such file"),
    ("--config elsewhere/demo_R_18_FPN.yaml", r"\S*elsewhere/demo_R_18_FPN\.yaml: no such"),
    ("--config", r"--config has no value"),
    ("--config broken.yaml --weights none", r"broken\.yaml is not a Detectron2 config: .*MODLE"),
    (f"{NONE} SOLVER.MAX_ITERS 3", r"SOLVER\.MAX_ITERS is not a key"),
    (f"{NONE} SOLVER.MAX_ITER", r"SOLVER\.MAX_ITER has no value"),
    (f"{NONE} SOLVER.MAX_ITER many", r"MAX_ITER cannot be many"),
    (f"{NONE} MODEL.WEIGHTS x.pkl", r"use --weights"),
    (f"{FCN} INPUT.MIN_SIZE_TRAIN (64,)", r"MIN_SIZE_TRAIN \(64,\); segmentation scales images"),
    (
        f"{NONE} INPUT.MIN_SIZE_TRAIN_SAMPLING relative_range",
        r"INPUT\.MIN_SIZE_TRAIN_SAMPLING is relative_range .* give choice and any sizes",
    ),
    (DEMO, r"no finished ResNet-18 pre-training run in \S*runs"),
    (f"{DEMO} --weights gone.pth.tar", r"--weights gone\.pth\.tar: no such file"),
    (f"{DEMO} --weights cut.pth", r"cut\.pth is not a readable"),
    (f"{DEMO} --weights linear.pth", r"linear\.pth is no checkpoint of .*named fc"),
    (f"{DEMO} --weights cut.pkl", r"cut\.pkl is not readable as Detectron2"),
    (f"{DEMO} --weights --lr 2", r"--weights has no value"),
    (f"{DEMO} --weights a.pth b.pth --label BYOL", r"--label BYOL is one name for 2"),
    (f"{NONE} --seed -1", r"--seed -1: must be at least 0"),
    (f"{NONE} --seed 4294967296", r"must be less than 4294967296"),
    (f"{NONE} --seeds 0", r"--seeds 0: must be at least 1"),
    (f"{NONE} --seeds 3 --name x", r"--name x is one folder, but these are 3 runs"),
    (f"{NONE} --lr", r"--lr has no value"),
    (f"{NONE} --lr nan", r"--lr nan: must be more than 0"),
    (f"{NONE} --lr -1", r"--lr -1: must be more than 0"),
    (f"{NONE} --batch-size 0", r"--batch-size 0: must be at least 1"),
    (f"{NONE} {THREE}", r"IMS_PER_BATCH 4 does not split evenly over 3 processes"),
    (f"{DEMO} --weights d.pth --eval-only --lr 1", r"--lr is for training, and"),
    (f"{DEMO} --weights d.pth --eval-only --batch-size 2", r"--batch-size is for"),
    (f"{DEMO} --weights d.pth --eval-only --seeds 2", r"--seeds is for training"),
    (f"{DEMO} --weights lewel.pth.tar --eval-only", r"lewel\.pth\.tar is no detector.*model_final"),
    (f"{NONE} --output-dir blocked", r"blocked is a file where"),
    (
        f"{DEMO} --weights lewel.pth.tar --cluster local --gpus-per-node 0 --output-dir 90%",
        r"90%/runs/transfer/\S* has a % in its path",
    ),
]

DATA = f"{NONE} --dataset"
TWO = "a=good.json:images b=good.json:images"
OWN_DATA = [
    (f"{DATA} a=good.json:images", r"--dataset names 1 data sets; give two, one to train on and"),
    (f"{DATA} {TWO} c=good.json:images", r"--dataset names 3 data sets; give two"),
    (f"{DATA} {TWO} --eval-only", r"--dataset names 2 data sets; give one, to test on"),
    (DATA, r"--dataset has no value"),
    (f"{DATA} a=good.json b=good.json", r"--dataset a=good\.json: is not NAME=ANNOTATIONS\.json:"),
    (f"{DATA} =good.json:images b=x", r"'' cannot be a data set's name"),
    (f"{DATA} a/b=good.json:images b=x", r"'a/b' cannot be a data set's name; it has letters"),
    (f"{DATA} demo_a=good.json:images b=x", r"'demo_a' cannot be .*does not begin with demo_"),
    (f"{DATA} a=gone.json:images b=x", r"a: \S*/gone\.json cannot be read: No such file"),
    (f"{DATA} a=images:images b=x", r"a: \S*/images cannot be read: Is a directory"),
    (f"{DATA} a=good.json:gone b=x", r"a: \S*/gone is no folder; give that of its images"),
    (
        f"{DATA} a=cut.json:images b=x",
        r"dataset a cannot be read: \S*/cut\.json: Expecting .*; mend \S*/cut\.json\.$",
    ),
    (
        f"{DATA} a=list.json:images b=x",
        r"list\.json is no ground truth in COCO's format: it is no JSON object; mend it",
    ),
    (
        f"{DATA} a=twice.json:images b=x",
        r"twice\.json is no ground truth in COCO's format: .* an id of its own",
    ),
    (f"{DATA} a=good.json:images a=same.json:images", r"gives two data sets the name a; give one"),
    (
        f"{DATA} a=good.json:images b=other.json:images",
        r"a and b differ in their categories, such as 0 'Cell', which only b has; give both",
    ),
    (
        f"{DATA} coco_2017_val=good.json:images b=good.json:images",
        r"--dataset coco_2017_val: another data set has this name; choose another",
    ),
    (
        f"{DATA} coco_2017_train coco_2017_val",
        r"coco_2017_train: is neither NAME=\S* nor defined in \S*/sets\.toml, which knows x, y, z; "
        r"Detectron2's own go into DATASETS\.TRAIN and TEST",
    ),
    (f"{DATA} x x", r"sets\.toml: x: must be a table of annotations and images, both text"),
    (f"{DATA} y y", r"sets\.toml: y: must be a table"),
    (f"{DATA} z z", r"sets\.toml: z: must be a table"),
    (f"{DATA} {TWO} DATASETS.TEST ('x',)", r"DATASETS\.TEST and --dataset are the same; give one"),
    (f"{DATA} {TWO} DATASETS.TRAIN ('x',)", r"DATASETS\.TRAIN and --dataset are the same"),
    (f"{DATA} {TWO} MODEL.ROI_HEADS.NUM_CLASSES 3", r"NUM_CLASSES and --dataset are the same"),
    (
        f"{FCN} --dataset {TWO}",
        r"--dataset is of objects, and demo_voc_R_18_FCN labels pixels \(demo_voc_2012_val_sem_seg",
    ),
]

RANDOM = "--data demo --weights none --backbone resnet18 --image-size 32"
LINEAR = [
    ("--data demo", r"no finished pre-training run in \S*runs; give --weights CHECKPOINT"),
    ("--data demo --backbone resnet50", r"no finished ResNet-50 pre-training run"),
    ("--data demo --weights gone.pth", r"--weights gone\.pth: no such file"),
    ("--data demo --weights cut.pth", r"cut\.pth is not a readable PyTorch checkpoint"),
    ("--data demo --weights bare.pth", r"bare\.pth does not tell .*add --label METHOD"),
    ("--data demo --weights R-50.pkl", r"R-50\.pkl is in Detectron2's format"),
    ("--data demo --weights R-50.pth", r"R-50\.pth is in Detectron2's format"),
    ("--data demo --weights none --backbone vgg16", r"--backbone vgg16 is not a ResNet"),
    (
        "--data demo --weights bare.pth --label x --backbone resnet50",
        r"--backbone resnet50, but bare\.pth holds a resnet18",
    ),
    ("--weights none", r"IMAGENET_DIR"),
    ("--weights none --data nowhere", r"--data nowhere: no such folder"),
    ("--weights none --data alone", r"no validation images beside \S*alone\S*; give --val-data"),
    ("--weights none --data alone --val-data nowhere", r"nowhere: no such folder"),
    ("--weights none --data alone --val-data alone/train", r"images are both \S*alone"),
    ("--weights none --data alone --val-data other", r"class 1 is square in \S*other\S*, but"),
    (f"{RANDOM} --batch-size 6000", r"are fewer than --batch-size 6000"),
    (f"{RANDOM} --batch-size 0", r"--batch-size 0: must be at least 1"),
    (f"{RANDOM} --epochs 0", r"--epochs 0: must be at least 1"),
    (f"{RANDOM} --seed -1", r"--seed -1: must be at least 0"),
    (f"{RANDOM} --weight-decay -1", r"--weight-decay -1\.0: must be at least 0"),
    (f"{RANDOM} --lr 0", r"--lr 0\.0: must be more than 0"),
    (f"{RANDOM} --batch-size 4 --name a/b", r"--name a/b is not a plain folder name"),
    (f"{RANDOM} --batch-size 4 --output-dir blocked", r"blocked is a file where the run folder"),
    (f"{RANDOM} {THREE} --batch-size 16", r"--batch-size 16 does not split evenly over 3 proc"),
]
SEMI = [
    ("--data demo", r"no finished pre-training run in \S*runs; give --weights CHECKPOINT"),
    (f"{RANDOM} --head-lr -1", r"--head-lr -1\.0: must be more than 0"),
    (f"{RANDOM} --backbone-lr nan", r"--backbone-lr nan: must be more than 0"),
    (RANDOM, r"8 training images of \S* \(seeded 1% seed 0\) are fewer than --batch-size 256"),
    (f"{RANDOM} --list gone.txt", r"--list gone\.txt: no such file"),
    (f"{RANDOM} --list other.txt", r"1 of its 1 names, such as n01440764_10026, are not images"),
]
CASES = [
    *(("pretrain", *case) for case in PRETRAIN),
    *(("transfer", *case) for case in TRANSFER + OWN_DATA),
    *(("linear", *case) for case in LINEAR),
    *(("semi", *case) for case in SEMI),
]


@pytest.mark.parametrize(("command", "words", "message"), CASES)
def test_a_mistake_is_a_sentence(
    command: str, words: str, message: str, somewhere: Path, demo_root: Path
) -> None:
    before = files(somewhere)
    with pytest.raises(UserError, match=message) as error:
        RUN[command](complete(words))
    assert "\n" not in str(error.value) and files(somewhere) == before


def test_a_percentage_that_was_not_published_is_refused(
    somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        launch.semi.run([*RANDOM.split(), "--percent", "5"])
    assert stopped.value.code == 2 and "1" in capsys.readouterr().err


def test_a_file_of_data_sets_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets.toml").write_text("[x\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "sets.toml"))
    with pytest.raises(UserError, match=r"sets\.toml is not TOML: "):
        launch.transfer.run(complete(f"{DATA} x x"))


def test_it_is_a_line_on_stderr_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), "--data", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: --data nowhere: no such folder.*\n", done.stderr)
    assert files(tmp_path) == []
