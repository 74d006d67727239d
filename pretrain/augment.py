"""Views of an image: random ones for training, one fixed for evaluation.

The random numbers of a view are keyed by (seed, epoch, image, view): neither a resume nor the
number of data-loader workers or processes changes an image's views.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ViewTransform = Callable[[Image.Image], Tensor]
"""PIL RGB image -> normalised tensor (3, s, s)."""


class RandomViews:
    """One tensor for each of some random transforms."""

    def __init__(self, view_transforms: tuple[ViewTransform, ...], seed: int) -> None:
        self.transforms, self.seed = view_transforms, seed

    def __call__(self, image: Image.Image, epoch: int, index: int) -> tuple[Tensor, ...]:
        """Tensors (3, s, s) of an RGB image; the same for the same seed, epoch and index."""
        return tuple(
            _seeded(transform, image, (self.seed, epoch, index, view))
            for view, transform in enumerate(self.transforms)
        )


def _seeded(transform: ViewTransform, image: Image.Image, key: tuple[int, ...]) -> Tensor:
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return transform(image)


SIGMA = 0.1, 2.0  # of the published recipes, for views of 224 pixels


class GaussianBlur:
    """PIL's Gaussian blur with a standard deviation drawn from ``sigma``, in pixels."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        low, high = self.sigma
        sigma = low + (high - low) * torch.rand(()).item()
        return image.filter(ImageFilter.GaussianBlur(sigma))


def _normalised() -> list[Callable[..., Tensor]]:
    return [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


def byol_view(
    image_size: int, blur: float, solarize: float, sigma: tuple[float, float] = SIGMA
) -> transforms.Compose:
    """A view of BYOL (arXiv 2006.07733, appendix B), crops of at least 0.2 as in LEWEL's release.

    ``blur`` and ``solarize`` are probabilities; solarization inverts values of 128 and above.
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, scale=(0.2, 1.0)),  # bilinear
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([GaussianBlur(sigma)], p=blur),
            transforms.RandomSolarize(128, p=solarize),
            *_normalised(),
        ]
    )


def byol_views(
    image_size: int, sigma: tuple[float, float] = SIGMA
) -> tuple[ViewTransform, ViewTransform]:
    """Two views; only the first is always blurred, only the second ever solarized."""
    return byol_view(image_size, 1.0, 0.0, sigma), byol_view(image_size, 0.1, 0.2, sigma)


def moco_views(
    image_size: int, sigma: tuple[float, float] = SIGMA
) -> tuple[ViewTransform, ViewTransform]:
    """Two views of MoCo v2 (arXiv 2003.04297, section 3; the release's ``aug_plus``)."""
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([GaussianBlur(sigma)], p=0.5),
            transforms.RandomHorizontalFlip(),
            *_normalised(),
        ]
    )
    return view, view


def crop_and_flip(image_size: int) -> ViewTransform:
    """The training view of linear and semi-supervised evaluation."""
    crop = transforms.RandomResizedCrop(image_size, scale=(0.08, 1.0))
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(), *_normalised()])


def centre_crop(image_size: int) -> ViewTransform:
    """The evaluation view: the shorter side resized to 256/224 of the crop, centre crop."""
    resize = transforms.Resize(round(image_size * 256 / 224))
    return transforms.Compose([resize, transforms.CenterCrop(image_size), *_normalised()])
