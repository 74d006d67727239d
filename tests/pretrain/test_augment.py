"""The views: keyed randomness, torchvision's and PIL's own operations, probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as TF

from pretrain.augment import IMAGENET_MEAN, IMAGENET_STD, GaussianBlur, TwoViews, view_transform

KEY = st.tuples(st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 1_300_000))


def picture(seed: int = 0, size: tuple[int, int] = (80, 60)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@settings(max_examples=25, deadline=None)
@given(key=KEY, other=KEY, noise=st.integers(0, 2**31))
def test_views_depend_on_their_key_alone(
    key: tuple[int, int, int], other: tuple[int, int, int], noise: int
) -> None:
    views = TwoViews(32)
    first = views(picture(), key)
    torch.manual_seed(noise)  # whatever a worker drew before
    views(picture(1), other)
    again = views(picture(), key)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if key != other:
        assert not torch.equal(first[0], views(picture(), other)[0])


def test_drawing_views_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    TwoViews(32)(picture(), (0, 0, 0))
    assert torch.equal(torch.rand(3), expected)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(8, 96), width=st.integers(1, 200), height=st.integers(1, 200))
def test_any_image_gives_finite_views_of_the_size(size: int, width: int, height: int) -> None:
    for view in TwoViews(size)(picture(size=(width, height)), (0, 1, 2)):
        assert view.shape == (3, size, size) and view.dtype == torch.float32
        assert torch.isfinite(view).all()


def test_the_blur_is_pils_with_a_sigma_between_its_bounds() -> None:
    image = picture()
    torch.manual_seed(3)
    sigma = 0.1 + 1.9 * torch.rand(()).item()
    torch.manual_seed(3)
    assert GaussianBlur((0.1, 2.0))(image) == image.filter(ImageFilter.GaussianBlur(sigma))


def test_values_are_torchvisions_normalised_ones() -> None:
    """Without its random parts the pipeline is torchvision's ToTensor and Normalize."""
    pipeline = view_transform(60, blur=0.0, solarize=0.0)
    plain = transforms.Compose(pipeline.transforms[-2:])
    image = picture()
    expected = TF.normalize(TF.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.equal(plain(image), expected)


def test_operations_parameters_and_their_order() -> None:
    """DESIGN, "Views": what each step is, for both views."""
    for view, (blur, solarize) in enumerate([(1.0, 0.0), (0.1, 0.2)]):
        steps = TwoViews(224).transforms[view].transforms
        crop, flip, jitter, grey, blurring, solarizing, _, _ = steps
        assert isinstance(crop, transforms.RandomResizedCrop)
        assert (crop.size, crop.scale, crop.ratio) == ((224, 224), (0.2, 1.0), (3 / 4, 4 / 3))
        assert crop.interpolation == transforms.InterpolationMode.BILINEAR
        assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5
        assert jitter.p == 0.8
        inner = jitter.transforms[0]
        assert (inner.brightness, inner.contrast) == ((0.6, 1.4), (0.6, 1.4))
        assert inner.saturation == (0.8, 1.2) and inner.hue == (-0.1, 0.1)
        assert isinstance(grey, transforms.RandomGrayscale) and grey.p == 0.2
        assert blurring.p == blur and blurring.transforms[0].sigma == (0.1, 2.0)
        assert (solarizing.threshold, solarizing.p) == (128, solarize)


@pytest.mark.parametrize(("p", "operation"), [(0.2, 3), (0.5, 1)])
def test_an_operation_happens_as_often_as_it_says(p: float, operation: int) -> None:
    step = TwoViews(32).transforms[0].transforms[operation]
    image = picture()
    torch.manual_seed(0)
    changed = sum(step(image) != image for _ in range(1000))
    assert abs(changed / 1000 - p) < 4 * (p * (1 - p) / 1000) ** 0.5
