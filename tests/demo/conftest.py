"""A small set, drawn once for all tests here."""

from pathlib import Path

import pytest

from demo import Counts, write


@pytest.fixture(scope="session")
def counts() -> Counts:
    return Counts(
        imagenet_train=3,
        imagenet_val=2,
        coco_train=24,
        coco_val=8,
        voc2007_trainval=8,
        voc2007_test=4,
        voc2012_train=8,
        voc2012_val=4,
        voc2012_augmented=4,
    )


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, counts: Counts) -> Path:
    return write(tmp_path_factory.mktemp("demo") / "set", counts=counts)
