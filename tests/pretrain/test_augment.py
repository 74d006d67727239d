"""The views: keyed randomness, torchvision's and PIL's own operations, probabilities."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as TF

from pretrain.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    GaussianBlur,
    RandomViews,
    ViewTransform,
    byol_view,
    byol_views,
    centre_crop,
    crop_and_flip,
    moco_views,
)

KEY = st.tuples(st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 1_300_000))
"""Seed, epoch and index."""


def picture(seed: int = 0, size: tuple[int, int] = (80, 60)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def steps_of(pipeline: ViewTransform) -> Any:
    """The transforms of a torchvision pipeline."""
    assert isinstance(pipeline, transforms.Compose)
    return pipeline.transforms


def views_of(image: Image.Image, key: tuple[int, int, int], size: int = 32) -> tuple[Tensor, ...]:
    seed, epoch, index = key
    return RandomViews(byol_views(size), seed)(image, epoch, index)


@settings(max_examples=25, deadline=None)
@given(key=KEY, other=KEY, noise=st.integers(0, 2**31))
def test_views_depend_on_their_key_alone(
    key: tuple[int, int, int], other: tuple[int, int, int], noise: int
) -> None:
    first = views_of(picture(), key)
    torch.manual_seed(noise)  # whatever a worker drew before
    views_of(picture(1), other)
    again = views_of(picture(), key)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if key != other:
        assert not torch.equal(first[0], views_of(picture(), other)[0])


def test_views_of_one_transform_have_random_numbers_of_their_own() -> None:
    view1, view2, view3 = RandomViews((crop_and_flip(32),) * 3, 0)(picture(), 0, 0)
    assert not torch.equal(view1, view2) and not torch.equal(view2, view3)


def test_drawing_views_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    views_of(picture(), (0, 0, 0))
    assert torch.equal(torch.rand(3), expected)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(8, 96), width=st.integers(1, 200), height=st.integers(1, 200))
def test_any_image_gives_finite_views_of_the_size(size: int, width: int, height: int) -> None:
    image = picture(size=(width, height))
    transforms = (*byol_views(size), *moco_views(size), crop_and_flip(size), centre_crop(size))
    for view in RandomViews(transforms, 0)(image, 1, 2):
        assert view.shape == (3, size, size) and view.dtype == torch.float32
        assert torch.isfinite(view).all()


def test_the_blur_is_pils_with_a_sigma_between_its_bounds() -> None:
    image = picture()
    torch.manual_seed(3)
    sigma = 0.1 + 1.9 * torch.rand(()).item()
    torch.manual_seed(3)
    assert GaussianBlur((0.1, 2.0))(image) == image.filter(ImageFilter.GaussianBlur(sigma))


@pytest.mark.parametrize(
    "pipeline", [byol_view(60, 0, 0), *moco_views(60), crop_and_flip(60), centre_crop(60)]
)
def test_values_are_torchvisions_normalised_ones(pipeline: ViewTransform) -> None:
    """Without its random parts the pipeline is torchvision's ToTensor and Normalize."""
    plain = transforms.Compose(steps_of(pipeline)[-2:])
    image = picture()
    expected = TF.normalize(TF.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.equal(plain(image), expected)


def check_crop(crop: transforms.RandomResizedCrop, smallest: float) -> None:
    assert isinstance(crop, transforms.RandomResizedCrop)
    assert (crop.size, crop.scale, crop.ratio) == ((224, 224), (smallest, 1.0), (3 / 4, 4 / 3))
    assert crop.interpolation == transforms.InterpolationMode.BILINEAR


def check_jitter(jitter: transforms.RandomApply, saturation: tuple[float, float]) -> None:
    assert jitter.p == 0.8
    inner = jitter.transforms[0]
    assert (inner.brightness, inner.contrast) == ((0.6, 1.4), (0.6, 1.4))
    assert inner.saturation == saturation and inner.hue == (-0.1, 0.1)


def test_byol_views_parameters_and_their_order() -> None:
    """Each step, of both views."""
    for pipeline, (blur, solarize) in zip(byol_views(224), [(1.0, 0.0), (0.1, 0.2)], strict=True):
        crop, flip, jitter, grey, blurring, solarizing, _, _ = steps_of(pipeline)
        check_crop(crop, 0.2)
        assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5
        check_jitter(jitter, (0.8, 1.2))
        assert isinstance(grey, transforms.RandomGrayscale) and grey.p == 0.2
        assert blurring.p == blur and blurring.transforms[0].sigma == (0.1, 2.0)
        assert isinstance(solarizing, transforms.RandomSolarize)
        assert (solarizing.threshold, solarizing.p) == (128, solarize)


def test_moco_views_parameters_and_their_order() -> None:
    """MoCo's main_moco.py with --aug-plus: jitter of 0.4 thrice, blur half the time, flip last."""
    for pipeline in moco_views(224):
        crop, jitter, grey, blurring, flip, _, _ = steps_of(pipeline)
        check_crop(crop, 0.2)
        check_jitter(jitter, (0.6, 1.4))
        assert isinstance(grey, transforms.RandomGrayscale) and grey.p == 0.2
        assert isinstance(blurring.transforms[0], GaussianBlur)
        assert blurring.p == 0.5 and blurring.transforms[0].sigma == (0.1, 2.0)
        assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5


def test_the_training_view_of_linear_evaluation_is_a_crop_and_a_flip() -> None:
    crop, flip, _, _ = steps_of(crop_and_flip(224))
    check_crop(crop, 0.08)
    assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5


@pytest.mark.parametrize("size", [(500, 375), (300, 600), (224, 224), (60, 90)])
def test_the_evaluation_view_is_that_of_torchvisions_weights(size: tuple[int, int]) -> None:
    """Their ``transforms()`` have 256 and 224 pixels, bilinear, with ImageNet's mean and std."""
    reference = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    image = picture(size=size)
    assert torch.equal(centre_crop(224)(image), reference(image))


def test_a_smaller_evaluation_view_shows_as_much_of_the_image() -> None:
    resize, crop, _, _ = steps_of(centre_crop(112))
    assert (resize.size, crop.size) == (128, (112, 112))
