"""The network against the papers' words: strides, dilations, parameters, geometry, loss."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from torch import nn
from torch.nn import functional as F

import segmentation  # noqa: F401  registers FCN
from segmentation.fcn import FCN
from tests.detection.helpers import config, torchvision_name

R50, D8, DEMO = "pascal_voc_R_50_FCN_30k", "pascal_voc_R_50_FCN_D8_20k", "demo_voc_R_18_FCN"
R18 = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
       "MODEL.SEM_SEG_HEAD.CONVS_DIM", 64)  # fmt: skip
BN = ("MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN")


def build(name: str, device: str = "meta", *overrides: Any) -> Any:
    """The network, by default without its numbers."""
    with torch.device(device):
        return build_model(config(name, "MODEL.DEVICE", device, *overrides))


@pytest.fixture(scope="module")
def small() -> FCN:
    """A ResNet-18 with numbers, whose statistics are not the initial ones."""
    torch.manual_seed(0)
    model: FCN = build(R50, "cpu", *R18, *BN)
    return warmed(model)


@pytest.fixture(scope="module")
def small_d8() -> FCN:
    """Likewise an FCN-D8."""
    torch.manual_seed(0)
    model: FCN = build(D8, "cpu", *BN, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS",
                       64, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16)  # fmt: skip
    return warmed(model)


def warmed(model: FCN) -> FCN:
    model.train()
    with torch.no_grad():
        model([{"image": torch.randint(0, 256, (3, 65, 65)).byte(),
                "sem_seg": torch.zeros(65, 65, dtype=torch.int64)}] * 2)  # fmt: skip
    return model


@pytest.mark.parametrize(("depth", "channels"), [((), 2048), (R18, 512)], ids=["R-50", "R-18"])
def test_the_backbone_has_stride_16_and_dilation_2_in_all_of_res5(
    depth: tuple[Any, ...], channels: int
) -> None:
    backbone = build(R50, "meta", *depth).backbone
    assert backbone.output_shape()["res5"].stride == 16
    assert backbone.output_shape()["res5"].channels == channels
    convs = [m for m in backbone.res5.modules() if isinstance(m, nn.Conv2d)]
    wide = [m for m in convs if m.kernel_size == (3, 3)]
    assert len(wide) == (4 if depth else 3)
    assert {m.dilation for m in wide} == {m.padding for m in wide} == {(2, 2)}
    assert {m.stride for m in convs} == {(1, 1)}
    for stage in (backbone.res2, backbone.res3, backbone.res4):
        assert {m.dilation for m in stage.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    features = backbone(torch.zeros(1, 3, 513, 513, device="meta"))["res5"]
    assert features.shape == (1, channels, 33, 33)


def test_the_head_is_as_published() -> None:
    """MoCo: "two extra 3x3 convolutions of 256 channels, with BN and ReLU, and then a 1x1
    convolution for per-pixel classification", and "dilation = 6" in the extra ones.
    """
    *extra, predictor = build(R50).head
    assert len(extra) == 2
    for conv in extra:
        assert (conv.kernel_size, conv.dilation, conv.padding) == ((3, 3), (6, 6), (6, 6))
        assert (conv.stride, conv.out_channels, conv.bias) == ((1, 1), 256, None)
        assert isinstance(conv.norm, nn.SyncBatchNorm)
        assert conv.activation in (F.relu, F.relu_)
    assert (predictor.kernel_size, predictor.out_channels) == ((1, 1), 21)
    assert predictor.norm is None and predictor.activation is None


def test_the_demo_has_stride_16_without_dilation() -> None:
    model = build(DEMO)
    assert model.stride == 16
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {m.dilation for m in convs} == {(1, 1)}
    assert [m.kernel_size for m in model.head] == [(3, 3), (1, 1)]


HEAD = 9 * 2048 * 256 + 9 * 256 * 256 + 2 * 2 * 256 + 256 * 21 + 21
D8_HEAD = 9 * (2048 * 512 + 512 * 512 + (2048 + 512) * 512) + 3 * 2 * 512 + 512 * 21 + 21
AUXILIARY = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21


@pytest.mark.parametrize(
    ("name", "head", "auxiliary", "norms"),
    [(R50, HEAD, 0, 53 + 2), (D8, D8_HEAD, AUXILIARY, 53 + 3 + 1)],
)
def test_the_number_of_parameters(name: str, head: int, auxiliary: int, norms: int) -> None:
    """Counted by hand: torchvision's ResNet-50 without its fc has 23,508,032."""
    model = build(name)
    assert sum(p.numel() for p in model.head.parameters()) == head
    assert sum(p.numel() for p in model.parameters()) == 23_508_032 + head + auxiliary
    assert all(p.requires_grad for p in model.parameters())
    found = [m for m in model.modules() if type(m).__name__.endswith("BatchNorm")]
    assert len(found) == norms and {type(m) for m in found} == {nn.SyncBatchNorm}


@pytest.mark.parametrize("size", [(65, 65), (40, 33), (17, 100)])
def test_logits_are_as_large_as_the_image(small: FCN, size: tuple[int, int]) -> None:
    small.eval()
    image = torch.randint(0, 256, (3, *size)).byte()
    with torch.no_grad():
        (result,) = small([{"image": image}])
        assert result["sem_seg"].shape == (21, *size)
        (resized,) = small([{"image": image, "height": 50, "width": 60}])
        assert resized["sem_seg"].shape == (21, 50, 60)
        pair = small([{"image": image}, {"image": image.new_zeros(3, 70, 30)}])
    assert [r["sem_seg"].shape for r in pair] == [(21, *size), (21, 70, 30)]


def test_every_sixteenth_pixel_has_a_logit_of_its_own(small: FCN) -> None:
    small.eval()
    image = torch.randint(0, 256, (3, 65, 97)).byte()
    with torch.no_grad():
        (result,) = small([{"image": image}])
        normalised = (image - small.pixel_mean) / small.pixel_std
        coarse = small.head(small.backbone(normalised[None])["res5"])[0]
    assert coarse.shape == (21, 5, 7)
    torch.testing.assert_close(result["sem_seg"][:, ::16, ::16], coarse, rtol=1e-4, atol=1e-5)


def test_a_logit_belongs_to_the_pixel_that_it_is_centred_at() -> None:
    """In a network of ones without norms, a pixel's mark is highest at its logit."""
    overrides = ("MODEL.RESNETS.NORM", "", "MODEL.SEM_SEG_HEAD.NORM", "")
    with torch.no_grad():
        backbone = build(R50, "cpu", *R18, *overrides).backbone.double()
        for conv in (m for m in backbone.modules() if isinstance(m, nn.Conv2d)):
            conv.weight.fill_(1 / conv.weight[0].numel())
        blank = torch.zeros(1, 3, 257, 257, dtype=torch.float64)
        before = backbone(blank)["res5"]
        blank[..., 16 * 7, 16 * 9] = 1
        mark = (backbone(blank)["res5"] - before)[0, 0]
    assert mark.shape == (17, 17)
    assert divmod(int(mark.argmax()), 17) == (7, 9)


def test_the_loss_is_the_mean_over_labelled_pixels(small: FCN) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 21, 9, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 21, (2, 9, 9), generator=generator)
    labels[0, :4] = 255
    labels[1, :, 5:] = 255
    probabilities = np.exp(logits.numpy())
    probabilities /= probabilities.sum(1, keepdims=True)
    picked = [-np.log(probabilities[n, labels[n, y, x], y, x])
              for n, y, x in np.argwhere(labels.numpy() != 255)]  # fmt: skip
    assert small.loss(logits, labels).item() == pytest.approx(np.mean(picked), rel=1e-12)


def test_a_batch_without_labels_is_no_error(small: FCN) -> None:
    logits = torch.randn(1, 21, 4, 4, requires_grad=True)
    loss = small.loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_training_pads_images_to_be_ignored(small: FCN) -> None:
    """A crop whose sides are no multiple of 16 plus 1 is trained on as if padded by hand."""
    small.train()
    image = torch.randint(0, 256, (3, 60, 50)).byte()
    labels = torch.randint(0, 21, (60, 50))
    with torch.no_grad():
        loss = small([{"image": image, "sem_seg": labels}] * 2)["loss_sem_seg"]
        normalised = F.pad((image - small.pixel_mean) / small.pixel_std, (0, 15, 0, 5))
        padded = torch.stack([normalised] * 2)
        logits = small.upsample(small.head(small.backbone(padded)["res5"]), padded)
        logits = logits[:, :, :60, :50]
        wanted = F.cross_entropy(logits, torch.stack([labels] * 2))
    torch.testing.assert_close(loss, wanted)


# FCN-D8: mmsegmentation's configs/_base_/models/fcn_r50-d8.py with DenseCL's plain ResNet.


@pytest.mark.parametrize("size", [(512, 683), (410, 2048)])
def test_the_output_stride_of_d8_is_8(size: tuple[int, int]) -> None:
    model = build(D8)
    assert {name: shape.stride for name, shape in model.backbone.output_shape().items()} == {
        "res4": 8, "res5": 8
    }  # fmt: skip
    features = model.backbone(torch.zeros(1, 3, *size, device="meta"))
    eighth = tuple(-(-side // 8) for side in size)
    assert features["res4"].shape == (1, 1024, *eighth)
    assert features["res5"].shape == (1, 2048, *eighth)
    assert model.head(features["res5"]).shape == model.auxiliary(features["res4"]).shape
    assert model.auxiliary(features["res4"]).shape == (1, 21, *eighth)


def test_the_head_of_d8_sees_its_input_twice(small_d8: Any) -> None:
    """Two convolutions, a third over input and output, dropout of channels, a 1x1."""
    small_d8.eval()
    (first, second), third, dropout, predictor = small_d8.head
    features = torch.randn(2, 512, 9, 7)
    with torch.no_grad():
        between = second(first(features))
        expected = predictor(third(torch.cat([features, between], dim=1)))
        torch.testing.assert_close(small_d8.head(features), expected)
    for layer in (first, second, third, small_d8.auxiliary[0]):
        assert (layer.kernel_size, layer.dilation, layer.padding) == ((3, 3), (1, 1), (1, 1))
    for layer in (dropout, small_d8.auxiliary[1]):
        assert isinstance(layer, nn.Dropout2d) and layer.p == 0.1
    assert len(small_d8.auxiliary) == 3


def test_heads_start_as_mmsegmentations() -> None:
    """Kaiming's normal distribution with fan out; 0.01 in the last layer."""
    torch.manual_seed(0)
    model = build(D8, "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
                  "MODEL.SEM_SEG_HEAD.CONVS_DIM", 64)  # fmt: skip
    for conv, width in ((model.head[1], 64), (model.auxiliary[0], 32)):
        assert conv.weight.std().item() == pytest.approx((2 / (9 * width)) ** 0.5, rel=0.03)
    for predictor in (model.head[3], model.auxiliary[2]):
        assert predictor.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not predictor.bias.any()


def test_the_losses_of_d8_are_means_over_all_pixels(small_d8: Any) -> None:
    """mmsegmentation's default: an ignored pixel counts as one whose cross entropy is 0."""
    small_d8.train()
    layers = [m for m in small_d8.modules() if isinstance(m, nn.Dropout2d)]
    inputs = [{"image": torch.randint(0, 256, (3, 64, 64)).byte(),
               "sem_seg": torch.randint(0, 21, (64, 64))} for _ in range(2)]  # fmt: skip
    inputs[0]["sem_seg"][:20] = 255
    inputs[1]["sem_seg"][:, 50:] = 255
    labels = torch.stack([x["sem_seg"] for x in inputs])
    for layer in layers:
        layer.p = 0.0
    with torch.no_grad():
        found = small_d8(inputs)
        images = torch.stack([(x["image"] - small_d8.pixel_mean) / small_d8.pixel_std
                              for x in inputs])  # fmt: skip
        features = small_d8.backbone(images)
        coarse = {"loss_sem_seg": small_d8.head(features["res5"]),
                  "loss_auxiliary": small_d8.auxiliary(features["res4"])}  # fmt: skip
    for layer in layers:
        layer.p = 0.1
    assert found.keys() == coarse.keys()
    for (name, logits), weight in zip(coarse.items(), (1.0, 0.4), strict=True):
        assert logits.shape[-2:] == (8, 8)
        logits = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
        each = F.cross_entropy(logits, labels.where(labels != 255, 0), reduction="none")
        expected = each[labels != 255].sum() / (2 * 64 * 64) * weight
        torch.testing.assert_close(found[name], expected)


def test_d8_resizes_logits_twice(small_d8: Any) -> None:
    """To the image as the network saw it, and from there to the file's own size."""
    small_d8.eval()
    image = torch.randint(0, 256, (3, 70, 93)).byte()
    with torch.no_grad():
        (found,) = small_d8([{"image": image, "height": 51, "width": 68}])
        normalised = (image - small_d8.pixel_mean) / small_d8.pixel_std
        coarse = small_d8.head(small_d8.backbone(normalised[None])["res5"])
        assert coarse.shape == (1, 21, 9, 12)
        for size in ((70, 93), (51, 68)):
            coarse = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found["sem_seg"], coarse[0])


def test_the_backbone_of_d8_is_torchvisions_dilated_resnet() -> None:
    """The first blocks keep the dilation of the stage before: the same features, to rounding."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).double()
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1)
        assert norm.running_var is not None and norm.running_mean is not None
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.running_mean, std=0.1)
    state = {torchvision_name(k): v for k, v in theirs.state_dict().items() if k[:3] != "fc."}
    ours = build(D8, "cpu", *BN).backbone.double()
    ours.load_state_dict(state)
    image = torch.randn(1, 3, 97, 70, dtype=torch.float64)
    with torch.no_grad():
        found = ours.eval()(image)
        features = torchvision.models._utils.IntermediateLayerGetter(
            theirs.eval(), {"layer3": "res4", "layer4": "res5"}
        )(image)
    assert features["res5"].shape == (1, 2048, 13, 9)
    for name in ("res4", "res5"):
        torch.testing.assert_close(found[name], features[name])
