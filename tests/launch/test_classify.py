"""Linear and semi-supervised evaluation by the commands that people type: images in, row out."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision

import launch.linear
import launch.results
import launch.semi
from common.files import sha256
from launch.tables import tables
from tests.launch.test_weights import checkpoint, pretraining

SMALL = "--data demo --image-size 32 --epochs 2 --batch-size 12 --workers 0 --cluster debug"


def row(output_dir: Path, kind: str) -> pd.Series:
    (found,) = pd.read_csv(output_dir / "results" / f"{kind}.csv").to_dict("records")
    return pd.Series(found)


def test_linear_and_semi(
    tmp_path: Path, demo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(tmp_path / "lewel.pth.tar")
    common = f"{SMALL} --weights {weights} --output-dir {tmp_path}".split()
    folder = launch.linear.run([*common, "--lr", "0.1"])
    assert folder.parent == tmp_path / "runs" / "linear"
    assert folder.name.startswith(f"resnet18-{sha256(weights)[:8]}-e2-lr0.1-b12-s0-")
    linear = row(tmp_path, "linear")
    assert tuple(linear.index) == tuple(tables.TABLES["linear"])
    assert (linear.method, linear.norm, linear.pretrain_epochs) == ("LEWEL_B", "eman", 200)
    assert (linear.lr, linear.images_train, linear.images_val) == (0.1, 120, 32)
    assert linear.top1_low <= linear.top1 <= linear.top1_high <= 100 and linear.demo
    out = capsys.readouterr().out
    assert "LEWEL, resnet18, 120 backbone tensors" in out and "training images: 120 (all)" in out

    launch.semi.run([*common, "--percent", "10", "--seed", "3"])
    semi = row(tmp_path, "semi")
    assert (semi.percent, semi.subset, semi.images_train) == (10, "seeded 10% seed 3", 12)
    assert semi.backbone_lr == pytest.approx(1e-2 * 12 / 256)
    assert semi.head_lr == pytest.approx(0.1 * 12 / 256)
    assert semi.weights_sha256 == linear.weights_sha256 == sha256(weights)

    launch.linear.run([*common, "--lr", "0.1"])
    assert "already finished" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "results" / "linear.csv")) == 1
    launch.results.show(tmp_path)
    shown = capsys.readouterr().out
    assert "linear" in shown and "semi" in shown and "seeded 10%" in shown


def test_classes_without_images_are_named_by_the_command_and_in_the_log(
    tmp_path: Path, demo_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_root / "imagenet", data)
    classes = sorted(path.name for path in (data / "train").iterdir())
    emptied = [data / "train" / classes[1], *(data / "val" / name for name in classes[2:4])]
    for folder in emptied:
        for path in folder.iterdir():
            path.unlink()
    words = f"--data {data} --image-size 32 --epochs 1 --batch-size 12 --workers 0 --cluster debug"
    words += f" --weights none --backbone resnet18 --output-dir {tmp_path}"
    lines = [
        f"1 of 8 classes have no training images, and cannot be learnt: {classes[1]}",
        "2 of 8 classes have no validation images, and do not count in the accuracy: "
        f"{classes[2]}, {classes[3]}",
    ]
    folder = launch.linear.run(words.split())
    assert caplog.messages[:2] == lines  # before the job
    log = (folder / "log.txt").read_text()
    assert all(f"WARNING pretrain.evaluation: {line}\n" in log for line in lines)


def test_a_list_of_files_and_a_random_start(tmp_path: Path, demo_root: Path) -> None:
    names = sorted(path.name for path in (demo_root / "imagenet" / "train").glob("*/*_000[0-1].*"))
    (tmp_path / "10percent.txt").write_text("\n".join(names))
    words = f"{SMALL} --epochs 1 --weights none --backbone resnet18 --output-dir {tmp_path}"
    folder = launch.semi.run(
        [*words.split(), *f"--percent 10 --list {tmp_path}/10percent.txt".split()]
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_train"] == len(names) == 16 and metrics["method"] == "random"
    assert metrics["subset"].startswith("list 10percent.txt sha256 ")


def test_the_default_is_the_newest_finished_run(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    launched = []
    monkeypatch.setattr(
        "launch.slurm.submission.launch", lambda jobs, *_, **__: launched.extend(jobs)
    )
    pretraining(tmp_path, "older", 30)
    newest = pretraining(tmp_path, "newer", 20)
    pretraining(tmp_path, "drawn", 5, demo=True)
    launch.linear.run([*SMALL.split(), "--output-dir", str(tmp_path)])
    assert launched[0].config.weights.path == str(newest)
    assert launched[0].steps == 2 * (120 // 12)
    assert f"weights: {newest} (the newest finished pre-training run)" in capsys.readouterr().out
    deeper = pretraining(tmp_path, "deeper", 0, backbone="resnet50")
    command = [*SMALL.split(), "--output-dir", str(tmp_path), "--backbone", "resnet18"]
    launch.linear.run(command)
    assert launched[1].config.weights.path == str(newest) != str(deeper)


def test_a_bare_backbone_of_another_project(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    monkeypatch.setattr(
        "launch.slurm.submission.launch", lambda jobs, *_, **__: launched.extend(jobs)
    )
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "supervised.pth")
    words = f"{SMALL} --weights {tmp_path}/supervised.pth --output-dir {tmp_path} --percent 10"
    launch.semi.run([*words.split(), "--label", "supervised"])
    weights = launched[0].config.weights
    assert (weights.method, weights.architecture) == ("supervised", "resnet18")
