"""Images for trainings of seconds."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Three batches of eight images of two classes, and a validation split of eight."""
    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 12), ("val", 4)):
        for name in ("dots", "rings"):
            target = folder / split / name
            shutil.copytree(demo_root / "imagenet" / split / name, target)
            for path in sorted(target.iterdir())[count:]:
                path.unlink()
    return folder
