"""The converter reads every known format, and nothing that is not a whole ResNet."""

import functools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import UserError
from detection import convert
from detection.convert import depth_of, detectron2_name
from tests.detection.helpers import CONFIGS, LEWEL_PREFIX, config, save_lewel, shape_state

WIDTHS = {"wide_resnet50_2": 128, "wide_resnet101_2": 128}


@pytest.fixture(scope="module", autouse=True)
def fast_shapes() -> object:
    """Building seven ResNets for each example would take most of the time."""
    patch = pytest.MonkeyPatch()
    patch.setattr(convert, "resnet_shapes", functools.cache(convert.resnet_shapes))
    yield
    patch.undo()


def numbered(architecture: str) -> dict[str, Tensor]:
    """Constant tensors, each of another number, from which the place it went to is known."""
    return {
        name: torch.tensor(float(i) if zero.is_floating_point() else i).expand(zero.shape)
        for i, (name, zero) in enumerate(shape_state(architecture).items(), 1)
    }


@pytest.mark.parametrize("architecture", convert.ARCHITECTURES)
def test_names_are_those_of_detectron2s_resnet(architecture: str) -> None:
    depth = int(re.findall(r"resnet(\d+)", architecture)[0])
    cfg = config("Base-RCNN-FPN-BN", "MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.NORM", "BN",
                 "MODEL.BACKBONE.NAME", "build_resnet_backbone",
                 "MODEL.RESNETS.WIDTH_PER_GROUP", WIDTHS.get(architecture, 64),
                 "MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256)  # fmt: skip
    with torch.device("meta"):
        wanted = build_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    found = {detectron2_name(k): v.shape for k, v in shape_state(architecture).items()}
    assert found == {k: v.shape for k, v in wanted.items()}
    assert len(found) == len(shape_state(architecture))  # no two names became one


@pytest.mark.parametrize(
    ("architecture", "prefix"),
    [
        ("resnet18", LEWEL_PREFIX),
        ("resnet18", "online_net.backbone."),
        ("resnet18", ""),
        ("resnet50", ""),
        ("wide_resnet50_2", LEWEL_PREFIX),
    ],
)
def test_formats_and_what_is_written(tmp_path: Path, architecture: str, prefix: str) -> None:
    state = numbered(architecture)
    path = tmp_path / "in.pth"
    if prefix:
        save_lewel(path, state, prefix)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)  # as the release's own
    backbone = convert.convert(path, tmp_path / "deep" / "out.pkl")
    assert backbone.architecture == architecture
    assert depth_of(backbone.architecture) == int(re.findall(r"resnet(\d+)", architecture)[0])
    told = (backbone.method, backbone.norm, backbone.epochs)
    assert told == (("LEWEL_B", "eman", 200) if prefix else ("", "", None))
    with open(tmp_path / "deep" / "out.pkl", "rb") as file:
        written = pickle.load(file)
    assert written.keys() == {"model", "__author__", "matching_heuristics"}
    assert written["matching_heuristics"] is True and isinstance(written["__author__"], str)
    assert sorted(float(array.flat[0]) for array in written["model"].values()) == [
        float(i) for i in range(1, len(state) + 1)
    ]
    for name, tensor in state.items():
        array = written["model"][detectron2_name(name)]
        assert isinstance(array, np.ndarray)
        assert array.dtype == (np.float32 if tensor.is_floating_point() else np.int64)
        np.testing.assert_array_equal(array, tensor.numpy())
    if architecture == "resnet50":
        assert len(written["model"]) == 53 + 53 * 5  # convolutions and their BatchNorms


@pytest.mark.parametrize(
    ("arch", "told"),
    [
        ("LEWELB_EMAN", ("LEWEL_B", "eman", 7)),
        ("LEWELB", ("LEWEL_B", "syncbn", 7)),
        ("resnet50", ("", "", None)),
    ],
)
def test_method_norm_and_epochs_come_from_arch(
    tmp_path: Path, arch: str, told: tuple[str, str, int | None]
) -> None:
    state = {LEWEL_PREFIX + k: v for k, v in shape_state("resnet18").items()}
    torch.save({"epoch": 7, "arch": arch, "state_dict": state}, tmp_path / "in.pth")
    backbone = convert.read_backbone(tmp_path / "in.pth")
    assert (backbone.method, backbone.norm, backbone.epochs) == told


def test_the_other_tensors_are_listed_as_ignored(tmp_path: Path) -> None:
    state = {LEWEL_PREFIX + k: v for k, v in shape_state("resnet18").items()}
    others = {
        LEWEL_PREFIX + "fc.weight", "module.online_net.neck.proj.mlp.0.weight",
        "module.target_net.backbone.conv1.weight", "module.predictor.mlp.3.weight",
    }  # fmt: skip
    save_lewel(tmp_path / "in.pth", state | {name: torch.zeros(1) for name in others}, "")
    backbone = convert.read_backbone(tmp_path / "in.pth")
    assert set(backbone.ignored) == others and len(backbone.tensors) == len(state)


@pytest.mark.parametrize("kind", ["parameter", "half", "transposed"])
def test_tensors_of_any_kind_are_taken(tmp_path: Path, kind: str) -> None:
    state = numbered("resnet18")
    weight = torch.randn(64, 3, 7, 7)
    state["conv1.weight"] = {
        "parameter": nn.Parameter(weight),
        "half": weight.half(),
        "transposed": weight.transpose(2, 3),
    }[kind]
    torch.save(state, tmp_path / "in.pth")
    convert.convert(tmp_path / "in.pth", tmp_path / "out.pkl")
    array = pickle.loads((tmp_path / "out.pkl").read_bytes())["model"]["stem.conv1.weight"]
    np.testing.assert_array_equal(array, state["conv1.weight"].detach().float().numpy())


def refused(folder: Path, state: dict[str, Tensor], message: str) -> None:
    """The checkpoint is refused with a message, and the old output stays."""
    save_lewel(folder / "in.pth", state, LEWEL_PREFIX)
    (folder / "out.pkl").write_text("old")
    with pytest.raises(UserError, match=message):
        convert.convert(folder / "in.pth", folder / "out.pkl")
    assert (folder / "out.pkl").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["in.pth", "out.pkl"]


def test_no_tensor_may_be_missing(tmp_path: Path) -> None:
    whole = shape_state("resnet18")
    for name in whole:
        if name == "conv1.weight":  # by which a format is known
            refused(tmp_path, {k: whole[k] for k in whole if k != name}, "not a LEWEL checkpoint")
        elif not name.endswith("num_batches_tracked"):
            refused(tmp_path, {k: whole[k] for k in whole if k != name}, re.escape(name))


R50 = shape_state("resnet50")


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(R50)),
    shape=st.lists(st.integers(0, 64), max_size=4).map(tuple),
    kind=st.sampled_from(["missing", "misshapen", "unknown"]),
    stage=st.integers(1, 9),
    block=st.integers(0, 40),
)
def test_a_resnet50_is_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    name: str, shape: tuple[int, ...], kind: str, stage: int, block: int,
) -> None:  # fmt: skip
    state = dict(R50)
    if kind == "missing":
        assume(name != "conv1.weight" and not name.endswith("num_batches_tracked"))
        del state[name]
    elif kind == "misshapen":
        assume(shape != tuple(R50[name].shape))
        state[name] = torch.zeros(()).expand(shape)
    else:
        name = re.sub(r"layer\d\.\d+|bn1|conv1$", f"layer{stage}.{block}", name)
        assume(name not in R50)
        state[name] = torch.zeros(())
    refused(tmp_path_factory.mktemp("altered"), state, re.escape(name) + ".*nothing was written")


def test_batchnorm_counters_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in shape_state("resnet50").items() if "num_batches" not in k}
    save_lewel(tmp_path / "in.pth", state, LEWEL_PREFIX)
    assert len(convert.read_backbone(tmp_path / "in.pth").tensors) == 53 + 53 * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"state_dict": [1, 2]}, "holds no tensors"),
        (torch.zeros(3), "holds a Tensor"),
        ({"features.0.weight": torch.zeros(1)}, r"its tensors are named features\.0"),
        (
            {"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(1)}},
            r"its tensors are named module\.encoder_q",
        ),
    ],
)
def test_what_is_no_resnet_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth .*{message}"):
        convert.convert(tmp_path / "other.pth", tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_lewel(tmp_path / "in.pth", shape_state("resnet50"), LEWEL_PREFIX)
    words = [str(tmp_path / "in.pth"), str(tmp_path / "out.pkl")]
    run = subprocess.run(
        [sys.executable, "-m", "detection.convert", *words],
        cwd=CONFIGS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "318 of 318" in run.stdout and (tmp_path / "out.pkl").exists()
    for arguments in ([str(tmp_path / "nothing"), words[1]], words[:1], ["--help", words[1]]):
        with pytest.raises(SystemExit) as exit_:
            convert.main(arguments)
        out, err = capsys.readouterr()
        assert exit_.value.code == 2 and out == ""
        assert err.startswith("error: ") and err.count("\n") == 1
