"""Images for pre-trainings of seconds."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Three batches of eight images."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("disc", "star"):
        shutil.copytree(demo_root / "imagenet" / "train" / name, folder / "train" / name)
        for path in sorted((folder / "train" / name).iterdir())[12:]:
            path.unlink()
    return folder
