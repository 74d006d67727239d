"""A mistake in linear or semi-supervised evaluation: one sentence before any job, no file."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import launch.linear
import launch.semi
from common.errors import UserError
from tests.launch.test_bad_input import ROOT, complete, files

RANDOM = "--data demo --weights none --backbone resnet18 --image-size 32"

BOTH = [
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
    (f"{RANDOM} --batch-size 4 --name a/b", r"--name a/b is not a plain folder name"),
    (f"{RANDOM} --batch-size 4 --output-dir blocked", r"blocked is a file where the run folder"),
    (
        f"{RANDOM} --cluster local --gpus-per-node 0 --tasks-per-node 3 --batch-size 16",
        r"--batch-size 16 does not split evenly over 3 processes",
    ),
]
LINEAR = [(f"{RANDOM} --lr 0", r"--lr 0\.0: must be more than 0")]
SEMI = [
    (f"{RANDOM} --head-lr -1", r"--head-lr -1\.0: must be more than 0"),
    (f"{RANDOM} --backbone-lr nan", r"--backbone-lr nan: must be more than 0"),
    (f"{RANDOM}", r"6 training images of \S* \(seeded 1% seed 0\) are fewer than --batch-size 256"),
    (f"{RANDOM} --list gone.txt", r"--list gone\.txt: no such file"),
    (f"{RANDOM} --list other.txt", r"1 of its 1 names, such as n01440764_10026, are not images"),
]


@pytest.fixture
def somewhere(tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files that are of no use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    torch.save(torchvision.models.resnet18().state_dict(), "bare.pth")
    data = Path("bare.pth").read_bytes()
    Path("cut.pth").write_bytes(data[: len(data) // 2])
    Path("R-50.pkl").write_bytes(pickle.dumps({"model": {}}))
    Path("R-50.pth").write_bytes(pickle.dumps({"model": {}}))
    Path("blocked").write_text("")
    Path("other.txt").write_text("n01440764_10026.JPEG\n")
    images = demo_root / "imagenet" / "train"
    for folder, name in (("alone/train", "disc"), ("alone/train", "star"), ("other/val", "disc")):
        shutil.copytree(images / name, Path(folder) / name)
    shutil.copytree(images / "star", "other/val/square")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [("linear", *case) for case in BOTH + LINEAR] + [("semi", *case) for case in BOTH[:1] + SEMI],
)
def test_a_mistake_is_a_sentence(command: str, words: str, message: str, somewhere: Path) -> None:
    before = files(somewhere)
    run = {"linear": launch.linear.run, "semi": launch.semi.run}[command]
    with pytest.raises(UserError, match=message):
        run(complete(words))
    assert files(somewhere) == before


def test_a_percentage_that_was_not_published_is_refused(
    somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        launch.semi.run([*RANDOM.split(), "--percent", "5"])
    assert stopped.value.code == 2 and "1" in capsys.readouterr().err


def test_it_is_a_line_on_stderr_and_status_2(somewhere: Path) -> None:
    before = files(somewhere)
    command = [sys.executable, str(ROOT / "launch" / "linear.py"), "--weights", "gone.pth"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: --weights gone.pth: no such")
    assert len(done.stderr.splitlines()) == 1
    assert files(somewhere) == before
