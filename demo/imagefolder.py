"""The ImageFolder layout: ``<split>/<class>/<image>.jpg``, one object an image."""

from pathlib import Path

from demo import sampling
from demo.classes import CLASSES


def write(root: Path, split: str, count: int, seed: int) -> None:
    """Draw ``count`` images a class into ``root/split``."""
    for label, name in enumerate(CLASSES):
        folder = root / split / name
        folder.mkdir(parents=True)
        for index in range(count):
            scene = sampling.single(sampling.generator(seed, "imagenet", split, name, index), label)
            sampling.save_jpeg(folder / f"{name}_{split}_{index:04d}.jpg", scene.image)
