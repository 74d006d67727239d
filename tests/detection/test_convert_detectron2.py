"""Converted weights in real detectors compute what torchvision's ResNet computes."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.transforms.functional as transforms
from detectron2.modeling import build_model
from torch import Tensor, nn

from detection.checkpoint import RunCheckpointer, require_backbone
from detection.convert import convert
from tests.detection.helpers import config, random_lewel, save_lewel, torchvision_resnet

ONLINE, TARGET = "online_net.backbone.", "target_net.backbone."


@pytest.fixture(scope="module")
def lewel() -> dict[str, Tensor]:
    return random_lewel().state_dict()


@pytest.fixture(scope="module")
def weights(lewel: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert")
    checkpoint = save_lewel(folder / "checkpoint.pth.tar", lewel)
    convert(checkpoint, folder / "R-50.pkl")
    checkpoint.unlink()
    return folder / "R-50.pkl"


def detector(name: str, weights: Path) -> Any:
    model = build_model(config(name, "MODEL.RESNETS.NORM", "BN"))
    checkpointer = RunCheckpointer(model)
    checkpointer.load(str(weights))
    require_backbone(checkpointer, str(weights))
    return model.eval()


def stages(resnet: Any, images: Tensor) -> list[Tensor]:
    """torchvision's layer1 to layer4."""
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    found = []
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        x = layer(x)
        found.append(x)
    return found


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same_stage(ours: nn.Module, theirs: nn.Module) -> None:
    """Two stages of bottlenecks have bitwise the same tensors, in the order of computation."""
    pairs = zip(ours.children(), theirs.children(), strict=True)
    for block, reference in pairs:
        parts = [(getattr(block, f"conv{i}"), getattr(reference, f"conv{i}"),
                  getattr(reference, f"bn{i}")) for i in (1, 2, 3)]  # fmt: skip
        assert isinstance(block.shortcut, nn.Module) == (reference.downsample is not None)
        if isinstance(reference.downsample, nn.Sequential):
            parts.append((block.shortcut, *reference.downsample))
        for conv, their_conv, their_norm in parts:
            assert torch.equal(conv.weight, their_conv.weight)
            assert (conv.stride, conv.padding) == (their_conv.stride, their_conv.padding)
            for key, tensor in their_norm.state_dict().items():
                assert torch.equal(conv.norm.state_dict()[key], tensor), key


@torch.no_grad()
def test_the_fpn_backbone_is_torchvisions(lewel: dict[str, Tensor], weights: Path) -> None:
    model = detector("coco_R_50_FPN_1x_infomin", weights)
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0))
    ours = model.backbone.bottom_up(model.preprocess_image([{"image": image.float()}]).tensor)
    normalised = transforms.normalize(
        image[None] / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    online = stages(torchvision_resnet("resnet50", lewel, ONLINE), normalised)
    target = stages(torchvision_resnet("resnet50", lewel, TARGET), normalised)
    for i, name in enumerate(("res2", "res3", "res4", "res5")):
        assert distance(ours[name], online[i]) < 1e-4
        assert distance(ours[name], target[i]) > 1e-2


def test_all_318_tensors_are_in_the_file(weights: Path) -> None:
    with weights.open("rb") as file:
        content = pickle.load(file)
    assert {"model", "__author__", "matching_heuristics"} <= content.keys()
    assert content["matching_heuristics"] is True
    convolutions = [a for a in content["model"].values() if a.ndim == 4]
    assert len(convolutions) == 53 and len(content["model"]) == 53 + 53 * 5 == 318
    assert all(a.max() != a.min() for a in content["model"].values() if a.ndim)  # all are random


@torch.no_grad()
def test_the_c4_backbone_and_its_res5(lewel: dict[str, Tensor], weights: Path) -> None:
    model = detector("coco_R_50_C4_1x_infomin", weights)
    reference: Any = torchvision_resnet("resnet50", lewel, ONLINE)
    assert torch.equal(model.backbone.stem.conv1.weight, reference.conv1.weight)
    for key, tensor in reference.bn1.state_dict().items():
        assert torch.equal(model.backbone.stem.conv1.norm.state_dict()[key], tensor), key
    blocks = nn.Sequential(*list(model.roi_heads.res5.children())[:3])  # the 4th is the extra norm
    for ours, theirs in (
        (model.backbone.res2, reference.layer1),
        (model.backbone.res3, reference.layer2),
        (model.backbone.res4, reference.layer3),
        (blocks, reference.layer4),
    ):
        assert_same_stage(ours, theirs)
    rois = torch.rand(2, 1024, 14, 14, generator=torch.Generator().manual_seed(0))
    assert distance(blocks(rois), reference.layer4(rois)) < 1e-4
