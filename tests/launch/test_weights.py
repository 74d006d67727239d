"""Which weights a transfer starts from, and which it refuses."""

import os
import pickle
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from common import runs
from common.backbones import Which
from common.errors import UserError
from common.files import sha256
from common.weights import Weights
from detection import convert
from detection.config import read, resolve
from launch import weights
from launch.options import CONFIGS
from launch.tables import published
from launch.weights import Source, find_backbone
from pretrain.lewel import LEWEL
from tests.detection.helpers import caffe2_name, shape_state, torchvision_name
from tests.folders import forbidden

DEMO_CONFIG = str(CONFIGS / "demo_R_18_FPN.yaml")


def checkpoint(path: Path, backbone: str = "resnet18", **more: Any) -> Path:
    model = LEWEL(backbone, proj_dim=8, hidden_dim=8)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"arch": "LEWELB_EMAN", "epoch": 200, "state_dict": state, **more}, path)
    return path


def find_weights(wanted: str | None, config: str, label: str | None, folder: Path) -> Source:
    return weights.find_weights(wanted, read(config).cfg, label, folder)


def config_of(weights: Weights, *overrides: str) -> Any:
    """The Detectron2 config of the demo's detector from these weights."""
    return resolve(read(DEMO_CONFIG), weights, overrides=overrides).detectron2()


@pytest.fixture(scope="module")
def lewel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in a folder of its own, which no test may change."""
    return checkpoint(tmp_path_factory.mktemp("lewel") / "c.pth.tar")


def stranger(path: Path, author: str, named: Callable[[str], str]) -> Path:
    """A ResNet-18 in Detectron2's format, written by ``author`` in names of its own."""
    state = shape_state("resnet18")
    model = {named(k): v.numpy() for k, v in state.items() if not k.endswith("batches_tracked")}
    content = {"model": model, "__author__": author, "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))
    return path


def pretraining(output_dir: Path, name: str, age: int, **metrics: Any) -> Path:
    """A finished pre-training run that ended ``age`` seconds ago."""
    folder = output_dir / "runs" / "pretrain" / name
    path = checkpoint(folder / "checkpoint.pth.tar", run=name)
    known = {"kind": "pretrain", "backbone": "resnet18", "demo": False, "checkpoint": path.name}
    runs.finish(folder, known | metrics)
    stat = (folder / "metrics.json").stat()
    os.utime(folder / "metrics.json", (stat.st_atime, stat.st_mtime - age))
    return path


def test_the_default_is_the_newest_finished_run_of_the_same_depth(tmp_path: Path) -> None:
    pretraining(tmp_path, "old", 30)
    newest = pretraining(tmp_path, "new", 20)
    pretraining(tmp_path, "deeper", 10, backbone="resnet50")
    pretraining(tmp_path, "drawn", 5, demo=True)
    (tmp_path / "runs" / "pretrain" / "unfinished").mkdir()
    source = find_weights(None, DEMO_CONFIG, None, tmp_path)
    assert source.weights.sha256 == sha256(newest)
    assert str(newest) in source.line
    assert (source.weights.method, source.weights.norm) == ("LEWEL_B", "eman")
    assert source.weights.epochs == 200


def test_the_default_is_only_for_the_placeholder(tmp_path: Path) -> None:
    pretraining(tmp_path, "new", 0)
    config = tmp_path / "rand.yaml"
    config.write_text(f'_BASE_: "{DEMO_CONFIG}"\nMODEL:\n  WEIGHTS: ""\n')
    assert find_weights(None, str(config), None, tmp_path).weights.path == ""
    config.write_text(f'_BASE_: "{DEMO_CONFIG}"\nMODEL:\n  WEIGHTS: "gone.pkl"\n')
    with pytest.raises(UserError, match=r"gone\.pkl"):
        find_weights(None, str(config), None, tmp_path)


def test_none_is_a_random_start_and_a_label_is_kept(tmp_path: Path, lewel: Path) -> None:
    assert find_weights("none", DEMO_CONFIG, None, tmp_path).weights.method == "random"
    assert find_weights(str(lewel), DEMO_CONFIG, "ours", tmp_path).weights.method == "ours"


# Of a config for the weights of Detectron2's own supervised ResNets.
MSRA = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": "[103.53,116.28,123.675]",
    "MODEL.PIXEL_STD": "[1.0,1.0,1.0]",
    "MODEL.RESNETS.STRIDE_IN_1X1": "True",
}
SHAPE = {"MODEL.RESNETS.DEPTH": "50", "MODEL.RESNETS.WIDTH_PER_GROUP": "128"}


def test_a_config_that_treats_the_weights_otherwise_is_refused(tmp_path: Path, lewel: Path) -> None:
    source = find_weights(str(lewel), DEMO_CONFIG, None, tmp_path)
    source.check_fits(config_of(source.weights))
    for key, value in {**MSRA, **SHAPE, "MODEL.RESNETS.NORM": "GN"}.items():
        with pytest.raises(UserError, match=f"^{re.escape(key)} is "):
            source.check_fits(config_of(source.weights, key, value))


@pytest.mark.parametrize("author", ["torchvision", "Caffe2"])
def test_the_weights_of_others_are_compared_with_the_config_too(
    tmp_path: Path, author: str
) -> None:
    named = caffe2_name if author == "Caffe2" else torchvision_name
    theirs = str(stranger(tmp_path / "theirs.pkl", author, named))
    source = find_weights(theirs, DEMO_CONFIG, "mine", tmp_path)
    assert source.weights.architecture == "resnet18" and "warning" not in source.line
    if author == "Caffe2":  # which tells that they are MSRA's
        assert find_weights(theirs, DEMO_CONFIG, None, tmp_path).weights.method == "supervised"
    right = MSRA if author == "Caffe2" else {}
    source.check_fits(config_of(source.weights, *chain(*right.items())))
    for key in MSRA:  # wrong in this key alone
        wrong = {k: v for k, v in MSRA.items() if (k == key) != bool(right)}
        with pytest.raises(UserError, match=rf"^{key} is .* these weights \(resnet18\) need"):
            source.check_fits(config_of(source.weights, *chain(*wrong.items())))
    for key, value in SHAPE.items():
        with pytest.raises(UserError, match=f"^{key} is "):
            source.check_fits(config_of(source.weights, *chain(*right.items()), key, value))


@pytest.mark.parametrize(
    ("author", "named"), [("MOCO", "author 'MOCO'"), (None, "which names no __author__")]
)
def test_weights_of_an_unknown_author_are_checked_for_depth_and_warned_of(
    tmp_path: Path, author: str | None, named: str
) -> None:
    path = stranger(tmp_path / "theirs.pkl", author or "", torchvision_name)
    if author is None:
        path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes())["model"]))
    with pytest.raises(UserError, match=r"does not tell which method trained it; add --label"):
        find_weights(str(path), DEMO_CONFIG, None, tmp_path)
    source = find_weights(str(path), DEMO_CONFIG, "MoCo v2", tmp_path)
    (warning,) = source.line.splitlines()[1:]
    assert re.search(rf"^warning: .*\({named}\) does .*INPUT\.FORMAT.* not be", warning)
    source.check_fits(config_of(source.weights, "INPUT.FORMAT", "BGR"))
    if source.weights.architecture:  # unknown where the file is nothing but tensors
        with pytest.raises(UserError, match=r"MODEL\.RESNETS\.DEPTH"):
            source.check_fits(config_of(source.weights, "MODEL.RESNETS.DEPTH", "50"))


def test_a_fork_needs_a_label_and_says_why(tmp_path: Path) -> None:
    fork = checkpoint(tmp_path / "fork.pth.tar")
    content = torch.load(fork)
    content["state_dict"]["module.online_net.neck.proj_pixel.mlp.0.weight"] = torch.zeros(1)
    torch.save(content, fork)
    why = r"trained it \(like LEWEL but for 1 tensor such as module\S+proj_pixel\.mlp\.0\.weight\)"
    with pytest.raises(UserError, match=rf"fork\.pth\.tar does not tell \S+ method {why}; add --l"):
        find_weights(str(fork), DEMO_CONFIG, None, tmp_path)
    source = find_weights(str(fork), DEMO_CONFIG, "LEWEL_B", tmp_path)
    assert (source.weights.method, source.weights.epochs) == ("LEWEL_B", None)  # not compared


def test_converted_weights_tell_their_origin(tmp_path: Path, lewel: Path) -> None:
    methods: dict[Which, str] = {"online": "LEWEL_B", "target": "LEWEL_B (target network)"}
    for which, method in methods.items():
        convert.convert(lewel, tmp_path / "out.pkl", which)
        weights = find_weights(str(tmp_path / "out.pkl"), DEMO_CONFIG, None, tmp_path).weights
        assert (weights.method, weights.norm, weights.epochs) == (method, "eman", 200)
        assert weights.path == str(tmp_path / "out.pkl")
    row = {"method": method, "norm": "eman", "pretrain_epochs": 200}
    assert published.find("transfer", row | {"config": "coco_R_50_FPN_1x_infomin"}) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_in_the_file_decides_not_its_name(
    tmp_path: Path, lewel: Path, zipped: bool
) -> None:
    loaded = torch.load(lewel, weights_only=False)
    torch.save(loaded, tmp_path / "c.pkl", _use_new_zipfile_serialization=zipped)
    source = find_weights(str(tmp_path / "c.pkl"), DEMO_CONFIG, None, tmp_path)
    assert source.weights.method == "LEWEL_B" and "120 backbone tensors" in source.line


def test_detectron2_weights_of_another_name_are_told_what_to_do(
    tmp_path: Path, lewel: Path
) -> None:
    convert.convert(lewel, tmp_path / "out.pth")
    with pytest.raises(UserError, match=r"out\.pth is a plain pickle, .* ends in \.pkl"):
        find_weights(str(tmp_path / "out.pth"), DEMO_CONFIG, None, tmp_path)


def test_finding_writes_nothing_and_weights_are_converted_once(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "c.pth.tar")
    source = find_weights(str(path), DEMO_CONFIG, None, tmp_path)
    assert os.listdir(tmp_path) == ["c.pth.tar"]
    one = convert.converted(source.weights.path, source.weights.sha256, tmp_path / "weights")
    before = one.stat().st_mtime_ns
    path.unlink()
    again = convert.converted(source.weights.path, source.weights.sha256, tmp_path / "weights")
    assert again == one and one.stat().st_mtime_ns == before


def test_converted_weights_that_cannot_be_written_are_a_sentence(lewel: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write the converted weights /proc/x/\S*: No such"):
        convert.converted(str(lewel), "01" * 32, Path("/proc/x"))


def test_weights_in_a_folder_of_somebody_else_are_a_sentence(tmp_path: Path) -> None:
    checkpoint(tmp_path / "theirs" / "c.pth")
    theirs = str(tmp_path / "theirs" / "c.pth")
    refused = pytest.raises(UserError, match=r"--weights \S*/theirs/c\.pth: no such file")
    with forbidden(tmp_path / "theirs"), refused:
        find_backbone(theirs, None)
