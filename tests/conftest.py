"""Fixtures: the embedded data, drawn once for the session, and real data where there is some."""

import os
from pathlib import Path

import pytest

REAL_DATA = "LEWEL_TEST_DATA"


def pytest_configure(config: pytest.Config) -> None:
    """Draw the embedded data outside the checkout, before ``detection`` is imported."""
    if "LEWEL_DEMO_DIR" not in os.environ:
        folder = config.cache.mkdir("lewel-demo") if config.cache else Path("build/demo")
        os.environ["LEWEL_DEMO_DIR"] = str(folder / "set")
    real = os.environ.get(REAL_DATA)
    if real:
        os.environ["DETECTRON2_DATASETS"] = real


@pytest.fixture(scope="session")
def demo_root() -> Path:
    """The embedded data."""
    import demo

    return demo.ensure()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real ImageNet, COCO and VOC images in ``DETECTRON2_DATASETS`` layout."""
    folder = os.environ.get(REAL_DATA)
    if not folder:
        pytest.skip(f"{REAL_DATA} is not set: no real images to test on")
    return Path(folder)
