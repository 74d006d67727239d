"""Converted weights in real detectors compute what torchvision's ResNet computes."""

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
ROIS = (2, 1024, 14, 14)


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


@torch.no_grad()
def test_the_c4_backbone_and_its_res5_are_torchvisions(
    lewel: dict[str, Tensor], weights: Path
) -> None:
    model = detector("coco_R_50_C4_1x_infomin", weights)
    reference = torchvision_resnet("resnet50", lewel, ONLINE)
    generator = torch.Generator().manual_seed(0)
    image, rois = (torch.rand(*size, generator=generator) for size in ((1, 3, 64, 96), ROIS))
    assert distance(model.backbone(image)["res4"], stages(reference, image)[2]) < 1e-4
    blocks = nn.Sequential(*list(model.roi_heads.res5.children())[:3])  # the 4th is the extra norm
    assert distance(blocks(rois), reference.get_submodule("layer4")(rois)) < 1e-4
