"""The two views of an image, as in BYOL (arXiv 2006.07733, appendix B) and LEWEL's release.

The random numbers of a view are keyed by (seed, epoch, image, view): neither a resume nor the
number of data-loader workers or processes changes an image's views.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class GaussianBlur:
    """PIL's Gaussian blur with a standard deviation drawn from ``sigma``, in pixels."""

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur ``image``."""
        low, high = self.sigma
        sigma = low + (high - low) * torch.rand(()).item()
        return image.filter(ImageFilter.GaussianBlur(sigma))


def view_transform(image_size: int, blur: float, solarize: float) -> transforms.Compose:
    """A random view: PIL RGB image -> normalised tensor (3, image_size, image_size).

    Args:
        image_size: side of the view in pixels.
        blur: probability of the Gaussian blur.
        solarize: probability of solarization, which inverts values of 128 and above.
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, scale=(0.2, 1.0)),  # bilinear
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([GaussianBlur()], p=blur),
            transforms.RandomSolarize(128, p=solarize),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


class TwoViews:
    """Two views of an image; only the first is always blurred, only the second ever solarized."""

    def __init__(self, image_size: int = 224) -> None:
        self.transforms = (
            view_transform(image_size, blur=1.0, solarize=0.0),
            view_transform(image_size, blur=0.1, solarize=0.2),
        )

    def __call__(self, image: Image.Image, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Two tensors (3, s, s) of an RGB ``image``; ``key`` is (seed, epoch, image index)."""
        view1, view2 = (_seeded(t, image, (*key, v)) for v, t in enumerate(self.transforms))
        return view1, view2


def _seeded(transform: transforms.Compose, image: Image.Image, key: tuple[int, ...]) -> Tensor:
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return transform(image)
