"""The converter reads every known format, and nothing that is not a whole ResNet."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common import resnets
from common.errors import UserError
from common.resnets import depth_of
from detection import convert
from detection.convert import detectron2_name
from tests.common.writers import numbered
from tests.detection.helpers import LEWEL_PREFIX, config, save_lewel, shape_state

WIDTHS = {"wide_resnet50_2": 128, "wide_resnet101_2": 128}


@pytest.mark.parametrize("architecture", resnets.ARCHITECTURES)
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
        ("resnet18", "online_net.backbone."),
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
    origin = {"method", "norm", "epochs", "network", "recipe"}
    assert written.keys() == {"model", "__author__", "matching_heuristics"} | origin
    assert (written["method"], written["norm"], written["epochs"]) == told
    assert written["matching_heuristics"] is True and isinstance(written["__author__"], str)
    assert len(written["model"]) == len(state)
    for name, tensor in state.items():
        array = written["model"][detectron2_name(name)]
        assert isinstance(array, np.ndarray)
        assert array.dtype == (np.float32 if tensor.is_floating_point() else np.int64)
        np.testing.assert_array_equal(array, tensor.numpy())
    if architecture == "resnet50":
        assert len(written["model"]) == 53 + 53 * 5 == 318  # convolutions and their BatchNorms


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
        assume(not name.endswith("num_batches_tracked"))
        del state[name]
    elif kind == "misshapen":
        assume(shape != tuple(R50[name].shape))
        state[name] = torch.zeros(()).expand(shape)
    else:
        name = re.sub(r"layer\d\.\d+|bn1|conv1$", f"layer{stage}.{block}", name)
        assume(name not in R50)
        state[name] = torch.zeros(())
    refused(tmp_path_factory.mktemp("altered"), state, re.escape(name) + ".*nothing was written")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "holds no tensors"),
        ({"state_dict": [1, 2]}, "holds no tensors"),
        (torch.zeros(3), "holds a torch.Tensor, not"),
        ({"features.0.weight": torch.zeros(1)}, r"its tensors are named features \(1\)"),
        (
            {"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(1)}},
            r"is not a whole ResNet: .*bn1",
        ),
    ],
)
def test_what_is_no_resnet_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth .*{message}"):
        convert.convert(tmp_path / "other.pth", tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()
