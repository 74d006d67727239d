"""Fixtures: the embedded data, drawn once for the session, and real data where there is some."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

import demo

FEW = demo.Counts(
    imagenet_train=15,
    imagenet_val=4,
    coco_train=24,
    coco_val=10,
    voc2007_trainval=4,
    voc2007_test=12,
    voc2012_train=4,
    voc2012_val=4,
    voc2012_augmented=4,
)
REAL_DATA = "LEWEL_TEST_DATA"


def pytest_configure(config: pytest.Config) -> None:
    """Say where the data are before ``detection`` is imported, which registers them; and use one
    thread, here and in what tests start: small networks take ten times longer on two of a busy
    machine's."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell ignores Ctrl-C for what it starts in the background, and tests of it would wait.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert config.cache is not None
    os.environ["LEWEL_DEMO_DIR"] = str(config.cache.mkdir("lewel-demo") / "set")
    os.environ["LEWEL_CACHE"] = str(config.cache.mkdir("lewel-cache"))
    real = os.environ.get(REAL_DATA)
    if real:
        os.environ[REAL_DATA] = os.environ["DETECTRON2_DATASETS"] = str(Path(real).resolve())


@pytest.fixture(scope="session", autouse=True)
def demo_root() -> Path:
    """The embedded data, fewer images of it; drawn anew unless they are there already."""
    root, wanted = demo.default_root(), (demo.datasets.VERSION, dataclasses.asdict(FEW))
    found = demo.datasets.manifest(root) or {}
    if (found.get("version"), found.get("counts")) != wanted:
        demo.write(root, counts=FEW)
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real ImageNet, COCO and VOC images in ``DETECTRON2_DATASETS`` layout."""
    folder = os.environ.get(REAL_DATA)
    if not folder:
        pytest.skip(f"{REAL_DATA} is not set: no real images to test on")
    return Path(folder)
