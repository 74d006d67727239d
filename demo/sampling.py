"""Random scenes by name: each image has a random stream of its own, whatever else is drawn."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.classes import CLASSES
from demo.scenes import Scene, draw

JPEG_QUALITY = 90
MAX_OBJECTS = 5


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """The random stream of the image called ``name`` in the set of ``seed``."""
    key = zlib.crc32("/".join(str(part) for part in name).encode())
    return np.random.default_rng([seed, key])


def single(rng: np.random.Generator, label: int) -> Scene:
    """One object of class ``label`` that fills a good part of an image of 96 to 128 pixels."""
    height, width = rng.integers(96, 129, size=2).tolist()
    return draw(rng, height, width, [label], (0.5, 0.8), margin=0.35)


def several(rng: np.random.Generator) -> Scene:
    """One to five objects of random classes and sizes in an image of 112 to 200 pixels a side."""
    short, long = int(rng.integers(112, 145)), int(rng.integers(144, 201))
    height, width = (short, long) if rng.random() < 0.7 else (long, short)
    labels = rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS + 1)).tolist()
    return draw(rng, height, width, labels, (0.14, 0.5))


def save_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write ``image`` (height, width, 3); the folder must exist."""
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)
