"""``launch/pretrain.py --plan`` and ``--gpu-memory-gb``."""

from pathlib import Path
from typing import Any

import pytest

import launch.pretrain
import pretrain.plan
from common.errors import UserError
from tests.launch.slurm.fake_slurm import FakeSlurm

SMALL = "--backbone resnet18 --image-size 32 --hidden-dim 64 --proj-dim 16 --knn-every 0".split()


def plan(*words: str) -> None:
    launch.pretrain.run([*SMALL, *words])


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def refuse(*_: Any) -> None:
    raise AssertionError("counted")


def test_a_plan_needs_no_gpu_no_images_and_no_slurm_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan("--plan", "--nodes", "2", "--epochs", "200")
    shown = capsys.readouterr().out
    for text in (
        "lewel_b eman, resnet18 at 32 px",
        "200 epochs of 1281167 images of ImageNet",
        "1024, 64 on each of 16 GPUs",
        "of tensors",
        "MB of gradients",
        "2 of ",
        "141 GB",
        "250200 steps",
        "V100",
        "A100",
        "H100",
    ):
        assert text in shown, shown
    assert not [*tmp_path.iterdir()]


def test_a_plan_counts_the_images_that_there_are(
    demo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = len([*(demo_root / "imagenet" / "train").glob("*/*")])
    plan(*"--plan --data demo --batch-size 8 --gpus-per-node 1 --epochs 2 --amp off".split())
    shown = capsys.readouterr().out
    assert f"2 epochs of {images} images" in shown and f"{2 * (images // 8)} steps" in shown
    assert "all-reduced a step │ nothing" in shown
    assert "H100 │ ?" in shown  # nothing was published in float32


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--gpus-per-node 0", "--plan counts what a job on GPUs needs; leave out --gpus-per-node"),
        ("--device cpu", "--plan counts what a job on GPUs needs; leave out --device cpu"),
        ("--gpus-per-node 7", "--batch-size 1024 .*7"),
        ("--nodes 0", "--nodes 0: must be at least 1"),
        ("--gpu-memory-gb 0", "--gpu-memory-gb 0.0: must be more than 0"),
        ("--data /nowhere", "--data /nowhere: no such folder"),
        ("--data demo --batch-size 1024", "fewer than --batch-size 1024"),
    ],
)
def test_a_mistake_is_told_before_anything_is_counted(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain.plan, "count", refuse)
    with pytest.raises(UserError, match=said):
        plan("--plan", *words.split())


SUBMIT = "--data demo --batch-size 16 --gpus-per-node 2".split()


def test_too_little_memory_is_refused_before_submission(fake_slurm: FakeSlurm) -> None:
    said = r"8 images a GPU need about \d\.\d GiB, and --gpu-memory-gb is 1; use more GPUs or a sm"
    for words in ((), ("--plan",)):
        with pytest.raises(UserError, match=said):
            plan(*SUBMIT, "--gpu-memory-gb", "1", *words)
    assert not fake_slurm.read("last") and not Path("runs").exists()


def test_near_the_limit_there_is_a_note_and_a_job(
    fake_slurm: FakeSlurm, no_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_site.parent.mkdir(parents=True)
    no_site.write_text("gpu_memory_gb = 1.6\n")
    plan(*SUBMIT)
    assert "need about 1.7 GiB, which is near --gpu-memory-gb 1.6" in capsys.readouterr().out
    assert fake_slurm.read("last").strip() == "101"


def test_enough_memory_says_nothing_and_no_limit_counts_nothing(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(*SUBMIT, "--gpu-memory-gb", "16")
    assert "--gpu-memory-gb" not in capsys.readouterr().out
    monkeypatch.setattr(pretrain.plan, "count", refuse)
    plan(*SUBMIT, "--seed", "1")
    assert fake_slurm.read("last").strip() == "102"
